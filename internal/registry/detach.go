package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
)

// ErrKept says that a registry still lists what was to be removed: it has the referrers API,
// and deletes nothing, or not for this user.
var ErrKept = errors.New("the registry does not remove it")

// Detach removes an artifact from the list of what refers to a subject. Where the list is the
// index under the tag sha256-<hex>, that is written without it, which needs no right to
// delete; then the manifest is deleted, where the registry allows that. The error is ErrKept
// if the list still has it. What is not on the list is left alone. As with [Repository.Attach],
// two must not do so at the same time.
func (r *Repository) Detach(ctx context.Context, subject, digest v1.Hash) error {
	err := r.detach(ctx, subject, digest)
	return r.client.failed(r, fmt.Sprintf("remove %s from %s", digest, subject), err)
}

func (r *Repository) detach(ctx context.Context, subject, digest v1.Hash) error {
	if listed, err := r.lists(ctx, subject, digest); err != nil || !listed {
		return err
	}
	if err := r.client.again(ctx, func() error { return r.unlist(ctx, subject, digest) }); err != nil {
		return err
	}
	refused := r.remove(ctx, digest)
	listed, err := r.lists(ctx, subject, digest)
	switch code := status(refused); {
	case err != nil || !listed:
		return err
	case refused == nil:
		return ErrKept
	case code >= 400 && code < 500, code == http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", ErrKept, refused)
	default:
		return refused
	}
}

// unlist removes a digest from the index under the subject's tag, if there is one.
// Source: OCI distribution specification, v1.1, referrers tag schema.
func (r *Repository) unlist(ctx context.Context, subject, digest v1.Hash) error {
	tag := r.name.Tag(subject.Algorithm + "-" + subject.Hex)
	m, err := r.read(ctx, tag)
	if NotFound(err) {
		return nil // the registry keeps the list
	}
	if err != nil {
		return err
	}
	index, err := image.ParseIndex(m.raw)
	if err != nil {
		return err
	}
	all := len(index.Manifests)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Digest == digest })
	if len(index.Manifests) == all {
		return nil
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return remote.Put(tag, &manifest{raw: raw, mediaType: types.OCIImageIndex}, r.options(ctx)...)
}

// remove deletes a manifest. Some registries want a right of its own for that, which is asked
// for only here: others may refuse to talk to who asks for it.
func (r *Repository) remove(ctx context.Context, digest v1.Hash) error {
	d := &Repository{reference: r.reference, client: r.client}
	if err := d.login(ctx, Rights(transport.DeleteScope), nil); err != nil {
		return err
	}
	return remote.Delete(d.digest(digest), d.options(ctx)...)
}
