package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestWrite guards against a file that is there in part, or that others cannot read.
func TestWrite(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	failed := errors.New("failed")
	check := func(want string) {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil || string(data) != want {
			t.Errorf("%q, %v, not %q", data, err, want)
		}
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o644 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("left: %v, %v", entries, err)
		}
	}
	if err := Write(name, []byte("old")); err != nil {
		t.Fatal(err)
	}
	check("old")
	err := WriteFrom(name, dir, func(w io.Writer) error {
		_, err := io.WriteString(w, "ne")
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
			t.Errorf("while it is written: %v, %v", entries, err)
		}
		return errors.Join(err, failed)
	})
	if !errors.Is(err, failed) {
		t.Error(err)
	}
	check("old")
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, []byte("new")); err != nil {
		t.Fatal(err)
	}
	check("new")
	if err := Write(filepath.Join(dir, "missing", "file"), nil); err == nil {
		t.Error("wrote to a folder that is not there")
	}
}
