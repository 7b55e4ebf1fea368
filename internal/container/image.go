package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	oci "github.com/xavieralpha/derper/internal/image"
)

// Open returns the image of a platform from an OCI layout, in a folder or in a tar, or
// from a registry reference.
func Open(ctx context.Context, source string, p v1.Platform) (v1.Image, error) {
	img, err := open(ctx, source, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return img, nil
}

func open(ctx context.Context, source string, p v1.Platform) (v1.Image, error) {
	if _, err := os.Stat(source); err == nil {
		opened, err := oci.Open(source)
		if err == nil && opened.Saved != nil {
			err = errors.Join(errors.New("a docker archive has no manifest"), opened.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("not an OCI layout: %w", err)
		}
		return oci.ForPlatform(ctx, opened, opened.Entries, p)
	}
	if strings.HasPrefix(source, ".") || filepath.IsAbs(source) {
		return nil, errors.New("no such directory; give an OCI layout or a registry reference")
	}
	ref, err := name.ParseReference(source)
	if err != nil {
		return nil, fmt.Errorf("neither a directory nor a reference: %w", err)
	}
	puller, err := remote.NewPuller(remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return nil, err
	}
	desc, err := puller.Get(ctx, ref)
	var te *transport.Error
	switch {
	case errors.As(err, &te) && te.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("no such reference in %s", ref.Context().RegistryStr())
	case errors.As(err, &te) && (te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden):
		return nil, fmt.Errorf("no such reference, or no permission to read it: log in to %s with docker login: %w", ref.Context().RegistryStr(), err)
	case err != nil:
		return nil, err
	}
	top := v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest}
	return oci.ForPlatform(ctx, &repository{ref.Context(), puller}, []v1.Descriptor{top}, p)
}

// repository is a repository in a registry.
type repository struct {
	name   name.Repository
	puller *remote.Puller
}

func (r *repository) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	got, err := r.puller.Get(ctx, r.name.Digest(digest.String()))
	if err != nil {
		return nil, err
	}
	return oci.ReadDocument(bytes.NewReader(got.Manifest), digest)
}

func (r *repository) Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error) {
	l, err := r.puller.Layer(ctx, r.name.Digest(digest.String()))
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}
