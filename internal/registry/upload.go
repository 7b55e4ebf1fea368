package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"github.com/xavieralpha/derper/internal/image"
)

// Missing is what a repository lacks of a release, or lacked.
type Missing struct {
	// Blobs and Bytes are of layers and configs, Manifests of those and the index.
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
	Manifests int   `json:"manifests"`
	// Digests names them all: blobs first, the index last.
	Digests []string `json:"digests,omitempty"`
}

// missing is what a repository lacks of some content.
func (r *Repository) missing(ctx context.Context, c *content) (*content, error) {
	haveBlob := make([]bool, len(c.blobs))
	haveManifest := make([]bool, len(c.manifests))
	err := each(ctx, c.blobs, func(ctx context.Context, i int, b blob) (err error) {
		if haveBlob[i], err = r.hasBlob(ctx, b); broken(err) || forbidden(err) {
			return nil
		}
		return err
	})
	if err == nil {
		err = each(ctx, c.manifests, func(ctx context.Context, i int, m *manifest) error {
			found, err := r.head(ctx, r.digest(m.digest))
			haveManifest[i] = found != nil
			if broken(err) || forbidden(err) || err != nil && !spoken(err) && ctx.Err() == nil {
				return nil // what is under this digest is something else, or nothing
			}
			return err
		})
	}
	return &content{without(c.manifests, haveManifest), without(c.blobs, haveBlob), c.store}, err
}

// each calls f for each of a list, side by side, and returns the first error.
func each[T any](ctx context.Context, list []T, f func(ctx context.Context, i int, x T) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, x := range list {
		g.Go(func() error { return f(gctx, i, x) })
	}
	return g.Wait()
}

// without is a list without those of which there is something already.
func without[T any](list []T, have []bool) (rest []T) {
	for i, x := range list {
		if !have[i] {
			rest = append(rest, x)
		}
	}
	return rest
}

func (c *content) summary() *Missing {
	m := &Missing{Blobs: len(c.blobs), Manifests: len(c.manifests)}
	for _, b := range c.blobs {
		m.Bytes += b.size
		m.Digests = append(m.Digests, b.digest.String())
	}
	for _, x := range c.manifests {
		m.Digests = append(m.Digests, x.digest.String())
	}
	return m
}

// upload puts what is missing into the repository: blobs side by side, then
// manifests in their order. Blobs are mounted from another repository of the same
// registry where that has them; from may be nil. Then it reads everything back. Bytes
// are counted as they go.
func (r *Repository) upload(ctx context.Context, all, lacks *content, from *target, count func(int64)) error {
	err := each(ctx, lacks.blobs, func(ctx context.Context, _ int, b blob) error {
		return r.uploadBlob(ctx, all.store, b, from, count)
	})
	if err != nil {
		return err
	}
	for _, m := range lacks.manifests {
		// Some registries take anything under a digest.
		err := r.client.again(ctx, func() error {
			if err := r.put(ctx, r.digest(m.digest), m); err != nil {
				return err
			}
			return r.same(ctx, m)
		})
		if err != nil {
			return fmt.Errorf("manifest %s: %w", m.digest, err)
		}
	}
	return r.verify(ctx, all, lacks)
}

func (r *Repository) uploadBlob(ctx context.Context, store image.Store, b blob, from *target, count func(int64)) error {
	here := &counted{blob: b, count: count, open: func() (io.ReadCloser, error) { return store.Blob(ctx, b.digest) }}
	layer, err := partial.CompressedToLayer(here)
	if err != nil {
		return err
	}
	if from != nil {
		layer = &remote.MountableLayer{Layer: layer, Reference: from.digest(b.digest)}
	}
	first := true
	err = r.client.again(ctx, func() error {
		if !first {
			// The answer that was lost may have been that it has it.
			if has, err := r.hasBlob(ctx, b); err == nil && has {
				return nil
			}
		}
		first = false
		return here.err(remote.WriteLayer(r.name, layer, r.options(lacking(ctx))...))
	})
	if err != nil {
		return fmt.Errorf("blob %s: %w", b.digest, err)
	}
	count(b.size - here.sent()) // mounted, or there by now
	return nil
}

