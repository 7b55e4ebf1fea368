package verify

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/registry"
)

// repository is a repository in a registry, with the errors of this package.
type repository struct{ *registry.Repository }

// openRegistry finds an image by tag or by digest. A tag is asked for once; all that
// follows is by digest.
func openRegistry(ctx context.Context, s string, keychain authn.Keychain) (*found, error) {
	_, identifier, err := registry.Split(s)
	if err != nil {
		return nil, fmt.Errorf("neither a file, nor a folder, nor a reference: %w: %w", image.ErrNotFound, err)
	}
	opened, err := (&registry.Client{Keychain: keychain}).Open(ctx, s, registry.Pull)
	if err != nil {
		return nil, explain(ctx, err)
	}
	r := &repository{opened}
	top, err := r.Resolve(ctx)
	if err != nil {
		return nil, explain(ctx, err)
	}
	f, err := read(ctx, r, v1.Descriptor{MediaType: top.MediaType, Digest: top.Digest})
	if err != nil {
		return nil, err
	}
	f.tag = !strings.Contains(identifier, ":")
	f.repository, f.top = r, top
	return f, nil
}

// Manifest and Blob make it an image.Store.
func (r *repository) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	data, err := r.Repository.Manifest(ctx, digest)
	return data, explain(ctx, err)
}

func (r *repository) Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error) {
	rc, err := r.Repository.Blob(ctx, digest)
	return rc, explain(ctx, err)
}

// explain says what an error of a registry means.
func explain(ctx context.Context, err error) error {
	host := registry.HostOf(err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case registry.NotFound(err):
		return fmt.Errorf("%w in %s: %w", image.ErrNotFound, host, err)
	case registry.Denied(err):
		return fmt.Errorf("%w in %s, or no permission to read it (docker login %s): %w", image.ErrNotFound, host, host, err)
	case registry.Unreachable(err):
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, host, err)
	}
	return err
}
