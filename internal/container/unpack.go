package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// unpack writes the file system of an image to an empty directory. Nothing is written outside of it, whatever the
// names and links in the image say: os.Root sees to that.
func unpack(img v1.Image, dir string) error {
	r := mutate.Extract(img)
	defer r.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = unpackEntry(root, h, tr)
		}
		if err != nil {
			name := ""
			if h != nil {
				name = h.Name + ": "
			}
			return fmt.Errorf("unpack: %s%w", name, err)
		}
	}
}

func unpackEntry(root *os.Root, h *tar.Header, body io.Reader) error {
	name := path.Clean(h.Name)
	if path.IsAbs(name) {
		name = name[1:]
	}
	if name == "." || name == "" {
		return nil
	}
	if !filepath.IsLocal(name) {
		return errors.New("leads out of the image")
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeReg:
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, body); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
	case tar.TypeLink:
		return root.Link(path.Clean("/" + h.Linkname)[1:], name)
	default:
		return fmt.Errorf("type %q is not for an image to be tested", h.Typeflag)
	}
	if os.Getuid() == 0 { // anyone else owns everything in the container anyway
		if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	// After the change of owner, which clears these bits.
	for bit, m := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if h.Mode&bit != 0 {
			mode |= m
		}
	}
	return root.Chmod(name, mode)
}
