package attest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// largest is the largest bundle that is read, in bytes.
const largest = 64 << 20

// Remote is a repository in a registry.
type Remote struct {
	name    name.Repository
	options []remote.Option
}

// NewRemote is the repository with the given name.
func NewRemote(repository string, options ...remote.Option) (*Remote, error) {
	n, err := name.NewRepository(repository)
	if err != nil {
		return nil, err
	}
	return &Remote{n, options}, nil
}

// String is the repository's name.
func (r *Remote) String() string { return r.name.String() }

func (r *Remote) with(ctx context.Context) []remote.Option {
	return append(slices.Clone(r.options), remote.WithContext(ctx))
}

// Index reads an index by digest.
func (r *Remote) Index(ctx context.Context, digest v1.Hash) (v1.ImageIndex, error) {
	index, err := remote.Index(r.name.Digest(digest.String()), r.with(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("%s@%s: %w", r, digest, err)
	}
	return index, nil
}

// Resolve finds the digest of a tag.
func (r *Remote) Resolve(ctx context.Context, tag string) (v1.Hash, error) {
	d, err := remote.Head(r.name.Tag(tag), r.with(ctx)...)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("%s:%s: %w", r, tag, err)
	}
	return d.Digest, nil
}

// Has reports whether the repository has a manifest.
func (r *Remote) Has(ctx context.Context, digest v1.Hash) (bool, error) {
	_, err := remote.Head(r.name.Digest(digest.String()), r.with(ctx)...)
	if e := (*transport.Error)(nil); errors.As(err, &e) && e.StatusCode == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// Attach pushes an artifact by digest, and where the registry has no referrers API
// lists it under the tag sha256-<hex> of its subject.
func (r *Remote) Attach(ctx context.Context, artifact v1.Image) (v1.Hash, error) {
	digest, err := artifact.Digest()
	if err != nil {
		return digest, err
	}
	return digest, remote.Write(r.name.Digest(digest.String()), artifact, r.with(ctx)...)
}

// Bundles lists the Sigstore bundles that refer to a digest.
func (r *Remote) Bundles(ctx context.Context, subject v1.Hash) ([][]byte, error) {
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
		img, err := remote.Image(r.name.Digest(d.Digest.String()), r.with(ctx)...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Digest, err)
		}
		m, err := img.Manifest()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Digest, err)
		}
		if len(m.Layers) != 1 || m.Layers[0].MediaType != BundleType {
			continue
		}
		data, err := readBlob(img, m.Layers[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Digest, err)
		}
		bundles = append(bundles, data)
	}
	return bundles, nil
}

func readBlob(img v1.Image, d v1.Descriptor) ([]byte, error) {
	if d.Size > largest {
		return nil, errors.New("is too large for a bundle")
	}
	l, err := img.LayerByDigest(d.Digest)
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
