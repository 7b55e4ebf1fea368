package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/features"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// doctor changes derper's flags in every way in which a release may: new ones of all types,
// one of them in another package, one that is gone, one of another type, and one with another
// default.
func doctor(t *testing.T, files map[string]string) {
	edit := func(name string, oldnew ...string) {
		for i := 0; i < len(oldnew); i += 2 {
			if !strings.Contains(files[name], oldnew[i]) {
				t.Fatalf("%s has no %q", name, oldnew[i])
			}
		}
		files[name] = strings.NewReplacer(oldnew...).Replace(files[name])
	}
	edit("cmd/derper/derper.go",
		`flag.String("home", "", `, `func(string, string, string) *string { return new(string) }("home", "", `,
		`flag.String("rate-config", "", `, `func(string, string, string) *string { return new(string) }("rate-config", "", `,
		`tcpKeepAlive = flag.Duration("tcp-keepalive-time", 10*time.Minute, "TCP keepalive time")`,
		`tcpKeepAliveText = flag.String("tcp-keepalive-time", "long", "TCP keepalive time, in words")`+"\n"+`tcpKeepAlive = new(time.Duration)`,
		`"tcp-user-timeout", 15*time.Second`, `"tcp-user-timeout", 20*time.Second`,
	)
	files["cmd/derper/more.go"] = `package main

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"time"
)

var (
	_ = tcpKeepAliveText
	_ = flag.Bool("more-bool", true, "a new one")
	_ = flag.Int("more-int", -3, "a new one")
	_ = flag.Int64("more-int64", 1<<40, "a new one")
	_ = flag.Uint("more-uint", 7, "a new one")
	_ = flag.Uint64("more-uint64", 1<<63, "a new one")
	_ = flag.Float64("more-float", 0.5, "a new one")
	_ = flag.String("more-text", "as | is", "a new ` + "`word`" + ` of it")
	_ = flag.Duration("more-time", 90*time.Minute, "a new one")
	_ = flag.String("more-host", computed(), "a new one")
	_ = flag.String("more-secret", "", "a new one")
	// A name that means something else to the entrypoint.
	_ = flag.String("verify-nodes", "", "a new one")
	moreAddr netip.Addr
)

func computed() string { return os.Getenv("NOWHERE") + "computed" }

func init() {
	flag.TextVar(&moreAddr, "more-addr", netip.IPv6Loopback(), "a new one")
	flag.Func("more-func", "a new one", func(s string) error {
		if s == "" {
			return errors.New("empty")
		}
		return nil
	})
	flag.BoolFunc("more-boolfunc", "a new one", func(string) error { return nil })
}
`
	edit("tsweb/promvarz/promvarz.go", "func init() {", "func init() {\n\tflag.Int(\"promvarz-port\", 0, \"from another package\")\n", "import (", "import (\n\t\"flag\"\n")
}

// TestDoctoredFlags guards what a release needs nobody for: whatever it does to derper's
// flags, the image is built, says what it understands, and passes the suite.
func TestDoctoredFlags(t *testing.T) {
	need.Namespaces(t)
	need.Minutes(t, "derper with other flags")
	r := releasetest.Doctored(t, "../..", func(files map[string]string) { doctor(t, files) })
	t.Setenv("GOPROXY", r.Proxy)
	img := builtAndTested(t, r.Inputs, r.SumDB)
	table := img.Table()
	for flag, name := range map[string]string{
		"more-bool": "MORE_BOOL", "more-int": "MORE_INT", "more-int64": "MORE_INT64", "more-uint": "MORE_UINT", "more-uint64": "MORE_UINT64",
		"more-float": "MORE_FLOAT", "more-text": "MORE_TEXT", "more-time": "MORE_TIME", "more-host": "MORE_HOST", "more-secret": "MORE_SECRET",
		"verify-nodes": "DERPER_VERIFY_NODES", "more-addr": "MORE_ADDR", "more-func": "MORE_FUNC", "more-boolfunc": "MORE_BOOLFUNC",
		"promvarz-port": "PROMVARZ_PORT", "tcp-keepalive-time": "TCP_KEEPALIVE_TIME",
	} {
		if v, ok := table.ByFlag(flag); !ok || v.Name != name || !v.ByRule() {
			t.Errorf("-%s is %+v, not %s by rule", flag, v, name)
		}
	}
	for _, gone := range []string{"home", "rate-config"} {
		if _, ok := table.ByFlag(gone); ok {
			t.Errorf("-%s is gone, and the image has it", gone)
		}
	}
	real := realRelease(t)
	var said []string
	for _, c := range flags.Changes(real, img) {
		said = append(said, c.String())
	}
	for _, want := range []string{
		"-home is gone (string): a relay for which FLAGHOME is set does not start",
		"-tcp-keepalive-time (TCP_KEEPALIVE_TIME) has another type: duration → string",
		"-tcp-user-timeout (TCP_USER_TIMEOUT) has another default: 15s → 20s",
		"-more-time is new (duration, default 1h30m0s): MORE_TIME",
		"-more-host is new (string, default computed): MORE_HOST",
	} {
		if !strings.Contains(strings.Join(said, "\n"), want) {
			t.Errorf("nothing says %q:\n%s", want, strings.Join(said, "\n"))
		}
	}
}

