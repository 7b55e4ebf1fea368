package delivery

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// TestRun delivers one image again and again: each part begins with what the part before
// it has left.
func TestRun(t *testing.T) {
	r := releasetest.New(t, "../..")
	c, err := cache.Open(releasetest.CacheDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	display := progress.New(io.Discard)
	defer display.Close()
	dir := t.TempDir()
	l := &lock.Lock{Schema: lock.SchemaVersion, Inputs: r.Inputs}
	l.Inputs.Platforms = []lock.Platform{"linux/amd64"}
	l.Inputs.Variants = l.Inputs.Variants[:1]
	lockFile := filepath.Join(dir, lock.File)
	if err := l.Write(lockFile); err != nil {
		t.Fatal(err)
	}
	used := 0
	deliver := func(change func(*lock.Lock, *Delivery)) (*Result, error) {
		t.Helper()
		l, err := lock.Read(lockFile)
		if err != nil {
			t.Fatal(err)
		}
		used = 0
		d := &Delivery{
			Lock: l, LockFile: lockFile, Platforms: l.Inputs.Platforms, Layout: filepath.Join(dir, "dist"), Cache: c, Display: display,
			Modules: &modproxy.Client{Proxies: r.Proxy, SumDB: r.SumDB, Dir: filepath.Join(c.Dir(), "sumdb"), Temp: c.Temp()},
		}
		if change != nil {
			change(l, d)
		}
		list, err := d.Run(t.Context(), func(*Result) error { used++; return nil })
		if err != nil {
			return nil, err
		}
		return list[0], nil
	}
	record := func(_ *lock.Lock, d *Delivery) { d.Record = true }
	recorded := func() *lock.Lock {
		t.Helper()
		l, err := lock.Read(lockFile)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	index := func() string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, "dist/index.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}

	first, err := deliver(nil)
	if err != nil || !first.Written || used != 1 {
		t.Fatalf("with nothing to compare with: %v, used %d times", err, used)
	}
	if recorded().Outputs != nil {
		t.Error("a build that was not to record has recorded")
	}
	if _, err := deliver(record); err != nil {
		t.Fatal(err)
	}
	if got := recorded(); got.Output() == nil || got.Output().Index != first.Output.Index || got.Inputs.Revision != 0 {
		t.Errorf("recorded %+v, built %s", got.Output(), first.Output.Index)
	}
	if again, err := deliver(nil); err != nil || again.Written || used != 1 {
		t.Errorf("the same again: %v, used %d times, written", err, used)
	}

	before := index()
	_, err = deliver(func(l *lock.Lock, _ *Delivery) { l.Output().Platforms[0].Config = "sha256:" + strings.Repeat("0", 64) })
	if _, differs := errors.AsType[*lock.Difference](err); !differs || used > 0 || index() != before {
		t.Errorf("another image than the lock's: %v, used %d times", err, used)
	}
	// What differs from a published image is the next revision of it, and built as that.
	second, err := deliver(func(l *lock.Lock, d *Delivery) {
		l.Published = &lock.Published{Index: map[string]string{lock.Default: "sha256:" + strings.Repeat("0", 64)}}
		d.Record = true
	})
	if err != nil || used != 1 || !second.Written {
		t.Fatalf("another image than the published one: %v, used %d times", err, used)
	}
	if got := recorded(); got.Inputs.Revision != 1 || got.Output().Index == first.Output.Index || got.Output().Index != second.Output.Index {
		t.Errorf("revision %d, index %s, before %s", got.Inputs.Revision, got.Output().Index, first.Output.Index)
	}
	// What is the published image is no other revision.
	if _, err := deliver(func(l *lock.Lock, d *Delivery) {
		l.Published = &lock.Published{Revision: 1, Index: l.Indexes()}
		d.Record = true
	}); err != nil || recorded().Inputs.Revision != 1 {
		t.Errorf("the published image: %v, revision %d", err, recorded().Inputs.Revision)
	}
	budget(t, r, deliver, recorded(), index)
	failed := errors.New("no Docker")
	d := &Delivery{Lock: recorded(), LockFile: lockFile, Platforms: l.Inputs.Platforms, Layout: filepath.Join(dir, "dist"), Cache: c, Display: display}
	if _, err := d.Run(t.Context(), func(*Result) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("a use that fails: %v", err)
	}
}

// TestCompile guards that what other machines have compiled, each for a variant, leaves
// nothing to compile for the one that builds all.
func TestCompile(t *testing.T) {
	r := releasetest.New(t, "../..")
	display := progress.New(io.Discard)
	defer display.Close()
	dir := t.TempDir()
	l := &lock.Lock{Schema: lock.SchemaVersion, Inputs: r.Inputs}
	l.Inputs.Platforms = []lock.Platform{"linux/amd64"}
	l.Inputs.Programs = []lock.Program{{Package: lock.TailscaleModule + "/cmd/derper"}, {Package: lock.TailscaleModule + "/cmd/tailscaled"}}
	l.Inputs.Variants = []lock.Variant{
		{Name: lock.Default, Programs: []string{"derper"}},
		{Name: "nonroot", Programs: []string{"derper"}, Suffix: "-nonroot", User: "65532"},
		{Name: "more", Programs: []string{"derper", "tailscaled"}, Suffix: "-more"},
	}
	compiling, err := Compiling(l.Inputs)
	if err != nil || !slices.Equal(compiling, []string{lock.Default, "more"}) {
		t.Fatalf("%q, %v", compiling, err)
	}
	open := func() *cache.Cache {
		c, err := cache.Open(releasetest.CacheDir(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	on := func(c *cache.Cache) *Delivery {
		return &Delivery{
			Lock: l, LockFile: filepath.Join(dir, lock.File), Platforms: l.Inputs.Platforms, Layout: filepath.Join(dir, "dist"), Compiled: filepath.Join(dir, "compiled"),
			Cache: c, Display: display, Modules: &modproxy.Client{Proxies: r.Proxy, SumDB: r.SumDB, Dir: filepath.Join(c.Dir(), "sumdb"), Temp: c.Temp()},
		}
	}
	for _, v := range compiling {
		d := on(open())
		d.Variants = []string{v}
		if err := d.Compile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	results, err := on(open()).Run(t.Context())
	if err != nil || len(results) != 3 {
		t.Fatal(err)
	}
	for _, r := range results {
		for _, run := range r.Runs {
			kind, _, _ := strings.Cut(run.Action, " ")
			if !run.Cached && (kind == "compile" || kind == "entrypoint" || kind == "roots") {
				t.Errorf("%s: %s ran", r.Variant.Name, run.Action)
			}
		}
	}
}

// budget guards against an image that is larger than its variant may be, and against an error
// that does not say what grew.
func budget(t *testing.T, r *releasetest.Release, deliver func(func(*lock.Lock, *Delivery)) (*Result, error), recorded *lock.Lock, index func() string) {
	t.Helper()
	exactly, err := deliver(nil)
	if err != nil {
		t.Fatal(err)
	}
	size := exactly.Figures[0].Compressed
	if _, err := deliver(func(l *lock.Lock, _ *Delivery) { l.Inputs.Variants[0].Budget = size }); err != nil {
		t.Errorf("an image that fits: %v", err)
	}
	m := module.Version{Path: lock.TailscaleModule, Version: "v1.102.4"}
	sums := strings.Fields(r.Add(t, m, "module tailscale.com\n\ngo 1.24\n", map[string]string{
		"LICENSE":                "tailscale's licence\n",
		"go.sum":                 "",
		"cmd/derper/main.go":     "package main\n\nimport (\n\t\"encoding/json\"\n\t\"os\"\n)\n\nfunc main() { json.NewEncoder(os.Stdout).Encode(os.Args) }\n",
		"cmd/tailscaled/main.go": "package main\n\nfunc main() {}\n",
	}))
	before := index()
	for _, from := range []string{"the lock", "the lock before", "nothing"} {
		locked := from != "nothing"
		_, err = deliver(func(l *lock.Lock, d *Delivery) {
			l.Inputs.Tailscale.Version, l.Inputs.Tailscale.Sum, l.Inputs.Variants[0].Budget = m.Version, sums[2], size
			d.Record = true
			if from == "the lock before" { // as an update leaves it
				d.Before = l.Outputs
			}
			if from != "the lock" {
				l.Outputs = nil
			}
		})
		e, over := errors.AsType[*BudgetError](err)
		if !over {
			t.Fatalf("an image that grew: %v", err)
		}
		was := recorded.Output().Platforms[0].Layers[2]
		if !locked {
			was = lock.Layer{Name: "entrypoint"} // the largest, of which nothing is known
		}
		if e.Bytes <= size || e.Platform != "linux/amd64" || len(e.Layers) == 0 || e.Layers[0].Name != was.Name || e.Layers[0].Before != was.Bytes || e.Layers[0].Bytes <= was.Bytes {
			t.Errorf("compared with %s: %+v", from, e)
		}
		if locked && (e.Program != "derper" || !slices.ContainsFunc(e.Packages, func(g Growth) bool { return g.Name == "encoding/json" && g.Before == 0 && g.Bytes > 0 })) {
			t.Errorf("in %s: %+v", e.Program, e.Packages)
		}
		if _, err := os.Stat(e.File); err != nil || len(e.Packages) == 0 {
			t.Errorf("%d packages in %v", len(e.Packages), err)
		}
		words := []string{"linux/amd64: ", "variant default", "; layers: layer entrypoint ", "; the largest in "}
		if locked {
			words = []string{"linux/amd64: ", "variant default", "larger than recorded: layer derper ", "; what grew most in derper: "}
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
		t.Log(err)
	}
	if index() != before {
		t.Error("an image that is too large is in the layout")
	}
}

func TestMain(m *testing.M) {
	gobinary.Init()
	os.Exit(m.Run())
}
