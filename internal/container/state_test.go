package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestRemoveAll guards against a container that leaves, in a volume, what its tester cannot remove: the next run, which
// removes what earlier ones left, would fail, and so would all that follow. A root has nothing closed to it.
func TestRemoveAll(t *testing.T) {
	outside, dir := t.TempDir(), filepath.Join(t.TempDir(), "run")
	if err := os.MkdirAll(filepath.Join(dir, "files/volume/a/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "files/volume/a/b/link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"files/volume/a/b/c", "files/volume/a/b", "files/volume/a", "files/volume"} {
		if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeAll(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("what a link leads to: %v, %v", info.Mode(), err)
	}
}
