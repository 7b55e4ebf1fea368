package verify

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
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/verify/diff"
)

// files are those of a layout or of an archive.
type files interface {
	open(name string) (io.ReadCloser, error)
}

// folder is files on disk.
type folder string

func (f folder) open(name string) (io.ReadCloser, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%s: %w", diff.Printable(name), fs.ErrNotExist)
	}
	return os.Open(filepath.Join(string(f), filepath.FromSlash(name)))
}

// archive is files in a tar, which stays packed.
type archive struct {
	file  *os.File
	files map[string]section
	links map[string]string
}

type section struct{ at, size int64 }

// readArchive reads where the files of an uncompressed tar are.
func readArchive(f *os.File) (*archive, error) {
	a := &archive{f, map[string]section{}, map[string]string{}}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader is at the beginning of the content, whatever it read.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.files[name] = section{at, h.Size}
		case tar.TypeSymlink: // docker save, up to version 24, for layers that repeat
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		}
	}
}

func (a *archive) open(name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	if to, ok := a.links[name]; ok {
		name = to
	}
	s, ok := a.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", diff.Printable(name), fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(a.file, s.at, s.size)), nil
}

// layout is an OCI layout as a store.
// Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md.
type layout struct{ files }

func (l layout) blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	r, err := l.open(path.Join("blobs", digest.Algorithm, digest.Hex))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the layout does not have it", ErrDamaged)
	}
	return r, err
}

func (l layout) manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	r, err := l.blob(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readAll(r)
}

// openLayout finds the image of a layout, of which there must be one.
func openLayout(ctx context.Context, in files, closer io.Closer) (*found, error) {
	data, err := readFile(in, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("has no index.json, and so is no OCI layout: %w", ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	top, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("index.json: %w: %w", ErrDamaged, err)
	}
	var one *v1.Descriptor
	for i, d := range top.Manifests {
		if one != nil && one.Digest != d.Digest {
			return nil, fmt.Errorf("index.json names %d images: one is wanted: %w", len(top.Manifests), ErrNotFound)
		}
		one = &top.Manifests[i]
	}
	if one == nil {
		return nil, fmt.Errorf("index.json names no image: %w", ErrNotFound)
	}
	f, err := read(ctx, layout{in}, *one)
	if err == nil && closer != nil {
		f.close = closer.Close
	}
	return f, err
}

// openArchive finds the image in a tar: an OCI layout, or what docker save writes.
func openArchive(ctx context.Context, name string) (_ *found, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	a, err := readArchive(f)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: the archive ends too early", ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("not a tar archive, or a compressed one: %w: %w", ErrNotFound, err)
	}
	switch {
	case a.files["manifest.json"] != section{}:
		return openDockerArchive(a)
	case a.files["index.json"] != section{}:
		return openLayout(ctx, a, f)
	}
	return nil, fmt.Errorf("an archive without manifest.json and without index.json: %w", ErrNotFound)
}

// openDockerArchive finds the image in what docker save writes. It has a config and
// layers, which may be uncompressed, but no manifest.
func openDockerArchive(a *archive) (*found, error) {
	data, err := readFile(a, "manifest.json")
	if err != nil {
		return nil, err
	}
	var list []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("manifest.json: %w: %w", ErrDamaged, err)
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("manifest.json names %d images: one is wanted: %w", len(list), ErrNotFound)
	}
	if len(list[0].Layers) > maxLayers {
		return nil, fmt.Errorf("has %d layers, more than %d: %w", len(list[0].Layers), maxLayers, ErrNotOurs)
	}
	img := &foundImage{}
	if img.config, err = readFile(a, list[0].Config); err != nil {
		return nil, fmt.Errorf("config: %w: %w", ErrDamaged, err)
	}
	if err := img.readConfig(); err != nil {
		return nil, err
	}
	for _, name := range list[0].Layers {
		img.layers = append(img.layers, foundLayer{"", func(context.Context) (io.ReadCloser, error) {
			r, err := a.open(name)
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			return r, err
		}})
	}
	return &found{kind: KindArchive, digest: digestOf(img.config), images: []*foundImage{img}, close: a.file.Close}, nil
}

func readFile(in files, name string) ([]byte, error) {
	r, err := in.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := readAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", diff.Printable(strings.TrimSpace(name)), err)
	}
	return data, nil
}
