package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// TestContract guards what docs/lock.md promises for good: a later program lets this
// revision build an image from a lock, with this command line and these exit codes.
// Whatever else changes, this test may only grow.
func TestContract(t *testing.T) {
	need.Minutes(t, "builds for several platforms")
	r := releasetest.New(t, "../..")
	t.Setenv("GOPROXY", r.Proxy)
	t.Setenv("XDG_CACHE_HOME", releasetest.CacheDir(t))
	e := standard()
	e.sumDB = r.SumDB
	name := r.Lock(t)
	output := filepath.Join(t.TempDir(), "layout")
	build := func(want int, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := e.program().Run(t.Context(), args, &stdout, &stderr); code != want {
			t.Fatalf("%q: exit code %d, want %d: %s", args, code, want, &stderr)
		}
		return stdout.String()
	}
	args := []string{"--lock", name, "--platform", "linux/arm64", "--output", output}
	build(0, args...)
	opened, err := image.Open(output)
	if err != nil {
		t.Fatal(err)
	}
	index, err := opened.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil || len(list.Manifests) != 2 || list.Manifests[0].Platform.Architecture != "arm64" {
		t.Errorf("the layout has %+v, %v", list, err)
	}
	// A lock of one variant only, which is none that the program knows, is built.
	l, err := lock.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	l.Inputs.Variants = []lock.Variant{{Name: "other", Programs: []string{"derper"}, Files: []lock.Entry{{Path: "etc/motd", Mode: "0644", Text: "hello\n"}}}}
	other := filepath.Join(t.TempDir(), "other.json")
	if err := l.Write(other); err != nil {
		t.Fatal(err)
	}
	build(0, "--lock", other, "--platform", "linux/arm64", "--output", output)

	build(1, "--lock", name+".none", "--platform", "linux/arm64", "--output", output)
	build(2, "--lock", name, "--platform", "linux/mips", "--output", output)
	build(0, "--lock", name, "--platform", "all", "--output", output, "--update-lock")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err = lock.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	derper := l.Output().Platforms[1].Binaries[0].Digest
	if err := os.WriteFile(name, []byte(strings.Replace(string(data), derper, "sha256:"+strings.Repeat("0", 64), 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(output, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	build(3, args...)
	if after, err := os.ReadFile(filepath.Join(output, "index.json")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the layout is not as it was: %v", err)
	}
}
