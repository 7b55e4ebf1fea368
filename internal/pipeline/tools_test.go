package pipeline_test

import (
	"archive/tar"
	"debug/buildinfo"
	"io"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// TestTools builds a variant that has the tools of this project, twice, in different folders:
// they are the same, and say which modules they are made of.
func TestTools(t *testing.T) {
	need.Minutes(t, "compiling the tools")
	// What they are compiled from here is in the module cache afterwards, as if from a proxy.
	linked, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "../../tools").Output()
	if err != nil {
		t.Fatal(err)
	}
	modCache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	var outputs []*lock.Output
	for range 2 {
		w := &world{Release: releasetest.New(t, "../.."), dir: releasetest.CacheDir(t)}
		w.Inputs.Programs = append(w.Inputs.Programs, lock.Program{Package: lock.ToolsPackage})
		slices.SortFunc(w.Inputs.Programs, func(a, b lock.Program) int { return strings.Compare(a.Name(), b.Name()) })
		w.Inputs.Variants = []lock.Variant{{
			Name: "debug", Suffix: "-debug", Programs: []string{"derper", "tools"},
			Files: []lock.Entry{{Path: "bin/sh", Mode: "0777", Link: "../usr/local/bin/tools"}},
		}}
		b := w.builder(t, w.dir, io.Discard)
		b.Modules.Proxies += ",file://" + filepath.ToSlash(filepath.Join(strings.TrimSpace(string(modCache)), "cache", "download"))
		built, err := b.Build(t.Context(), platforms[:1])
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, built.Output)
		checkTools(t, b, built, strings.Fields(string(linked)))
	}
	if !reflect.DeepEqual(outputs[0].Platforms[0].Binaries, outputs[1].Platforms[0].Binaries) {
		t.Errorf("two builds in different folders: %v and %v", outputs[0].Platforms[0].Binaries, outputs[1].Platforms[0].Binaries)
	}
}

// checkTools expects the modules, each with its version, in what the tools say of
// themselves, and notices of them in their layer.
func checkTools(t *testing.T, b *pipeline.Builder, built *pipeline.Build, modules []string) {
	t.Helper()
	binaries := built.Output.Platforms[0].Binaries
	i := slices.IndexFunc(binaries, func(b lock.Binary) bool { return b.Name == "tools" })
	if i < 0 {
		t.Fatalf("no tools among %v", binaries)
	}
	info, err := buildinfo.ReadFile(b.Cache.Path(cache.Blob{Digest: binaries[i].Digest}))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for m := range slices.Chunk(modules, 2) {
		want[m[0]] = m[1]
	}
	got := map[string]string{}
	for _, m := range info.Deps {
		if got[m.Path] = m.Version; m.Sum == "" {
			t.Errorf("%s has no sum", m.Path)
		}
	}
	if !reflect.DeepEqual(got, want) || info.Main.Path != derper.Module {
		t.Errorf("made of %s and %v, want %v", info.Main.Path, got, want)
	}
	names := map[string]bool{}
	layers, err := built.Images[0].Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		in := tar.NewReader(r)
		h, err := in.Next()
		for ; err == nil; h, err = in.Next() {
			names[h.Name] = true
		}
		if err != io.EOF {
			t.Fatal(err)
		}
	}
	for path, version := range want {
		if !names["usr/share/licenses/"+path+"@"+version+"/LICENSE"] {
			t.Errorf("no notice of %s@%s", path, version)
		}
	}
	for _, name := range []string{"bin/sh", "usr/local/bin/tools"} {
		if !names[name] {
			t.Errorf("no %s", name)
		}
	}
}
