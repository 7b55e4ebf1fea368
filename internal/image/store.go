package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/lock"
)

// Errors of an image that cannot be read.
var (
	// ErrNotFound says that there is no such image.
	ErrNotFound = errors.New("no such image")
	// ErrCorrupt says that an image is not whole, or not what its digests name.
	ErrCorrupt = errors.New("corrupt")
	// ErrForeign says that an image is not one of this project.
	ErrForeign = errors.New("is not an image of this project")
)

// MaxManifest is the most that is read of a manifest, a config or a statement, in bytes.
// Real ones have at most 8 kB, an SBOM 185 kB.
const MaxManifest = 1 << 20

// MaxLayer is the most that a layer may have, in bytes, as it is compressed. Real ones have
// up to 20 MB.
const MaxLayer = 1 << 30

// A Store has manifests and blobs by digest: a layout, an archive, a repository in a
// registry.
type Store interface {
	// Manifest returns a manifest or an index, of at most MaxManifest bytes, after it was
	// checked against its digest; see ReadDocument.
	Manifest(ctx context.Context, digest v1.Hash) ([]byte, error)
	// Blob opens a blob. Its content is checked by whoever reads all of it.
	Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error)
}

// ReadDocument reads a manifest, a config or a statement, and checks that it is what its
// digest names. What is too long is refused before it is in memory.
func ReadDocument(r io.Reader, digest v1.Hash) ([]byte, error) {
	data, err := readAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", digest, err)
	}
	if got, _, _ := v1.SHA256(bytes.NewReader(data)); got != digest { // reading memory does not fail
		return nil, fmt.Errorf("%s: %w: the content has digest %s", digest, ErrCorrupt, got)
	}
	return data, nil
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxManifest+1))
	if err == nil && len(data) > MaxManifest {
		err = fmt.Errorf("%w: more than %d MiB", ErrCorrupt, MaxManifest>>20)
	}
	return data, err
}

// Document reads a document that a store has as a blob: a config, a statement.
func Document(ctx context.Context, s Store, digest v1.Hash) ([]byte, error) {
	r, err := s.Blob(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return ReadDocument(r, digest)
}

// PlatformOf is a platform as the lock writes it, or as it is written where the lock knows
// no such platform.
func PlatformOf(p v1.Platform) lock.Platform {
	name := strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
	if known, err := lock.ParsePlatform(name); err == nil {
		return known
	}
	return lock.Platform(name)
}

// Limits of where ForPlatform looks.
const (
	maxEntries   = 1 << 10 // of an index; a real one has some twenty
	maxDocuments = 1 << 8  // indexes, and images whose entries name no platform
	maxNamed     = 1 << 5  // platforms that an error names
)

// ForPlatform finds the image of a platform among the entries of an index, and in the
// indexes among them. An entry without a platform leaves it to the image's config. The
// error is [ErrForeign] for more entries than are looked at.
func ForPlatform(ctx context.Context, s Store, entries []v1.Descriptor, p v1.Platform) (v1.Image, error) {
	want := PlatformOf(p)
	read := map[v1.Hash]bool{}
	inIndex := false
	var have []string
	for entries = attested(entries); len(entries) > 0; {
		d := entries[0]
		entries = entries[1:]
		if d.MediaType.IsIndex() || d.MediaType.IsImage() && d.Platform == nil {
			if read[d.Digest] {
				continue
			}
			if read[d.Digest] = true; len(read) > maxDocuments {
				return nil, fmt.Errorf("has more than %d indexes, and images without a platform: %w", maxDocuments, ErrForeign)
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		switch {
		case d.MediaType.IsIndex():
			inIndex = true
			index, err := readIndex(ctx, s, d)
			if err != nil {
				return nil, err
			}
			if n := len(index.parsed.Manifests); n > maxEntries {
				return nil, fmt.Errorf("index %s has %d entries, more than %d: %w", d.Digest, n, maxEntries, ErrForeign)
			}
			entries = slices.Concat(attested(index.parsed.Manifests), entries)
		case d.MediaType.IsImage():
			if d.Platform == nil || PlatformOf(*d.Platform) == want {
				img, err := ImageOf(ctx, s, d)
				if err != nil || d.Platform != nil {
					return img, err
				}
				config, err := img.ConfigFile()
				if err != nil {
					return nil, err
				}
				d.Platform = &v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
				if PlatformOf(*d.Platform) == want {
					return img, nil
				}
			}
			if d.Platform.OS != "unknown" && len(have) < maxNamed { // so calls itself what is no image
				have = append(have, string(PlatformOf(*d.Platform)))
			}
		}
	}
	if len(have) == 1 && !inIndex {
		return nil, fmt.Errorf("the image is for %s, not for %s", have[0], want)
	}
	return nil, fmt.Errorf("has no image for %s, only for %s", want, strings.Join(have, ", "))
}

// attested are the entries of an index without the attestations.
func attested(entries []v1.Descriptor) []v1.Descriptor {
	return slices.DeleteFunc(slices.Clone(entries), func(d v1.Descriptor) bool {
		_, attests := Attests(d, entries)
		return attests
	})
}

// IndexOf is an index in a store.
func IndexOf(ctx context.Context, s Store, d v1.Descriptor) (v1.ImageIndex, error) {
	m, err := readIndex(ctx, s, d)
	if err != nil {
		return nil, err
	}
	return &storeIndex{m}, nil
}

func readIndex(ctx context.Context, s Store, d v1.Descriptor) (*storeManifest[v1.IndexManifest], error) {
	return readManifest(ctx, s, d, "index", types.MediaType.IsIndex, ParseIndex)
}

// storeManifest is a manifest or an index in a store.
type storeManifest[M any] struct {
	ctx        context.Context
	store      Store
	descriptor v1.Descriptor
	raw        []byte
	parsed     *M
}

func (m *storeManifest[M]) MediaType() (types.MediaType, error) { return m.descriptor.MediaType, nil }
func (m *storeManifest[M]) Digest() (v1.Hash, error)            { return m.descriptor.Digest, nil }
func (m *storeManifest[M]) Size() (int64, error)                { return int64(len(m.raw)), nil }
func (m *storeManifest[M]) RawManifest() ([]byte, error)        { return m.raw, nil }

func readManifest[M any](ctx context.Context, s Store, d v1.Descriptor, what string,
	is func(types.MediaType) bool, parse func([]byte) (*M, error)) (*storeManifest[M], error) {
	raw, err := s.Manifest(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	if d.MediaType, err = MediaType(raw, d.MediaType); err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, d.Digest, err)
	}
	if !is(d.MediaType) {
		return nil, fmt.Errorf("%s: is no %s: %w", d.Digest, what, ErrForeign)
	}
	m, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, d.Digest, err)
	}
	return &storeManifest[M]{ctx, s, d, raw, m}, nil
}

