package pipeline_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// platforms are those that the tests build for.
var platforms = []lock.Platform{"linux/amd64", "linux/arm64"}

// A world is a release that was built once, for all platforms.
type world struct {
	*releasetest.Release
	dir   string // the cache
	first *pipeline.Build
}

// TestBuild tests what a builder promises. All parts begin where one build of the same
// release has ended: each has a copy of its cache.
func TestBuild(t *testing.T) {
	w := &world{Release: releasetest.New(t, "../.."), dir: releasetest.CacheDir(t)}
	var err error
	if w.first, err = w.builder(t, w.dir, io.Discard).Build(t.Context(), platforms); err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"first", testFirst},
		{"unchanged", testUnchanged},
		{"changed", testChanged},
		{"unknown tags", testUnknownTags},
		{"compile fails", testCompileFails},
		{"cancelled while it fetches", testCancelledFetch},
		{"cancelled while it waits", testCancelledWait},
		{"corrupt", testCorrupt},
		{"corrupt program", testCorruptProgram},
		{"corrupt without end", testCorruptWithoutEnd},
		{"other attestation", testOtherAttestation},
		{"use fails", testUseFails},
		{"unknown platform", testUnknownPlatform},
		{"after", testAfter},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, w) })
	}
}

// builder is one with the release's inputs and the cache in a folder. It says to out what
// is under way.
func (w *world) builder(t *testing.T, dir string, out io.Writer) *pipeline.Builder {
	t.Helper()
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	display := progress.New(out)
	c.Warn = display.Printf
	t.Cleanup(func() {
		display.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &pipeline.Builder{
		Inputs:  w.Inputs,
		Cache:   c,
		Display: display,
		Modules: &modproxy.Client{Proxies: w.Proxy, SumDB: w.SumDB, Dir: filepath.Join(dir, "sumdb"), Temp: c.Temp()},
	}
}

// copied is a copy of the cache that the release was built with.
func (w *world) copied(t *testing.T) string {
	t.Helper()
	dir := releasetest.CacheDir(t)
	for _, sub := range []string{"actions", "latest", "blobs", "mod", "modules"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(dir, sub), os.DirFS(filepath.Join(w.dir, sub))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ran lists the actions that were not in the cache.
func ran(b *pipeline.Build) []string {
	var list []string
	for _, r := range b.Runs {
		if !r.Cached {
			list = append(list, r.Action)
		}
	}
	return list
}

// ofEach is a list of actions for each platform.
func ofEach(actions ...string) (list []string) {
	for _, p := range platforms {
		for _, a := range actions {
			list = append(list, a+" "+string(p))
		}
	}
	return list
}

// testFirst guards against a record that is not of what was made, and against figures that
// do not add up.
func testFirst(t *testing.T, w *world) {
	index, err := w.first.Index.Digest()
	if err != nil || w.first.Output.Index != index.String() {
		t.Errorf("the index is %s, the record has %s; %v", index, w.first.Output.Index, err)
	}
	all := append([]string{"roots"}, ofEach("compile tailscaled", "compile derper", "entrypoint", "flags", "layer base", "layer tailscaled", "layer derper", "layer entrypoint", "attestation")...)
	if got := ran(w.first); !slices.Equal(got, all) {
		t.Errorf("a first build ran %q, want %q", got, all)
	}
	for _, r := range w.first.Runs {
		if !slices.Equal(r.Why, []string{"never ran with this cache"}) || r.Seconds <= 0 {
			t.Errorf("%s: why %q, %v seconds", r.Action, r.Why, r.Seconds)
		}
	}
	for i, p := range platforms {
		record, figures := w.first.Output.Platforms[i], w.first.Figures[i]
		manifest, err := w.first.Images[i].Digest()
		attestation, aerr := w.first.Attestations[i].Digest()
		if err := cmp.Or(err, aerr); err != nil || record.Manifest != manifest.String() || record.Attestation != attestation.String() || record.Platform != p {
			t.Errorf("%s: recorded is %+v, made were %s and %s; %v", p, record, manifest, attestation, err)
		}
		var names []string
		for _, b := range record.Binaries {
			names = append(names, b.Name)
		}
		if !slices.Equal(names, []string{"derper", "entrypoint", "tailscaled"}) {
			t.Errorf("%s: recorded programs %q", p, names)
		}
		m, err := w.first.Images[i].Manifest()
		if err != nil {
			t.Fatal(err)
		}
		pull := m.Config.Size
		for _, l := range m.Layers {
			pull += l.Size
		}
		if figures.Platform != p || figures.Manifest != record.Manifest || figures.Compressed != pull || figures.Uncompressed <= pull {
			t.Errorf("%s: figures %+v, want the manifest %s and %d bytes", p, figures, record.Manifest, pull)
		}
		if len(figures.Built) != 9 || figures.Cached != nil || figures.Seconds <= 0 {
			t.Errorf("%s: figures %+v, want 9 actions that were built", p, figures)
		}
	}
}

// testUnchanged guards against work without need: nothing runs, nothing is fetched, and
// the same comes out.
func testUnchanged(t *testing.T, w *world) {
	before := len(w.Requests())
	got, err := w.builder(t, w.copied(t), io.Discard).Build(t.Context(), platforms)
	if err != nil {
		t.Fatal(err)
	}
	if list := ran(got); list != nil {
		t.Errorf("ran: %q", list)
	}
	if n := len(w.Requests()); n != before {
		t.Errorf("%d requests: %q", n-before, w.Requests()[before:])
	}
	if fmt.Sprint(got.Output) != fmt.Sprint(w.first.Output) {
		t.Errorf("it made %+v, first %+v", got.Output, w.first.Output)
	}
	for _, f := range got.Figures {
		if f.Built != nil || len(f.Cached) != 9 || f.Seconds != 0 {
			t.Errorf("figures: %+v", f)
		}
	}
}

// testChanged guards against too much work after a change, and against too little: what
// runs is what depends on it, and says why.
func testChanged(t *testing.T, w *world) {
	newRoots := w.AddRoots(t, "v0.0.1", releasetest.Root{Name: "Another Root"})
	for _, test := range []struct {
		name   string
		change func(*lock.Inputs)
		ran    []string
		why    map[string]string // what the reason of an action begins with
		same   bool              // the same index
	}{
		{
			name:   "budget",
			change: func(in *lock.Inputs) { in.Variants[0].Budget++ },
			same:   true,
		},
		{
			name: "files",
			change: func(in *lock.Inputs) {
				in.Variants[0].Files = []lock.Entry{{Path: "etc/motd", Mode: "0644", Text: "hello\n"}}
			},
			ran: ofEach("layer files", "attestation"),
			why: map[string]string{"layer files linux/arm64": "never ran", "attestation linux/arm64": "input layer files is new: action:"},
		},
		{
			name:   "roots",
			change: func(in *lock.Inputs) { in.Roots = newRoots },
			ran:    append([]string{"roots"}, ofEach("layer base", "attestation")...),
			why: map[string]string{
				"roots":                   "input " + lock.RootsModule + "@v0.0.",
				"layer base linux/amd64":  "input roots changed: action:",
				"attestation linux/amd64": "input layer base changed: action:",
			},
		},
		{
			name:   "time",
			change: func(in *lock.Inputs) { in.Tailscale.Time = in.Tailscale.Time.AddDate(0, 0, 1) },
			ran:    ofEach("layer base", "layer tailscaled", "layer derper", "layer entrypoint", "attestation"),
			why:    map[string]string{"layer derper linux/amd64": "input time changed: "},
		},
		{
			name: "tags of one program",
			change: func(in *lock.Inputs) {
				in.Programs = slices.Clone(in.Programs)
				in.Programs[0].Tags = []string{"small"}
			},
			ran: ofEach("compile derper", "flags", "layer derper", "layer entrypoint", "attestation"),
			why: map[string]string{"compile derper linux/amd64": "command changed: +-tags=small", "layer derper linux/amd64": "input programs changed: "},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := w.builder(t, w.copied(t), io.Discard)
			b.Inputs.Variants = slices.Clone(b.Inputs.Variants)
			test.change(&b.Inputs)
			got, err := b.Build(t.Context(), platforms)
			if err != nil {
				t.Fatal(err)
			}
			if list := ran(got); !slices.Equal(list, test.ran) {
				t.Errorf("ran:\n%q\nwant:\n%q", list, test.ran)
			}
			for _, r := range got.Runs {
				if want, ok := test.why[r.Action]; ok && (len(r.Why) == 0 || !strings.HasPrefix(r.Why[0], want)) {
					t.Errorf("%s: why %q, want %q", r.Action, r.Why, want)
				}
			}
			if same := got.Output.Index == w.first.Output.Index; same != test.same {
				t.Errorf("the same index: %v, want %v", same, test.same)
			}
		})
	}
}

// testUnknownTags guards against silence about a tag that upstream has removed, and that
// leaves nothing out any more.
func testUnknownTags(t *testing.T, w *world) {
	var said bytes.Buffer
	b := w.builder(t, w.copied(t), &said)
	b.Inputs.Programs = []lock.Program{b.Inputs.Programs[0], {Package: "tailscale.com/cmd/tailscaled", Tags: []string{"netgo", "ts_include_cli", "ts_omit_gone"}}}
	if _, err := b.Build(t.Context(), platforms); err != nil {
		t.Fatal(err)
	}
	const want = "build: tailscaled: build tags that leave nothing out: ts_omit_gone: tailscale v1.102.3 has no such feature; build update --version v1.102.3 sets the tags anew"
	if n := strings.Count(said.String(), want); n != 1 {
		t.Errorf("said %d times:\n%s", n, &said)
	}
}

// testCompileFails guards against an error that does not say for which platform what does
// not compile, and against a failure of one platform that spoils the others.
func testCompileFails(t *testing.T, w *world) {
	m := module.Version{Path: lock.TailscaleModule, Version: "v1.102.4"}
	sums := strings.Fields(w.Add(t, m, "module tailscale.com\n\ngo 1.24\n", map[string]string{
		"LICENSE":                  "tailscale's licence\n",
		"go.sum":                   "",
		"cmd/derper/main.go":       "package main\n\nfunc main() { println(name) }\n",
		"cmd/derper/name_amd64.go": "package main\n\nconst name = \"amd64\"\n",
		"cmd/tailscaled/main.go":   "package main\n\nfunc main() {}\n",
	}))
	b := w.builder(t, w.copied(t), io.Discard)
	b.Inputs.Tailscale.Version, b.Inputs.Tailscale.Sum = m.Version, sums[2]
	good, err := b.Build(t.Context(), platforms[:1])
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Build(t.Context(), platforms)
	if err == nil {
		t.Fatal("it was built")
	}
	for _, words := range []string{"compile derper linux/arm64: ", "cmd/derper/main.go:3:", "undefined: name"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
	if strings.Contains(err.Error(), "amd64:") {
		t.Errorf("%q blames another platform", err)
	}
	again, err := b.Build(t.Context(), platforms[:1])
	if err != nil {
		t.Fatal(err)
	}
	if list := ran(again); list != nil || again.Output.Index != good.Output.Index {
		t.Errorf("after it, these ran: %q; the index is %s, not %s", list, again.Output.Index, good.Output.Index)
	}
}

// testCancelledFetch guards against an interrupted build that ends with some other error
// than why it was interrupted, and against a cache that it leaves unusable.
func testCancelledFetch(t *testing.T, w *world) {
	dir := releasetest.CacheDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	w.Intercept(func(_ http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "/example.com/dep/@v/v1.0.0.zip") {
			return false
		}
		once.Do(cancel)
		<-req.Context().Done() // its client is killed
		return true
	})
	defer w.Intercept(nil)
	b := w.builder(t, dir, io.Discard)
	if out, err := b.Build(ctx, platforms); err != context.Canceled || out != nil {
		t.Errorf("%v, %v", out, err)
	}
	if left, err := os.ReadDir(b.Cache.Temp()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	w.Intercept(nil)
	got, err := w.builder(t, dir, io.Discard).Build(t.Context(), platforms)
	if err != nil {
		t.Fatal(err)
	}
	if got.Output.Index != w.first.Output.Index {
		t.Errorf("the next build made %s, not %s", got.Output.Index, w.first.Output.Index)
	}
}

// A watcher is called with what is written.
type watcher func(p string)

func (w watcher) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

// testCancelledWait guards against a build that cannot be interrupted while it waits for
// another one, and that does not say that it waits.
func testCancelledWait(t *testing.T, w *world) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := w.copied(t)
	b := w.builder(t, dir, watcher(func(p string) {
		if strings.Contains(p, "layer derper linux/arm64: waiting for another build that makes it\n") {
			cancel()
		}
	}))
	i := slices.IndexFunc(w.first.Runs, func(r pipeline.Run) bool { return r.Action == "layer derper linux/arm64" })
	key := w.first.Runs[i].Key
	if err := os.Remove(filepath.Join(dir, "actions", key+".json")); err != nil {
		t.Fatal(err)
	}
	unlock, err := w.builder(t, dir, io.Discard).Cache.Lock(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Build(ctx, platforms); err != context.Canceled {
		t.Errorf("while it waits: %v", err)
	}
	unlock()
	got, err := b.Build(t.Context(), platforms)
	if err != nil {
		t.Fatal(err)
	}
	if list := ran(got); !slices.Equal(list, []string{"layer derper linux/arm64"}) {
		t.Errorf("then ran: %q", list)
	}
	if why := got.Runs[i].Why; !slices.Equal(why, []string{"its result is no longer in the cache"}) {
		t.Errorf("why: %q", why)
	}
}

// pull reads all layers, as a push does.
func pull(b *pipeline.Build) error {
	for _, img := range b.Images {
		layers, err := img.Layers()
		if err != nil {
			return err
		}
		for _, l := range layers {
			r, err := l.Compressed()
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			if err := cmp.Or(err, r.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}

// testCorrupt guards against a damaged blob that is used: whether it is seen when it is
// named, by its size, or only when it is read, it is rebuilt, with the same digest.
func testCorrupt(t *testing.T, w *world) {
	for name, damage := range map[string]func([]byte) []byte{
		"shorter":       func(data []byte) []byte { return data[:len(data)/2] },
		"one bit wrong": func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
	} {
		t.Run(name, func(t *testing.T) {
			dir := w.copied(t)
			var said bytes.Buffer
			b := w.builder(t, dir, &said)
			if _, err := b.Build(t.Context(), platforms); err != nil { // checks the copies
				t.Fatal(err)
			}
			layer := w.first.Output.Platforms[1].Layers[2]
			file := b.Cache.Path(cache.Blob{Digest: layer.Digest})
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err == nil {
				err = errors.Join(os.Chmod(file, 0o644), os.WriteFile(file, damage(data), 0o644), os.Chtimes(file, info.ModTime(), info.ModTime()))
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.Build(t.Context(), platforms, pull)
			if err != nil {
				t.Fatal(err)
			}
			if got.Output.Index != w.first.Output.Index {
				t.Errorf("it made %s, not %s", got.Output.Index, w.first.Output.Index)
			}
			if list := ran(got); !slices.Equal(list, []string{"layer derper linux/arm64"}) {
				t.Errorf("ran: %q", list)
			}
			if !strings.Contains(said.String(), layer.Digest+": corrupt; rebuilding\n") {
				t.Errorf("said: %s", &said)
			}
			if b.Cache.VerifyAll {
				t.Error("it goes on to check everything by content")
			}
		})
	}
}

// testCorruptProgram guards against an error about a damaged program in place of the
// program: the base layer reads which modules it links, and has their licences.
func testCorruptProgram(t *testing.T, w *world) {
	dir := w.copied(t)
	b := w.builder(t, dir, io.Discard)
	if _, err := b.Build(t.Context(), platforms); err != nil { // checks the copies
		t.Fatal(err)
	}
	i := slices.IndexFunc(w.first.Runs, func(r pipeline.Run) bool { return r.Action == "layer derper linux/amd64" })
	if err := os.Remove(filepath.Join(dir, "actions", w.first.Runs[i].Key+".json")); err != nil {
		t.Fatal(err)
	}
	file := b.Cache.Path(cache.Blob{Digest: w.first.Output.Platforms[0].Binaries[0].Digest})
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(file, 0o644), os.WriteFile(file, make([]byte, info.Size()), 0o644), os.Chtimes(file, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	got, err := b.Build(t.Context(), platforms)
	if err != nil {
		t.Fatal(err)
	}
	if got.Output.Index != w.first.Output.Index {
		t.Errorf("it made %s, not %s", got.Output.Index, w.first.Output.Index)
	}
	if list := ran(got); !slices.Equal(list, []string{"compile derper linux/amd64", "layer derper linux/amd64"}) {
		t.Errorf("ran: %q", list)
	}
}

// testOtherAttestation guards against an image whose provenance is about another one, which
// a key that leaves something out would make of a cache.
func testOtherAttestation(t *testing.T, w *world) {
	b := w.builder(t, w.copied(t), io.Discard)
	i := slices.IndexFunc(w.first.Runs, func(r pipeline.Run) bool { return r.Action == "attestation linux/arm64" })
	run := w.first.Runs[i]
	r, err := b.Cache.Get(run.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range r.Notes {
		if value == w.first.Output.Platforms[1].Manifest {
			r.Notes[name] = w.first.Output.Platforms[0].Manifest
		}
	}
	if err := b.Cache.Put(run.Key, run.Action, r); err != nil {
		t.Fatal(err)
	}
	_, err = b.Build(t.Context(), platforms)
	want := fmt.Sprintf("attestation linux/arm64: is about %s, and the image is %s", w.first.Output.Platforms[0].Manifest, w.first.Output.Platforms[1].Manifest)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// testCorruptWithoutEnd guards against a build that is tried for ever: a disk that damages
// all that is written to it is an error.
func testCorruptWithoutEnd(t *testing.T, w *world) {
	b := w.builder(t, w.copied(t), io.Discard)
	times := 0
	_, err := b.Build(t.Context(), platforms, func(*pipeline.Build) error {
		times++
		return fmt.Errorf("layer: %w", cache.ErrCorrupt)
	})
	if !errors.Is(err, cache.ErrCorrupt) || times != 2 {
		t.Errorf("%v after %d times", err, times)
	}
}

// testUseFails guards against uses that go on after one has failed.
func testUseFails(t *testing.T, w *world) {
	b := w.builder(t, w.copied(t), io.Discard)
	failed := errors.New("failed")
	var used []string
	use := func(name string, err error) func(*pipeline.Build) error {
		return func(*pipeline.Build) error { used = append(used, name); return err }
	}
	_, err := b.Build(t.Context(), platforms, use("1", nil), use("2", failed), use("3", nil))
	if err != failed || !slices.Equal(used, []string{"1", "2"}) {
		t.Errorf("%v after %q", err, used)
	}
}

// testUnknownPlatform guards against work for a platform that the lock does not have.
func testUnknownPlatform(t *testing.T, w *world) {
	b := w.builder(t, w.copied(t), io.Discard)
	if _, err := b.Build(t.Context(), []lock.Platform{"linux/amd64", "plan9/386"}); err == nil || !strings.Contains(err.Error(), "plan9/386 is not in the lock") {
		t.Error(err)
	}
}

// testAfter guards against a report that hides what an earlier build of the same command
// has done, or counts it for another platform.
func testAfter(t *testing.T, w *world) {
	b := w.builder(t, w.copied(t), io.Discard)
	i := slices.IndexFunc(w.first.Runs, func(r pipeline.Run) bool { return r.Action == "layer derper linux/arm64" })
	if err := os.Remove(filepath.Join(b.Cache.Dir(), "actions", w.first.Runs[i].Key+".json")); err != nil {
		t.Fatal(err)
	}
	once, err := b.Build(t.Context(), platforms)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := b.Build(t.Context(), platforms)
	if err != nil {
		t.Fatal(err)
	}
	if list := ran(twice); list != nil {
		t.Fatalf("ran: %q", list)
	}
	twice.After(once)
	if list := ran(twice); !slices.Equal(list, []string{"layer derper linux/arm64"}) {
		t.Errorf("of both builds, these ran: %q", list)
	}
	for i, want := range [][]string{nil, {"layer derper"}} {
		f := twice.Figures[i]
		if !slices.Equal(f.Built, want) || len(f.Built)+len(f.Cached) != 9 || (f.Seconds > 0) != (want != nil) {
			t.Errorf("%s: %+v, want built %q", f.Platform, f, want)
		}
	}
}