// verify reads back what was written, and the manifests of everything. The sizes of
// blobs that were there already have been looked at when they were found.
func (r *Repository) verify(ctx context.Context, all, written *content) error {
	err := each(ctx, all.manifests, func(ctx context.Context, _ int, m *manifest) error {
		if slices.Contains(written.manifests, m) {
			return nil // it was, at once
		}
		if err := r.client.again(ctx, func() error { return r.same(ctx, m) }); err != nil {
			return fmt.Errorf("verify manifest %s: %w", m.digest, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, written.blobs, func(ctx context.Context, _ int, b blob) error {
		return r.client.again(ctx, func() error {
			has, err := r.hasBlob(ctx, b)
			if err == nil && !has {
				err = errors.New("the registry took it and does not have it")
			}
			if err != nil {
				err = fmt.Errorf("verify blob %s: %w", b.digest, err)
			}
			return err
		})
	})
}

// same reads a manifest back and compares it.
func (r *Repository) same(ctx context.Context, m *manifest) error {
	d, err := remote.Get(r.digest(m.digest), r.options(ctx)...)
	if err == nil && (!bytes.Equal(d.Manifest, m.raw) || d.MediaType != m.mediaType) {
		err = errors.New("the registry gives something else back")
	}
	return err
}

// hasBlob asks for a blob. One of another size is an error.
func (r *Repository) hasBlob(ctx context.Context, b blob) (bool, error) {
	var size int64
	err := r.client.again(ctx, func() error {
		l, err := remote.Layer(r.digest(b.digest), r.options(ctx)...)
		if err == nil {
			size, err = l.Size()
		}
		return err
	})
	if NotFound(err) {
		return false, nil
	}
	if err == nil && size >= 0 && size != b.size {
		err = fmt.Errorf("blob %s has %d bytes in the registry, wants %d", b.digest, size, b.size)
	}
	return err == nil, err
}

// head asks for a manifest by digest or tag; nil when there is none.
func (r *Repository) head(ctx context.Context, ref name.Reference) (d *v1.Descriptor, err error) {
	err = r.client.again(ctx, func() error {
		d, err = remote.Head(ref, r.options(ctx)...)
		if NotFound(err) {
			d, err = nil, nil
		}
		return err
	})
	return d, err
}

// Has reports whether the repository has a manifest or an index.
func (r *Repository) Has(ctx context.Context, h v1.Hash) (bool, error) {
	d, err := r.head(ctx, r.digest(h))
	return d != nil, r.client.failed(r, h.String(), err)
}

// put writes a manifest under a digest or a tag.
func (r *Repository) put(ctx context.Context, ref name.Reference, m *manifest) error {
	return r.client.again(ctx, func() error { return remote.Put(ref, m, r.options(ctx)...) })
}

// broken reports whether a registry has said, and kept saying, that it cannot tell
// what it has. docker-registry does so of a link that it could not write because its
// disk was full; writing it again is what helps.
func broken(err error) bool { return status(err) == http.StatusInternalServerError }

// emptyLink reports whether the answer to whoever asks for a manifest is that of
// docker-registry for a link that is empty, and not for a fault that may pass: an
// error without code or detail.
// Source: github.com/distribution/distribution, registry/storage/linkedblobstore.go,
// where reading the link gives digest.ErrDigestInvalidFormat.
func (r *Repository) emptyLink(ctx context.Context, ref name.Reference) bool {
	_, err := remote.Get(ref, r.options(ctx)...)
	var answer *transport.Error
	if !errors.As(err, &answer) || !broken(err) || len(answer.Errors) != 1 || answer.Errors[0].Code != transport.UnknownErrorCode {
		return false
	}
	detail, ok := answer.Errors[0].Detail.(map[string]any)
	return ok && len(detail) == 0
}

// forbidden reports whether a registry has refused to say. Some do so of a repository
// that does not exist yet; whether one may push there, an upload shows.
func forbidden(err error) bool { return status(err) == http.StatusForbidden }

// spoken reports whether an error is that of a connection or of a registry, and not
// of an answer that was not what was asked for.
func spoken(err error) bool {
	var network *url.Error
	return status(err) != 0 || errors.As(err, &network)
}
