package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRemoveAll guards against a container that leaves, in a volume, what its tester cannot remove: the next run, which
// removes what earlier ones left, would fail, and so would all that follow. Root has nothing closed to it; nobody has
// enough files for folders of any depth.
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
	// Deeper than files may be open at once; names from the root would be too long.
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	few := l
	few.Cur = min(l.Cur, 256)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	deep := filepath.Join(dir, "files/deep")
	for range 10 {
		// From below to above.
		next := filepath.Join(dir, "files/next")
		below := filepath.Join(next, strings.Repeat("d/", 100))
		err := os.MkdirAll(below, 0o755)
		if _, serr := os.Stat(deep); err == nil && serr == nil {
			err = os.Rename(deep, filepath.Join(below, "deep"))
		}
		if err == nil {
			err = os.Rename(next, deep)
		}
		if err != nil {
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
