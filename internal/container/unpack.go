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

// unpack writes the file system of an image to an empty directory. Nothing is written outside of it, whatever the
// names and links in the image say: os.Root sees to that, and an image that tries is an error.
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
	left := int64(maxUnpacked)
	for i, l := range layers {
		if err := unpackLayer(root, l, &left); err != nil {
			return fmt.Errorf("unpack: layer %d: %w", i, err)
		}
	}
	return nil
}

// maxUnpacked is the most that the tars of an image may have, in bytes, and maxFiles the entries of one. Ours have some
// 60 MB, and some hundred.
const (
	maxUnpacked = 2 << 30
	maxFiles    = 1 << 16
)

// unpackLayer unpacks a layer if its tar has no more bytes than are left.
func unpackLayer(root *os.Root, l v1.Layer, left *int64) error {
	unpacked, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer unpacked.Close()
	r := &counted{limit.Reader(unpacked, *left), left}
	tr := limit.NewTar(r)
	written := map[string]bool{} // by this layer: its whiteouts are for those below
	for entries := 0; ; entries++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// Only at its end is a blob compared with its digest.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if entries == maxFiles {
			return fmt.Errorf("%w: more than %d entries", limit.Err, maxFiles)
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		if name == "." || name == "" {
			continue
		}
		switch base := path.Base(name); {
		case !filepath.IsLocal(name):
			err = errors.New("leads out of the image")
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

// counted counts what is read of what is left.
type counted struct {
	io.Reader
	left *int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.left -= int64(n)
	return n, err
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
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
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
	if err == nil && os.Getuid() == 0 { // anyone else owns everything in the container anyway
		err = root.Lchown(name, h.Uid, h.Gid)
	}
	if err == nil && h.Typeflag != tar.TypeSymlink {
		err = root.Chmod(name, h.FileInfo().Mode()) // after the change of owner, which clears setuid and setgid
	}
	return err
}
