//go:build unix

package image

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestHostileFolder guards that a layout's files are files.
// The mistake it guards: a blob that is a pipe keeps the reader waiting for ever, and a link
// reads what is outside of the layout.
func TestHostileFolder(t *testing.T) {
	for name, put := range map[string]func(file string) error{
		"a pipe":   func(file string) error { return syscall.Mkfifo(file, 0o644) },
		"a folder": func(file string) error { return os.Mkdir(file, 0o755) },
		"a socket": func(file string) error {
			l, err := net.Listen("unix", file)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
		"a device":             func(file string) error { return os.Symlink("/dev/zero", file) },
		"a link out of it":     func(file string) error { return os.Symlink("/etc/passwd", file) },
		"a link to nowhere":    func(file string) error { return os.Symlink("nowhere", file) },
		"a link in the folder": func(file string) error { return os.Symlink(filepath.Base(file)+".real", file) },
	} {
		for _, what := range []string{"index.json", "oci-layout", "manifest.json", "blob"} {
			t.Run(name+" as "+what, func(t *testing.T) {
				index, dir := twoPlatforms(t)
				digest, err := index.Digest()
				if err != nil {
					t.Fatal(err)
				}
				file := what
				if what == "blob" {
					file = blobName(digest)
				}
				// Short, since the name of a socket has a limit.
				t.Chdir(dir)
				if err := os.Rename(file, file+".real"); err != nil && what != "manifest.json" {
					t.Fatal(err)
				}
				if err := put(file); err != nil {
					t.Fatal(err)
				}
				o, err := Open(".")
				if err == nil {
					defer o.Close()
					_, err = o.Index(t.Context())
				}
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "not a regular file") {
					t.Errorf("error is %v", err)
				}
			})
		}
	}
	t.Run("a pipe as archive", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := syscall.Mkfifo(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(file); !errors.Is(err, ErrNotFound) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("a folder of blobs elsewhere", func(t *testing.T) {
		_, dir := twoPlatforms(t)
		elsewhere := filepath.Join(t.TempDir(), "blobs")
		if err := errors.Join(os.Rename(filepath.Join(dir, "blobs"), elsewhere), os.Symlink(elsewhere, filepath.Join(dir, "blobs"))); err != nil {
			t.Fatal(err)
		}
		o := opened(t, dir)
		if _, err := o.Index(t.Context()); err == nil {
			t.Error("reads what is outside of the layout")
		}
	})
}
