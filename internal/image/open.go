package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/limit"
)

// Opened is what a layout or an archive holds. As a [Store] it has the manifests and blobs
// of a layout; a docker archive names neither.
type Opened struct {
	// Entries are those of a layout's index.json.
	Entries []v1.Descriptor
	// Saved is the image of a docker archive, nil for a layout.
	Saved *Saved

	files fs.FS
	file  *os.File // of an archive
}

// Saved is an image as docker save writes it: without a manifest, and its layers may be
// uncompressed.
type Saved struct {
	Config []byte
	Layers []func() (io.ReadCloser, error)
}

// Open opens the folder of an OCI layout, or an archive: a layout in a tar, or what docker
// save writes. The error is [ErrNotFound] for what is neither.
// Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md.
func Open(name string) (*Opened, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openFiles(os.DirFS(name), false)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	o, err := openArchive(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o.file = f
	return o, nil
}

// archiveFile is an uncompressed tar.
type archiveFile interface {
	io.ReadSeeker
	io.ReaderAt
}

// openArchive opens an archive. What it opens reads r.
func openArchive(r archiveFile) (*Opened, error) {
	files, err := readArchive(r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: the archive ends too early", ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("not a tar archive, or a compressed one: %w: %w", ErrNotFound, err)
	}
	if _, ok := files.files["manifest.json"]; ok {
		saved, err := readSaved(files)
		return &Opened{Saved: saved, files: files}, err
	}
	return openFiles(files, true)
}

// openFiles opens the files of a layout.
func openFiles(files fs.FS, archive bool) (*Opened, error) {
	data, err := readFile(files, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		what := "has no index.json, and so is no OCI layout"
		if archive {
			what = "an archive without manifest.json and without index.json"
		}
		return nil, fmt.Errorf("%s: %w: %w", what, ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	top, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("index.json: %w: %w", ErrCorrupt, err)
	}
	return &Opened{Entries: top.Manifests, files: files}, nil
}

// Close closes an archive's file. A folder has none.
func (o *Opened) Close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

// Top is the one image or index of a layout.
func (o *Opened) Top() (top v1.Descriptor, err error) {
	for i, d := range o.Entries {
		if i > 0 && top.Digest != d.Digest {
			return top, fmt.Errorf("index.json names %d images: one is wanted: %w", len(o.Entries), ErrNotFound)
		}
		top = d
	}
	if len(o.Entries) == 0 {
		err = fmt.Errorf("index.json names no image: %w", ErrNotFound)
	}
	return top, err
}

// Index is the one index of a layout.
func (o *Opened) Index(ctx context.Context) (v1.ImageIndex, error) {
	top, err := o.Top()
	if err != nil {
		return nil, err
	}
	return IndexOf(ctx, o, top)
}

// Manifest reads a manifest or index.
func (o *Opened) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	return Document(ctx, o, digest)
}

// Blob opens a blob.
func (o *Opened) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	r, err := o.files.Open(blobName(digest))
	return r, missing(digest, err)
}

// Size is the size that a blob has, which may not be what it should be.
func (o *Opened) Size(digest v1.Hash) (int64, error) {
	info, err := fs.Stat(o.files, blobName(digest))
	if err != nil {
		return 0, missing(digest, err)
	}
	return info.Size(), nil
}

func blobName(digest v1.Hash) string { return path.Join("blobs", digest.Algorithm, digest.Hex) }

func missing(digest v1.Hash, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: the layout does not have it: %w", digest, ErrCorrupt, err)
	}
	return err
}

// tarFiles are files in a tar, which stay there.
type tarFiles struct {
	files map[string]section
	links map[string]string
}

// section is a file in a tar, as an [fs.File].
type section struct {
	*io.SectionReader
	info fs.FileInfo
}

func (s section) Stat() (fs.FileInfo, error) { return s.info, nil }
func (s section) Close() error               { return nil }

// maxFiles is the most files that an archive may have. A real one has some forty.
const maxFiles = 1 << 14

// readArchive reads where the files of an uncompressed tar are.
func readArchive(f archiveFile) (*tarFiles, error) {
	a := &tarFiles{map[string]section{}, map[string]string{}}
	tr := limit.NewTar(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, err
		}
		if len(a.files)+len(a.links) > maxFiles {
			return nil, fmt.Errorf("has more than %d files", maxFiles)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader is at the beginning of the content, whatever it read.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.files[name] = section{io.NewSectionReader(f, at, h.Size), h.FileInfo()}
		case tar.TypeSymlink: // docker save, up to version 24, for layers that repeat
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		}
	}
}

// Open opens a file; the tarFiles are an [fs.FS].
func (a *tarFiles) Open(name string) (fs.File, error) {
	name = path.Clean(name)
	if to, ok := a.links[name]; ok {
		name = to
	}
	s, ok := a.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return section{io.NewSectionReader(s.SectionReader, 0, s.Size()), s.info}, nil
}

func readFile(in fs.FS, name string) ([]byte, error) {
	r, err := in.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := readAll(r)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	return data, nil
}

// readSaved reads what docker save writes, of which there must be one image.
func readSaved(a *tarFiles) (*Saved, error) {
	data, err := readFile(a, "manifest.json")
	if err != nil {
		return nil, err
	}
	var list []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("manifest.json: %w: %w", ErrCorrupt, err)
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("manifest.json names %d images: one is wanted: %w", len(list), ErrNotFound)
	}
	s := &Saved{}
	if s.Config, err = readFile(a, list[0].Config); err != nil {
		return nil, fmt.Errorf("config: %w: %w", ErrCorrupt, err)
	}
	for _, name := range list[0].Layers {
		s.Layers = append(s.Layers, func() (io.ReadCloser, error) {
			r, err := a.Open(name)
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			return r, err
		})
	}
	return s, nil
}