// TestUpstreamReleases builds and tests releases that the lock is not of: the program serves
// those before it, and after it.
func TestUpstreamReleases(t *testing.T) {
	need.Namespaces(t)
	need.AWeek(t, "whole builds of four releases of tailscale")
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := l.Inputs.Of(lock.Default)
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []struct {
		version string
		keep    []string // features without which its tailscaled does not compile
		lacks   []string // rows of the suite about what its tailscaled cannot do yet
	}{
		{"v1.96.5", []string{"clientmetrics"}, []string{"variable/PEER_RELAY_PORT", "variable/PEER_RELAY_ENDPOINTS"}},
		{"v1.98.10", nil, []string{"variable/PEER_RELAY_PORT", "variable/PEER_RELAY_ENDPOINTS"}},
		{"v1.100.0", nil, []string{"variable/PEER_RELAY_PORT", "variable/PEER_RELAY_ENDPOINTS"}},
		{"v1.102.5", nil, nil},
	} {
		version := release.version
		t.Run(version, func(t *testing.T) {
			inputs := inputs
			modules := &modproxy.Client{Proxies: os.Getenv("GOPROXY"), Dir: t.TempDir(), Temp: t.TempDir()}
			m := module.Version{Path: lock.TailscaleModule, Version: version}
			info, err := modules.Info(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			inputs.Tailscale = lock.Tailscale{Version: version, Commit: strings.Repeat("0123456789", 4), Time: info.Time}
			if inputs.Tailscale.Sum, err = modules.Sum(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			inputs.Programs = taggedFor(t, modules, m, inputs, release.keep)
			img := builtAndTested(t, inputs, "", release.lacks...)
			t.Logf("%d flags; against the lock's release: %v", len(img.Flags), flags.Changes(img, realRelease(t)))
		})
	}
}

// taggedFor are the programs of a lock with the build tags that they have at a release, by its
// own list of features, as build update chooses them.
func taggedFor(t *testing.T, modules *modproxy.Client, m module.Version, in lock.Inputs, keep []string) []lock.Program {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	t.Cleanup(func() { cache.RemoveAll(dir) })
	if err := modules.Fetch(t.Context(), m, in.Tailscale.Sum, dir, nil); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(features.File)))
	if err != nil {
		t.Fatal(err)
	}
	table, err := features.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	programs := slices.Clone(in.Programs)
	for i, p := range programs {
		if p.Features != nil {
			programs[i].Tags = table.Tags(slices.Concat(p.Features, keep))
		}
	}
	return programs
}

// realRelease are the flags of the lock's release.
func realRelease(t *testing.T) setting.Release {
	t.Helper()
	dir, err := realBuild()
	if err != nil {
		t.Fatal(err)
	}
	return flagsIn(t, dir)
}

// builtAndTested builds the image of these inputs for this machine with a cache of its own,
// whose compiled packages are the user's, and lets the suite test it: it must fail in the rows
// that are named, and in no others.
func builtAndTested(t *testing.T, inputs lock.Inputs, sumDB string, failing ...string) setting.Release {
	t.Helper()
	inputs.Platforms = []lock.Platform{"linux/" + lock.Platform(runtime.GOARCH)}
	dir := t.TempDir()
	file, dist := filepath.Join(dir, lock.File), filepath.Join(dir, "dist")
	if err := (&lock.Lock{Schema: lock.SchemaVersion, Inputs: inputs}).Write(file); err != nil {
		t.Fatal(err)
	}
	e := standard()
	e.sumDB = sumDB
	var out, errs strings.Builder
	if code := e.program().Run(t.Context(), []string{"--lock", file, "--cache", releasetest.UserCacheDir(t), "--output", dist}, &out, &errs); code != cli.ExitOK {
		t.Fatalf("build: exit code %d\n%s", code, errs.String())
	}
	aloneWithContainers(t)
	out.Reset()
	errs.Reset()
	code := e.program().Run(t.Context(), []string{"test", "--json", dist}, &out, &errs)
	var result struct {
		Platforms []struct {
			Cases []struct{ Name, Result string }
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &result); err != nil || len(result.Platforms) != 1 {
		t.Fatalf("build test: exit code %d, %v\n%s", code, err, errs.String())
	}
	var failed []string
	for _, c := range result.Platforms[0].Cases {
		if c.Result == "fail" {
			failed = append(failed, c.Name)
		}
	}
	if slices.Sort(failed); !slices.Equal(failed, slices.Sorted(slices.Values(failing))) {
		t.Fatalf("build test: %q failed, not %q\n%s", failed, failing, errs.String())
	}
	return flagsIn(t, dist)
}

// flagsIn are derper's flags as the one image of a layout says them.
func flagsIn(t *testing.T, dir string) setting.Release {
	t.Helper()
	r, err := flags.Of(t.Context(), onlyImage(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestVariablesPage keeps docs/variables.md what the image of the lock understands. A release
// writes the page too; who changes the table does with -args -table.
func TestVariablesPage(t *testing.T) {
	need.Minutes(t, "the image of the lock")
	name := filepath.Join("../..", flags.PageFile)
	page := flags.Page(realRelease(t))
	if *rewriteTable {
		if err := os.WriteFile(name, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(name); err != nil || string(have) != string(page) {
		t.Errorf("%s is not that of the image (%v); write it with: go test ./cmd/build -run '^TestVariablesPage$' -args -table", flags.PageFile, err)
	}
}
