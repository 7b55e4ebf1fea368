// Package image makes layers of files, an image of layers and an index of images,
// and writes them out as an OCI layout or for Docker.
//
// It promises that the same files, platform and release give the same bytes, down
// to the digest of the index, wherever and whenever it runs; the golden test says
// which. It does not compile, fetch or push.
//
// Specifications: https://github.com/opencontainers/image-spec, v1.1.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/xavieralpha/derper/internal/lock"
)

// A File is a file, a folder or a symbolic link of a layer.
type File struct {
	// Name is its path from the root, without a slash at either end.
	Name string
	// Mode has its permissions and, for a folder, fs.ModeDir. Sticky is the
	// only other bit that is kept.
	Mode fs.FileMode
	// Owner is the uid and gid that it belongs to.
	Owner int
	// Link is what a symbolic link names.
	Link string
	// Size is in bytes. Open opens the content; both are for files only.
	Size int64
	Open func() (io.ReadCloser, error)
}

// Dir is a folder.
func Dir(name string, perm fs.FileMode) File { return File{Name: name, Mode: fs.ModeDir | perm} }

// Text is a file, readable for all, with the given content.
func Text(name, content string) File {
	return File{Name: name, Mode: 0o644, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

// Entries are the files that a variant has besides. The folders above them that [Etc] has,
// too, keep their modes: /tmp is everybody's.
func Entries(list []lock.Entry) (files []File, err error) {
	for _, e := range list {
		name, folder := strings.CutSuffix(e.Path, "/")
		f := Text(name, e.Text)
		if folder {
			f = Dir(name, 0)
		}
		if f.Link = e.Link; f.Link != "" {
			f.Mode = fs.ModeSymlink
		}
		bits, err := strconv.ParseUint(e.Mode, 8, 16)
		if err != nil {
			return nil, fmt.Errorf("file %s: mode: %w", e.Path, err)
		}
		if f.Mode, f.Owner = f.Mode.Type()|fs.FileMode(bits)&fs.ModePerm, e.Owner; bits&0o1000 != 0 {
			f.Mode |= fs.ModeSticky
		}
		files = append(files, f)
	}
	for _, dir := range Etc() {
		is := func(f File) bool { return f.Name == dir.Name }
		below := func(f File) bool { return strings.HasPrefix(f.Name, dir.Name+"/") }
		if dir.Mode.IsDir() && slices.ContainsFunc(files, below) && !slices.ContainsFunc(files, is) {
			files = append(files, dir)
		}
	}
	return files, nil
}

// OnDisk is a file with the content of the named one.
func OnDisk(name string, perm fs.FileMode, from string) (File, error) {
	fi, err := os.Stat(from)
	if err != nil {
		return File{}, err
	}
	return File{Name: name, Mode: perm, Size: fi.Size(), Open: func() (io.ReadCloser, error) {
		return os.Open(from)
	}}, nil
}

// WriteLayer writes a layer to w, as a gzip-compressed tar, and returns the DiffID,
// the digest of the tar.
//
// Entries are sorted by name; the folders above a file are there, with mode 0755
// where files does not say otherwise; owners have no names; every time is
// mtime, in UTC and whole seconds; headers are USTAR where the name fits.
//
// The encoder is not the standard library's: what that writes changes between Go
// releases. This one is pinned in go.sum.
func WriteLayer(w io.Writer, files []File, mtime time.Time) (diffID string, err error) {
	zw, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	zw.ModTime = time.Unix(0, 0) // none, RFC 1952 section 2.3.1
	hash := sha256.New()
	if err = writeTar(io.MultiWriter(zw, hash), files, mtime); err == nil {
		err = zw.Close()
	}
	if err != nil {
		return "", fmt.Errorf("layer: %w", err)
	}
	return fmt.Sprintf("sha256:%x", hash.Sum(nil)), nil
}

func writeTar(w io.Writer, files []File, mtime time.Time) error {
	entries, err := withParents(files)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range entries {
		if err := writeEntry(tw, f, mtime); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, f File, mtime time.Time) error {
	hdr := &tar.Header{
		Typeflag: tar.TypeReg,
		Name:     f.Name,
		Size:     f.Size,
		Mode:     int64(f.Mode.Perm()),
		ModTime:  mtime.UTC().Truncate(time.Second),
		Uid:      f.Owner,
		Gid:      f.Owner,
	}
	if f.Mode&fs.ModeSticky != 0 {
		hdr.Mode |= 0o1000
	}
	if f.Mode.IsDir() {
		hdr.Typeflag, hdr.Name = tar.TypeDir, f.Name+"/"
		return tw.WriteHeader(hdr)
	}
	if f.Mode.Type() == fs.ModeSymlink {
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, f.Link
		return tw.WriteHeader(hdr)
	}
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	// To the end and not just to Size: the end is where content is checked.
	_, err = io.Copy(tw, r)
	return err
}

// withParents sorts files and adds the folders that are not among them.
func withParents(files []File) ([]File, error) {
	byName := map[string]File{}
	for _, f := range files {
		if !fs.ValidPath(f.Name) || f.Name == "." {
			return nil, fmt.Errorf("%q is no path in an image", f.Name)
		}
		if _, twice := byName[f.Name]; twice {
			return nil, fmt.Errorf("duplicate %s", f.Name)
		}
		byName[f.Name] = f
	}
	for _, f := range files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			have, ok := byName[dir]
			if ok && !have.Mode.IsDir() {
				return nil, errors.New(dir + " is a file and a folder")
			}
			if !ok {
				byName[dir] = Dir(dir, 0o755)
			}
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b File) int { return strings.Compare(a.Name, b.Name) }), nil
}
