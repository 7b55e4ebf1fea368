package registry

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
)

// content is what is to be in a repository: manifests, each after those that it
// names, and the blobs of all of them, each once.
type content struct {
	manifests []*manifest
	blobs     []blob
	store     image.Store // where add finds it
}

// A manifest is a manifest or an index, as its bytes.
type manifest struct {
	raw       []byte
	mediaType types.MediaType
	digest    v1.Hash
}

// RawManifest and MediaType make it a remote.Taggable.
func (m *manifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m *manifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }

type blob struct {
	digest v1.Hash
	size   int64
	store  image.Store // where it is
}

// add adds what a descriptor names, after all that that names, and each once: an index may
// name another one often, and that one the next.
func (c *content) add(ctx context.Context, d v1.Descriptor) error {
	if slices.ContainsFunc(c.manifests, func(m *manifest) bool { return m.digest == d.Digest }) {
		return nil
	}
	raw, err := c.store.Manifest(ctx, d.Digest)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	mediaType, err := image.MediaType(raw, d.MediaType)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	added := &manifest{raw, mediaType, d.Digest}
	if added.mediaType.IsIndex() {
		index, err := image.ParseIndex(raw)
		if err != nil {
			return fmt.Errorf("index %s: %w", d.Digest, err)
		}
		for _, below := range index.Manifests {
			if err := c.add(ctx, below); err != nil {
				return err
			}
		}
	} else {
		m, err := image.ParseManifest(raw)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		for _, l := range append(m.Layers, m.Config) {
			if b := (blob{l.Digest, l.Size, c.store}); !slices.Contains(c.blobs, b) {
				c.blobs = append(c.blobs, b)
			}
		}
	}
	c.manifests = append(c.manifests, added)
	return nil
}

// addAll adds what another content has that is not there yet.
func (c *content) addAll(other *content) {
	for _, m := range other.manifests {
		if c.manifest(m.digest) == nil {
			c.manifests = append(c.manifests, m)
		}
	}
	for _, b := range other.blobs {
		if !slices.ContainsFunc(c.blobs, func(o blob) bool { return o.digest == b.digest && o.size == b.size }) {
			c.blobs = append(c.blobs, b)
		}
	}
}

// manifest is the one of a digest, nil for none.
func (c *content) manifest(digest v1.Hash) *manifest {
	for _, m := range c.manifests {
		if m.digest == digest {
			return m
		}
	}
	return nil
}

// single is an image, or an artifact in an image's form, as a store.
type single struct{ img v1.Image }

func (s single) Manifest(context.Context, v1.Hash) ([]byte, error) { return s.img.RawManifest() }

func (s single) Blob(_ context.Context, h v1.Hash) (io.ReadCloser, error) {
	l, err := s.img.LayerByDigest(h) // or the config
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}

// counted is a blob whose reading is counted, and checked: what does not have its
// digest is not uploaded to the end.
type counted struct {
	blob
	open  func() (io.ReadCloser, error)
	count func(n int64) // bytes more than before; fewer when reading begins anew

	read   atomic.Int64          // bytes since reading began anew
	failed atomic.Pointer[error] // what was wrong with the blob here
}

// Digest, Size, MediaType and Compressed make it a partial.CompressedLayer.
func (b *counted) Digest() (v1.Hash, error)            { return b.digest, nil }
func (b *counted) Size() (int64, error)                { return b.size, nil }
func (b *counted) MediaType() (types.MediaType, error) { return types.OCILayer, nil }
func (b *counted) Compressed() (io.ReadCloser, error) {
	b.count(-b.read.Swap(0))
	rc, err := b.open()
	if err != nil {
		b.failed.Store(&err)
		return nil, err
	}
	// The last bytes are kept back until it is known that they are right: a registry
	// that has them all may take the blob for whole.
	return &countedReader{image.Checked(rc, v1.Descriptor{Digest: b.digest, Size: b.size}), b}, nil
}

type countedReader struct {
	io.ReadCloser
	blob *counted
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.blob.read.Add(int64(n))
	r.blob.count(int64(n))
	if err != nil && err != io.EOF {
		r.blob.failed.Store(&err)
	}
	return n, err
}
