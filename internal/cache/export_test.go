package cache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestExport guards what one machine makes for another: it comes in whole, or not at all.
func TestExport(t *testing.T) {
	from, _ := open(t, t.TempDir())
	b := put(t, from, "key", "content")
	put(t, from, "other", "of no interest")
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	to, _ := open(t, t.TempDir())
	if err := to.Import([]string{"key", "missing"}, dir); err != nil {
		t.Fatalf("nothing to import: %v", err)
	}
	if err := from.Export([]string{"key"}, dir); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dir, "blobs", filepath.Base(from.Path(b)))
	if err := errors.Join(os.Chmod(blob, 0o644), os.WriteFile(blob, []byte("contenT"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := to.Import([]string{"key", "missing"}, dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another content: %v", err)
	}
	if r, err := to.Get("key"); r != nil || err != nil {
		t.Errorf("it was taken in: %v, %v", r, err)
	}
	if err := os.WriteFile(blob, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there
		if err := to.Import([]string{"key", "missing"}, dir); err != nil {
			t.Fatal(err)
		}
		r, err := to.Get("key")
		if r == nil || err != nil || r.Notes["diffID"] != "sha256:abc" {
			t.Fatalf("%+v, %v", r, err)
		}
		if got, err := read(to, r.Blobs["file"]); got != "content" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if r, err := to.Get("other"); r != nil || err != nil {
		t.Errorf("what was not exported: %v, %v", r, err)
	}
	// Neither what nobody asked for, nor another result of what is there.
	evil, _ := open(t, t.TempDir())
	put(t, evil, "key", "evil")
	put(t, evil, "other", "evil")
	if err := evil.Export([]string{"key", "other"}, dir); err != nil {
		t.Fatal(err)
	}
	if err := to.Import([]string{"key"}, dir); err != nil {
		t.Fatal(err)
	}
	if r, err := to.Get("key"); err != nil || r.Blobs["file"] != b {
		t.Errorf("what was there was replaced: %+v, %v", r, err)
	}
	if r, err := to.Get("other"); r != nil || err != nil {
		t.Errorf("what nobody asked for: %v, %v", r, err)
	}
	if err := from.Export([]string{"missing"}, dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such result: %v", err)
	}
}
