package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// releases are versions of the real tailscale, for bench/releases.
var releases = flag.String("releases", "", "verify images of these `versions` of the real tailscale in a row, separated by commas")

// TestReleasesInARow guards a run over several releases: each is verified, and what
// they share is fetched and made once. Without -releases they are small ones.
func TestReleasesInARow(t *testing.T) {
	r := releasetest.New(t, "../..")
	in := r.Inputs
	in.Platforms = []lock.Platform{"linux/amd64"}
	versions := []string{in.Tailscale.Version, "v1.0.1"}
	open := func() (*cache.Cache, *modproxy.Client) {
		dir := t.TempDir()
		if *releases == "" {
			dir = releasetest.CacheDir(t)
		}
		c, err := cache.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); cache.RemoveAll(dir) })
		modules := &modproxy.Client{Proxies: r.Proxy, SumDB: r.SumDB, Dir: filepath.Join(dir, "sumdb"), Temp: c.Temp()}
		if *releases != "" {
			modules.Proxies, modules.SumDB = os.Getenv("GOPROXY"), ""
		}
		return c, modules
	}
	var err error
	c, modules := open()
	if *releases != "" {
		versions = strings.Split(*releases, ",")
		if in.Roots.Sum, err = modules.Sum(t.Context(), module.Version{Path: lock.RootsModule, Version: in.Roots.Version}); err != nil {
			t.Fatal(err)
		}
	} else {
		r.Add(t, module.Version{Path: lock.TailscaleModule, Version: versions[1]}, "module tailscale.com\n\ngo 1.24\n", map[string]string{
			"LICENSE":                "tailscale's licence\n",
			"go.sum":                 "",
			"cmd/derper/main.go":     "package main\n\nfunc main() { println(\"derper, earlier\") }\n",
			"cmd/tailscaled/main.go": "package main\n\nfunc main() { println(\"tailscaled, earlier\") }\n",
		})
	}
	display := progress.New(os.Stderr)
	defer display.Close()
	var refs []string
	for _, version := range versions {
		in.Tailscale = tailscaleOf(t, modules, version)
		builder := &pipeline.Builder{Inputs: in, Cache: c, Modules: modules, Display: display}
		built, err := builder.Build(t.Context(), in.Platforms)
		if err != nil {
			t.Logf("%s does not build here, and is left out: %v", version, err)
			if *releases == "" {
				t.Fatal(err)
			}
			continue
		}
		dir := filepath.Join(t.TempDir(), version)
		if _, err := image.WriteLayout(dir, version, built.Index, false); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, dir)
	}
	before := times(r.Requests())
	fresh, modules := open()
	v := &Verifier{Cache: fresh, Fresh: true, Modules: modules, Display: display, Platforms: in.Platforms}
	report, err := v.References(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Subjects {
		wantVerified(t, s)
		t.Logf("%s: %s, %s in %.1fs", s.Release.Version, s.Verdict, s.Platforms[0].Summary(), s.Seconds)
	}
	t.Log(report.Summary())
	for path, n := range times(r.Requests()) {
		if n -= before[path]; n > 1 && strings.HasSuffix(path, ".zip") {
			t.Errorf("fetched %d times: %s", n, path)
		}
	}
	left, err := filepath.Glob(filepath.Join(fresh.Dir(), "actions", "*.json"))
	if err != nil || len(left) == 0 || len(left) > 10 {
		t.Errorf("has the results of %d actions at the end, want those of one release: %v", len(left), err)
	}
}

// tailscaleOf makes the lock's inputs of a release. Where the module proxy names no
// commit, a made-up one stands for it, in the image and in its verification alike.
func tailscaleOf(t *testing.T, modules *modproxy.Client, version string) lock.Tailscale {
	t.Helper()
	m := module.Version{Path: lock.TailscaleModule, Version: version}
	info, err := modules.Info(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := modules.Sum(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	made := sha256.Sum256([]byte(version))
	out := lock.Tailscale{Version: version, Commit: hex.EncodeToString(made[:20]), Time: info.Time, Sum: sum}
	if info.Origin != nil && info.Origin.Hash != "" {
		out.Commit = info.Origin.Hash
	} else {
		t.Logf("%s: the module proxy names no commit; %s is made up", version, out.Commit)
	}
	return out
}

func times(requests []string) map[string]int {
	n := map[string]int{}
	for _, path := range requests {
		n[path]++
	}
	return n
}
