package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"reflect"
	"slices"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Opened is what a layout or an archive holds. As a [Store] it has the manifests and blobs
// of a layout; a docker archive names neither.
type Opened struct {
	// Entries are those of a layout's index.json.
	Entries []v1.Descriptor
	// Saved is the image of a docker archive, nil for a layout. An archive may describe its
	// image in both ways, which then agree.
	Saved *Saved

	files fs.FS
	file  *os.File // of an archive
}

// Saved is an image as docker save writes it: without a manifest, and its layers may be
// uncompressed.
type Saved struct {
	Config []byte
	Layers []func() (io.ReadCloser, error)

	config string // the names of the files
	layers []string
}

// Open opens the folder of an OCI layout, or an archive: a layout in a tar, or what docker
// save writes. The error is [ErrNotFound] for what is neither, and [ErrCorrupt] for what
// may load as one image here and as another elsewhere: with names that repeat or that lead
// out of it, or with two descriptions that do not agree.
// Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md.
func Open(name string) (*Opened, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	case err != nil:
		return nil, err
	case info.IsDir():
		return openFiles(folder(name), false)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("neither a regular file nor a folder: %w", ErrNotFound)
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

// openArchive opens an archive. What it opens reads r.
func openArchive(r archiveFile) (*Opened, error) {
	files, err := readArchive(r)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: the archive ends too early", ErrCorrupt)
	case errors.Is(err, ErrCorrupt):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("not a tar archive, or a compressed one: %w: %w", ErrNotFound, err)
	}
	return openFiles(files, true)
}

// openFiles opens the files of a layout or, in an archive, of what docker save writes.
func openFiles(files fs.FS, archive bool) (*Opened, error) {
	o := &Opened{files: files}
	var err error
	o.Entries, err = readLayout(files)
	layout := !errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && layout:
		return nil, err
	case err != nil && !archive:
		return nil, fmt.Errorf("has no index.json, and so is no OCI layout: %w: %w", ErrNotFound, err)
	}
	saved, err := readSaved(files)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !layout:
		return nil, fmt.Errorf("an archive without manifest.json and without index.json: %w: %w", ErrNotFound, err)
	case errors.Is(err, fs.ErrNotExist):
		return o, notLegacy(files)
	case err != nil:
		return nil, err
	}
	if layout {
		if err := o.agrees(saved); err != nil {
			return nil, fmt.Errorf("index.json and manifest.json: %w", err)
		}
	}
	if archive {
		o.Entries, o.Saved = nil, saved
	}
	return o, nil
}

// readLayout reads the entries of a layout's index.json. There is a file oci-layout beside
// it: where there is none, other programs read something else, or nothing.
func readLayout(files fs.FS) ([]v1.Descriptor, error) {
	data, err := readFile(files, "index.json")
	if err != nil {
		return nil, err
	}
	top, err := ParseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	marker, err := readFile(files, "oci-layout")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("index.json without oci-layout: not an OCI layout: %w", ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	layout, err := parse[struct {
		Version string `json:"imageLayoutVersion"`
	}](marker)
	if err != nil {
		return nil, fmt.Errorf("oci-layout: %w", err)
	}
	if layout.Version != "1.0.0" {
		return nil, fmt.Errorf("oci-layout: unsupported version %q, expected 1.0.0: %w", layout.Version, ErrNotFound)
	}
	for _, d := range top.Manifests {
		if d.Data != nil || d.URLs != nil {
			return nil, fmt.Errorf("index.json: %w: %s: content outside of the layout (data or urls)", ErrCorrupt, d.Digest)
		}
	}
	return top.Manifests, nil
}

// agrees reports whether a layout's only image is the one that docker save names. Some
// programs read the one description, and some the other.
func (o *Opened) agrees(saved *Saved) error {
	ctx := context.Background() // files ask for none
	top, err := o.Top()
	if err != nil {
		return err
	}
	images := []v1.Descriptor{top}
	if index, err := readIndex(ctx, o, top); err == nil {
		// Docker saves the index that it pulled, and of its images only one.
		images = slices.DeleteFunc(attested(index.parsed.Manifests), func(d v1.Descriptor) bool {
			_, err := o.Size(d.Digest)
			return errors.Is(err, fs.ErrNotExist)
		})
	} else if !errors.Is(err, ErrForeign) {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("%w: the first names %d images, the second only one: use an OCI layout, or save a single platform", ErrCorrupt, len(images))
	}
	img, err := ImageOf(ctx, o, images[0])
	if err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	var layers []string
	for _, l := range m.Layers {
		layers = append(layers, blobName(l.Digest))
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	if saved.config != blobName(m.Config.Digest) || !slices.Equal(config, saved.Config) || !slices.Equal(saved.layers, layers) {
		return fmt.Errorf("%w: they name different images; which one is loaded depends on the program", ErrCorrupt)
	}
	return nil
}

// Close closes an archive's file. A folder has none.
func (o *Opened) Close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

// Top is the one image or index of a layout. Several entries may name it, with annotations
// of their own.
func (o *Opened) Top() (top v1.Descriptor, err error) {
	for i, d := range o.Entries {
		if i > 0 && top.Digest != d.Digest {
			return top, fmt.Errorf("index.json names %d images: one is wanted: %w", len(o.Entries), ErrNotFound)
		}
		if d.Annotations = nil; i > 0 && !reflect.DeepEqual(top, d) {
			return top, fmt.Errorf("index.json: %w: conflicting entries for %s", ErrCorrupt, d.Digest)
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

// folder is the folder of a layout, as an [fs.FS] that has regular files only: a link may
// lead anywhere, a pipe keeps a reader waiting, and a device has no end.
type folder string

func (dir folder) Open(name string) (fs.File, error) {
	root, err := os.OpenRoot(string(dir))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	irregular := fmt.Errorf("%s: %w: not a regular file; if it is a link, copy the folder with cp -RL", name, ErrCorrupt)
	if !info.Mode().IsRegular() {
		return nil, irregular
	}
	// Without waiting, should a pipe take its place meanwhile.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|largeFile, 0)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		return nil, errors.Join(irregular, err, f.Close())
	}
	return f, nil
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
func readSaved(files fs.FS) (*Saved, error) {
	data, err := readFile(files, "manifest.json")
	if err != nil {
		return nil, err
	}
	list, err := parse[[]struct {
		Config string
		Layers []string
	}](data)
	if err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	if len(*list) != 1 {
		return nil, fmt.Errorf("manifest.json names %d images: one is wanted: %w", len(*list), ErrNotFound)
	}
	s := &Saved{config: (*list)[0].Config, layers: (*list)[0].Layers}
	for _, name := range append([]string{s.config}, s.layers...) {
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("manifest.json: %w: invalid file name %q", ErrCorrupt, name)
		}
	}
	// The error must not be taken for that of a missing manifest.json.
	if s.Config, err = readFile(files, s.config); err != nil {
		return nil, fmt.Errorf("config: %w: %v", ErrCorrupt, err)
	}
	for _, name := range s.layers {
		s.Layers = append(s.Layers, func() (io.ReadCloser, error) {
			r, err := files.Open(name)
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			return r, err
		})
	}
	return s, nil
}
