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

// survey finds out what the repository lacks of what it is to have.
func (t *target) survey(ctx context.Context) (err error) {
	t.lacks = &content{}
	t.lacks.blobs, err = without(ctx, t.all.blobs, func(ctx context.Context, b blob) (bool, error) {
		has, err := t.hasBlob(ctx, b)
		if broken(err) || forbidden(err) {
			return false, nil
		}
		return has, err
	})
	if err != nil {
		return err
	}
	t.lacks.manifests, err = without(ctx, t.all.manifests, func(ctx context.Context, m *manifest) (bool, error) {
		found, err := t.head(ctx, t.digest(m.digest))
		_, network := errors.AsType[*url.Error](err)
		if broken(err) || forbidden(err) || err != nil && status(err) == 0 && !network && ctx.Err() == nil {
			return false, nil // what is under this digest is something else, or nothing
		}
		return found != nil, err
	})
	return err
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

// without is a list without those that are there already.
func without[T any](ctx context.Context, list []T, there func(context.Context, T) (bool, error)) (rest []T, err error) {
	have := make([]bool, len(list))
	err = each(ctx, list, func(ctx context.Context, i int, x T) (err error) {
		have[i], err = there(ctx, x)
		return err
	})
	for i, x := range list {
		if !have[i] {
			rest = append(rest, x)
		}
	}
	return rest, err
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
// manifests in their order. Blobs are mounted from the repository before it, where that
// has them. Then it reads everything back. Bytes are counted as they go.
func (t *target) upload(ctx context.Context, count func(int64)) error {
	err := each(ctx, t.lacks.blobs, func(ctx context.Context, _ int, b blob) error { return t.uploadBlob(ctx, b, count) })
	if err != nil {
		return err
	}
	for _, m := range t.lacks.manifests {
		// Some registries take anything under a digest.
		err := t.client.again(ctx, func() error {
			if err := t.put(ctx, t.digest(m.digest), m); err != nil {
				return err
			}
			return t.same(ctx, m)
		})
		if err != nil {
			return fmt.Errorf("manifest %s: %w", m.digest, err)
		}
	}
	return t.verify(ctx)
}

func (t *target) uploadBlob(ctx context.Context, b blob, count func(int64)) error {
	here := &counted{blob: b, count: count, open: func() (io.ReadCloser, error) { return b.store.Blob(ctx, b.digest) }}
	layer, err := partial.CompressedToLayer(here)
	if err != nil {
		return err
	}
	if t.from != nil {
		layer = &remote.MountableLayer{Layer: layer, Reference: t.from.digest(b.digest)}
	}
	first := true
	err = t.client.again(ctx, func() error {
		if !first {
			// The answer that was lost may have been that it has it.
			if has, err := t.hasBlob(ctx, b); err == nil && has {
				return nil
			}
		}
		first = false
		err := remote.WriteLayer(t.name, layer, t.options(lacking(ctx))...)
		if failed := here.failed.Load(); err != nil && failed != nil {
			return *failed // the failure of a connection over it tells less
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("blob %s: %w", b.digest, err)
	}
	count(b.size - here.read.Load()) // mounted, or there by now
	return nil
}

// verify reads back what was written, and the manifests of everything. The sizes of
// blobs that were there already have been looked at when they were found.
func (t *target) verify(ctx context.Context) error {
	err := each(ctx, t.all.manifests, func(ctx context.Context, _ int, m *manifest) error {
		if slices.Contains(t.lacks.manifests, m) {
			return nil // it was, at once
		}
		if err := t.client.again(ctx, func() error { return t.same(ctx, m) }); err != nil {
			return fmt.Errorf("verify manifest %s: %w", m.digest, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return each(ctx, t.lacks.blobs, func(ctx context.Context, _ int, b blob) error {
		return t.client.again(ctx, func() error {
			has, err := t.hasBlob(ctx, b)
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
		return err
	})
	if NotFound(err) {
		return nil, nil
	}
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
// what it has. Docker's registry does so of a link that is empty: before version 3, a full
// disk leaves such links. Writing it again is what helps.
func broken(err error) bool { return status(err) == http.StatusInternalServerError }

// emptyLink reports whether the answer to whoever asks for a manifest is that of
// Docker's registry for a link that is empty, and not for a fault that may pass: an
// error without code whose detail is, from version 3 on, that of what is no digest.
// Before, it was an empty object.
// Source: github.com/distribution/distribution, registry/storage/linkedblobstore.go,
// where reading the link gives digest.ErrDigestInvalidFormat.
func (r *Repository) emptyLink(ctx context.Context, ref name.Reference) bool {
	_, err := remote.Get(ref, r.options(ctx)...)
	answer, ok := errors.AsType[*transport.Error](err)
	if !ok || !broken(err) || len(answer.Errors) != 1 || answer.Errors[0].Code != transport.UnknownErrorCode {
		return false
	}
	switch detail := answer.Errors[0].Detail.(type) {
	case map[string]any:
		return len(detail) == 0
	case string:
		return detail == "invalid checksum digest format"
	}
	return false
}

// forbidden reports whether a registry has refused to say. Some do so of a repository
// that does not exist yet; whether one may push there, an upload shows.
func forbidden(err error) bool { return status(err) == http.StatusForbidden }
