package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
)

// errDamaged is in the error of content that is not what its digest names.
var errDamaged = image.ErrCorrupt

// content is what is to be in a repository: manifests, each after those that it
// names, and the blobs of all of them, each once.
type content struct {
	manifests []*manifest
	blobs     []v1.Layer
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

// readable is what can be read of an image and of an index.
type readable interface {
	RawManifest() ([]byte, error)
	MediaType() (types.MediaType, error)
}

// add adds an image or index itself. What it is named by, want, is compared with its
// content: a layout's images believe that they are what they hold.
func (c *content) add(m readable, want v1.Hash) error {
	raw, err := m.RawManifest()
	if err != nil {
		return err
	}
	mediaType, err := m.MediaType()
	if err != nil {
		return err
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("manifest %s: %w: its content has digest %s", want, errDamaged, got)
	}
	c.manifests = append(c.manifests, &manifest{raw, mediaType, got})
	return nil
}

// addImage adds an image with its blobs.
func (c *content) addImage(img v1.Image, want v1.Hash) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	config, err := partial.ConfigLayer(img)
	if err != nil {
		return err
	}
	for _, l := range append(layers, config) {
		if err := c.addBlob(l); err != nil {
			return err
		}
	}
	return c.add(img, want)
}

func (c *content) addBlob(l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	for _, other := range c.blobs {
		if d, err := other.Digest(); err == nil && d == digest {
			return nil
		}
	}
	c.blobs = append(c.blobs, l)
	return nil
}

// addIndex adds an index with its images.
func (c *content) addIndex(index v1.ImageIndex, want v1.Hash) error {
	list, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range list.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		if err := c.addImage(img, d.Digest); err != nil {
			return fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
	}
	return c.add(index, want)
}

// counted is a blob whose reading is counted, and checked: what does not have its
// digest is not uploaded to the end.
type counted struct {
	v1.Layer
	digest v1.Hash
	size   int64
	count  func(n int64) // bytes more than before; fewer when reading begins anew

	mu     sync.Mutex
	read   int64
	failed error
}

func (b *counted) Compressed() (io.ReadCloser, error) {
	rc, err := b.Layer.Compressed()
	if err != nil {
		return nil, b.fail(fmt.Errorf("blob %s: %w", b.digest, err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count(-b.read)
	b.read = 0
	return &checkedReader{rc: rc, blob: b, hash: sha256.New()}, nil
}

// fail remembers what was wrong with the blob here: the failure of a connection over
// it tells less.
func (b *counted) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = err
	return err
}

// err is what was wrong with the blob here, else the given error.
func (b *counted) err(other error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other != nil && b.failed != nil {
		return b.failed
	}
	return other
}

// sent is how many bytes were read since reading began anew.
func (b *counted) sent() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

type checkedReader struct {
	rc   io.ReadCloser
	blob *counted
	hash hash.Hash
	n    int64
}

func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.rc.Read(p)
	r.hash.Write(p[:n])
	r.n += int64(n)
	r.blob.mu.Lock()
	r.blob.read += int64(n)
	r.blob.count(int64(n))
	r.blob.mu.Unlock()
	// The last bytes are kept back until it is known that they are right: a
	// registry that has them all may take the blob for whole.
	if err == io.EOF || err == nil && r.n >= r.blob.size {
		if got := hex.EncodeToString(r.hash.Sum(nil)); r.n != r.blob.size || got != r.blob.digest.Hex {
			return 0, r.blob.fail(fmt.Errorf("blob %s: %w: its content has digest sha256:%s and %d bytes, not %d", r.blob.digest, errDamaged, got, r.n, r.blob.size))
		}
	} else if err != nil {
		return n, r.blob.fail(fmt.Errorf("blob %s: %w", r.blob.digest, err))
	}
	return n, err
}

func (r *checkedReader) Close() error { return r.rc.Close() }
