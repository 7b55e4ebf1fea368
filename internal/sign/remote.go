package sign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/xavieralpha/derper/internal/registry"
)

// Writable is a repository with the right to push.
type Writable struct{ *registry.Repository }

// Has reports whether the repository has a manifest.
func (w Writable) Has(ctx context.Context, digest v1.Hash) (bool, error) {
	_, err := remote.Head(w.Digest(digest), w.Options(ctx)...)
	if e := (*transport.Error)(nil); errors.As(err, &e) && e.StatusCode == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// Index reads an index.
func (w Writable) Index(ctx context.Context, digest v1.Hash) (v1.ImageIndex, error) {
	return remote.Index(w.Digest(digest), w.Options(ctx)...)
}

// Bundles lists the Sigstore bundles that refer to a digest.
func (w Writable) Bundles(ctx context.Context, subject v1.Hash) ([][]byte, error) {
	list, err := w.Referrers(ctx, subject, BundleType)
	if err != nil {
		return nil, err
	}
	var bundles [][]byte
	for _, d := range list {
		a, err := w.Fetch(ctx, d.Digest)
		if err != nil {
			return nil, err
		}
		if isBundle(a.Manifest) {
			bundles = append(bundles, a.Layers[0])
		}
	}
	return bundles, nil
}

// isBundle reports whether an artifact is a Sigstore bundle, as cosign recognises it.
func isBundle(m *v1.Manifest) bool {
	return len(m.Layers) == 1 && strings.HasPrefix(string(m.Layers[0].MediaType), "application/vnd.dev.sigstore.bundle")
}

// Readable is a repository that is only read, which anybody may do with a public one:
// a registry may refuse to talk to somebody without a password who asks for more.
type Readable struct {
	name    name.Repository
	options []remote.Option
}

// NewReadable is the repository with the given name.
func NewReadable(repository string, options ...remote.Option) (*Readable, error) {
	n, err := name.NewRepository(repository)
	if err != nil {
		return nil, err
	}
	return &Readable{n, options}, nil
}

// String is the repository's name.
func (r *Readable) String() string { return r.name.String() }

func (r *Readable) with(ctx context.Context) []remote.Option {
	return append(slices.Clone(r.options), remote.WithContext(ctx))
}

// Index reads an index. The reference is a tag or a digest.
func (r *Readable) Index(ctx context.Context, reference string) (v1.ImageIndex, error) {
	var ref name.Reference = r.name.Tag(reference)
	if strings.Contains(reference, ":") {
		ref = r.name.Digest(reference)
	}
	d, err := remote.Get(ref, r.with(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if !d.MediaType.IsIndex() {
		return nil, fmt.Errorf("%s: is a %s, not the index of an image", ref, d.MediaType)
	}
	return d.ImageIndex()
}

// Bundles lists the Sigstore bundles that refer to a digest.
func (r *Readable) Bundles(ctx context.Context, subject v1.Hash) ([][]byte, error) {
	index, err := remote.Referrers(r.name.Digest(subject.String()), r.with(ctx)...)
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.Manifests, func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	var bundles [][]byte
	for _, d := range list.Manifests {
		data, err := r.bundle(ctx, d.Digest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Digest, err)
		}
		if data != nil {
			bundles = append(bundles, data)
		}
	}
	return bundles, nil
}

// largest is the largest bundle that is read, in bytes.
const largest = 64 << 20

// bundle reads a bundle; nil for another artifact.
func (r *Readable) bundle(ctx context.Context, digest v1.Hash) ([]byte, error) {
	img, err := remote.Image(r.name.Digest(digest.String()), r.with(ctx)...)
	if err != nil {
		return nil, err
	}
	m, err := img.Manifest()
	if err != nil || !isBundle(m) {
		return nil, err
	}
	if m.Layers[0].Size > largest {
		return nil, errors.New("is too large for a bundle")
	}
	l, err := img.LayerByDigest(m.Layers[0].Digest)
	if err != nil {
		return nil, err
	}
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}
