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
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/limit"
)

// nobody is the user and the group on this machine who is the container's only user, if the tester is root: one that
// has no process and no file. Systemd.io/UIDS-GIDS lists it as unused, and a container has it, too.
const nobody = 65530

// unpack writes the file system of an image to an empty directory. Nothing is written outside of it, whatever the
// names and links in the image say: os.Root sees to that, and an image that tries is an error. So is one without
// end. All belongs to the container's user, whoever the image says.
func unpack(img v1.Image, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if err := own(root, "."); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	left := unpackLimits
	for i, l := range layers {
		if err := unpackLayer(root, l, &left); err != nil {
			return fmt.Errorf("unpack: layer %d: %w", i, err)
		}
	}
	return nil
}

// bounds are what is left to an image: bytes of its tars, and files.
type bounds struct{ bytes, files int64 }

var unpackLimits = bounds{bytes: 4 << 30, files: 100_000}

var errTooLarge = errors.New("image is too large to be tested: more than 4 GiB, or more than 100,000 files")

// bounded is a reader that ends with an error when there is nothing left.
type bounded struct {
	io.Reader
	left *bounds
}

func (b bounded) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left.bytes -= int64(n); b.left.bytes < 0 {
		return 0, errTooLarge
	}
	return n, err
}

func unpackLayer(root *os.Root, l v1.Layer, left *bounds) error {
	blob, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer blob.Close()
	r := bounded{blob, left}
	tr := limit.NewTar(r)
	written := map[string]bool{} // by this layer: its whiteouts are for those below
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// Only at its end is a blob compared with its digest.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		left.files -= 1 + int64(strings.Count(h.Name, "/")) // with the folders that may have to be made for it
		if left.files < 0 {
			return fmt.Errorf("%s: %w", h.Name, errTooLarge)
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		if name == "." || name == "" {
			continue
		}
		switch base := path.Base(name); {
		case !filepath.IsLocal(name):
			err = errors.New("leads out of the image")
		case len(name) > 4096: // PATH_MAX: no program could open it
			err = errors.New("name is too long")
		case base == opaque:
			err = clear(root, path.Dir(name), written)
		case strings.HasPrefix(base, whiteout):
			err = root.RemoveAll(path.Join(path.Dir(name), strings.TrimPrefix(base, whiteout)))
		default:
			written[name] = true
			err = unpackEntry(root, name, h, tr)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// Names by which a layer removes what those below have: a file, or all that is in the directory.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// clear empties a directory of what is not to be kept.
func clear(root *os.Root, dir string, keep map[string]bool) error {
	entries, err := fs.ReadDir(root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if name := path.Join(dir, e.Name()); !keep[name] {
			err = errors.Join(err, root.RemoveAll(name))
		}
	}
	return err
}

func unpackEntry(root *os.Root, name string, h *tar.Header, body io.Reader) error {
	if err := mkdirAll(root, path.Dir(name)); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeDir {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		if err = root.Mkdir(name, 0o755); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	case tar.TypeReg:
		var f *os.File
		if f, err = root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			_, err = io.Copy(f, body)
			err = errors.Join(err, f.Close())
		}
	case tar.TypeSymlink:
		err = root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(strings.TrimPrefix(path.Clean(h.Linkname), "/"), name)
	default:
		err = fmt.Errorf("type %q is not for an image to be tested", h.Typeflag)
	}
	if err == nil {
		err = own(root, name)
	}
	if err == nil && h.Typeflag != tar.TypeSymlink {
		// Nothing on this machine is setuid because an image says so, and who unpacks a folder can remove it again.
		mode := h.FileInfo().Mode() &^ (fs.ModeSetuid | fs.ModeSetgid)
		if mode.IsDir() {
			mode |= 0o700
		}
		err = root.Chmod(name, mode)
	}
	return err
}

// mkdirAll makes a folder that an image has no entry for, and those above it.
func mkdirAll(root *os.Root, name string) error {
	if _, err := root.Stat(name); err == nil {
		return nil
	}
	if err := mkdirAll(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return own(root, name)
}

// own gives a file to the container's user. Who is not root is that user.
func own(root *os.Root, name string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return root.Lchown(name, nobody, nobody)
}
