package release

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
)

// TestAssets guards what is kept with a release when the artifacts of its run have expired, and
// that nothing else of its folder is published.
func TestAssets(t *testing.T) {
	_, l := locked(t, nil)
	folder := t.TempDir()
	for _, name := range []string{
		"versions.json", "notes.md", "test-default-linux-amd64.xml", "test-nonroot.xml", "scans.json",
		"attestations/provenance.json", "attestations/linux-amd64.spdx.json", "attestations-nonroot/linux-amd64.spdx.json", "attestations-nonroot/openvex.json",
		"journal/test-default-linux-amd64.json", "dist/index.json", "compiled/blobs.json", "key.pem",
	} {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	assets, err := Assets(folder, l)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"linux-amd64.spdx.json", "nonroot-linux-amd64.spdx.json", "nonroot-openvex.json", "provenance.json", "scans.json",
		"test-default-linux-amd64.xml", "test-nonroot.xml", lock.File,
	}
	if got := slices.Sorted(maps.Keys(assets)); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	if got := string(assets["nonroot-linux-amd64.spdx.json"]); got != "attestations-nonroot/linux-amd64.spdx.json" {
		t.Errorf("a document is that of another variant: %s", got)
	}
	if recorded, err := l.Bytes(); err != nil || string(assets[lock.File]) != string(recorded) {
		t.Errorf("%v, the lock is %s", err, assets[lock.File]) // that of the folder is from before it was published
	}
	if assets, err := Assets(t.TempDir(), l); err != nil || len(assets) != 1 {
		t.Errorf("an empty folder: %v, %v", assets, err)
	}
}