// storeIndex is an index in a store, as a v1.ImageIndex. What it names is read when it is
// asked for.
type storeIndex struct {
	*storeManifest[v1.IndexManifest]
}

func (i *storeIndex) IndexManifest() (*v1.IndexManifest, error)   { return i.parsed.DeepCopy(), nil }
func (i *storeIndex) Image(h v1.Hash) (v1.Image, error)           { return child(i, h, ImageOf) }
func (i *storeIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) { return child(i, h, IndexOf) }

func child[T any](i *storeIndex, digest v1.Hash, of func(context.Context, Store, v1.Descriptor) (T, error)) (none T, err error) {
	d, err := entry(i.parsed.Manifests, digest)
	if err != nil {
		return none, fmt.Errorf("index %s: %w", i.descriptor.Digest, err)
	}
	return of(i.ctx, i.store, d)
}

func entry(list []v1.Descriptor, digest v1.Hash) (v1.Descriptor, error) {
	n := slices.IndexFunc(list, func(d v1.Descriptor) bool { return d.Digest == digest })
	if n < 0 {
		return v1.Descriptor{}, fmt.Errorf("names no %s", digest)
	}
	return list[n], nil
}

// ImageOf is an image in a store. Its config and its layers are read when they are asked
// for; who reads a layer to its end gets [ErrCorrupt] if it is not what its digest names.
func ImageOf(ctx context.Context, s Store, d v1.Descriptor) (v1.Image, error) {
	m, err := readManifest(ctx, s, d, "image", types.MediaType.IsImage, ParseManifest)
	if err != nil {
		return nil, err
	}
	for _, l := range m.parsed.Layers {
		if l.Size < 0 || l.Size > MaxLayer { // which bounds what is read of it: see Checked
			return nil, fmt.Errorf("image %s: layer %s has %d bytes, and a layer may have %d MiB: %w", d.Digest, l.Digest, l.Size, MaxLayer>>20, ErrForeign)
		}
	}
	return partial.CompressedToImage(&storeImage{m, sync.OnceValues(func() ([]byte, error) {
		data, err := Document(ctx, s, m.parsed.Config.Digest)
		if err == nil {
			_, err = ParseConfig(data)
		}
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		return data, nil
	})})
}

// storeImage is what partial.CompressedToImage asks for.
type storeImage struct {
	*storeManifest[v1.Manifest]
	config func() ([]byte, error)
}

func (i *storeImage) RawConfigFile() ([]byte, error) { return i.config() }
func (i *storeImage) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	d, err := entry(append(slices.Clone(i.parsed.Layers), i.parsed.Config), digest)
	return &storeLayer{i, d}, err
}

// storeLayer is what partial.CompressedToLayer asks for.
type storeLayer struct {
	*storeImage
	descriptor v1.Descriptor
}

func (l *storeLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *storeLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *storeLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l *storeLayer) Compressed() (io.ReadCloser, error) {
	r, err := l.store.Blob(l.ctx, l.descriptor.Digest)
	if err != nil {
		return nil, err
	}
	return Checked(r, l.descriptor), nil
}

// Checked is a reader of a blob that checks it. Its end, and more than there should be, is
// an error when the content is not what the descriptor names, and so are its last bytes,
// so that nobody has all of what is wrong.
func Checked(r io.ReadCloser, want v1.Descriptor) io.ReadCloser {
	return &checkedReader{r, want, sha256.New(), 0}
}

type checkedReader struct {
	io.ReadCloser
	want v1.Descriptor
	hash hash.Hash
	n    int64
}

func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.hash.Write(p[:n])
	r.n += int64(n)
	if err == io.EOF || err == nil && r.n >= r.want.Size {
		if got := hex.EncodeToString(r.hash.Sum(nil)); r.n != r.want.Size || got != r.want.Digest.Hex {
			return 0, fmt.Errorf("%s: %w: the content has digest sha256:%s and %d bytes, not %d", r.want.Digest, ErrCorrupt, got, r.n, r.want.Size)
		}
	}
	return n, err
}
