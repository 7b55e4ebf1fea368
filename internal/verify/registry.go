package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/xavieralpha/derper/internal/image"
)

// repository is a repository in a registry.
type repository struct {
	name   name.Repository
	puller *remote.Puller
}

// openRegistry finds an image by tag or by digest. A tag is asked for once; all that
// follows is by digest.
func openRegistry(ctx context.Context, s string, keychain authn.Keychain) (*found, error) {
	ref, err := name.ParseReference(s)
	if err != nil {
		return nil, fmt.Errorf("neither a file, nor a folder, nor a reference: %w: %w", image.ErrNotFound, err)
	}
	puller, err := remote.NewPuller(remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain))
	if err != nil {
		return nil, err
	}
	r := &repository{ref.Context(), puller}
	top, err := puller.Head(ctx, ref)
	if err != nil {
		// Some registries answer no HEAD, and none says why it does not.
		got, err := puller.Get(ctx, ref)
		if err != nil {
			return nil, explain(ctx, r.name.RegistryStr(), err)
		}
		top = &got.Descriptor
	}
	f, err := read(ctx, r, v1.Descriptor{MediaType: top.MediaType, Digest: top.Digest})
	if err != nil {
		return nil, err
	}
	_, f.tag = ref.(name.Tag)
	f.repository, f.top = ref.Context().String(), *top
	return f, nil
}

func (r *repository) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	got, err := r.puller.Get(ctx, r.name.Digest(digest.String()))
	if err != nil {
		return nil, explain(ctx, r.name.RegistryStr(), err)
	}
	return image.ReadDocument(bytes.NewReader(got.Manifest), digest)
}

func (r *repository) Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error) {
	l, err := r.puller.Layer(ctx, r.name.Digest(digest.String()))
	if err != nil {
		return nil, explain(ctx, r.name.RegistryStr(), err)
	}
	content, err := l.Compressed()
	if err != nil {
		return nil, explain(ctx, r.name.RegistryStr(), err)
	}
	return content, nil
}

// explain says what an error of a registry means.
func explain(ctx context.Context, registry string, err error) error {
	var answer *transport.Error
	var request *url.Error
	var network net.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w in %s: %w", image.ErrNotFound, registry, err)
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return fmt.Errorf("%w in %s, or no permission to read it (docker login %s): %w", image.ErrNotFound, registry, registry, err)
	case errors.As(err, &answer) && answer.StatusCode >= 500, errors.As(err, &request), errors.As(err, &network):
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, registry, err)
	}
	return fmt.Errorf("%s: %w", registry, err)
}
