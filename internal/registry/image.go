package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
)

// ErrUnreachable says that a registry gave no answer.
var ErrUnreachable = errors.New("registry cannot be reached")

// An Image is an image or an index to be read, in files or in a registry. The errors of a
// registry are explained; see [Explain].
type Image struct {
	image.Store
	// Entries are what a layout has, or the one that a reference names.
	Entries []v1.Descriptor
	// Files are the layout or the archive, nil for a reference.
	Files *image.Opened
	// Repository is that of a reference, and Tag is set when a tag names it, which may move.
	Repository *Repository
	Tag        bool
}

// OpenImage opens the folder of a layout, an archive, or a reference, for which the keychain
// has the credentials; [IsPath] says which of them source is. A tag is asked for once.
func OpenImage(ctx context.Context, source string, keychain authn.Keychain) (*Image, error) {
	if IsPath(source) {
		opened, err := image.Open(source)
		if _, gone := os.Stat(source); errors.Is(gone, fs.ErrNotExist) {
			return nil, fmt.Errorf("no such file or folder: %w", image.ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		return &Image{Store: opened, Entries: opened.Entries, Files: opened}, nil
	}
	if err := CheckReference(source); err != nil {
		return nil, err
	}
	_, identifier, err := Split(source)
	if err != nil {
		return nil, fmt.Errorf("neither a file, nor a folder, nor a reference: %w: %w", image.ErrNotFound, err)
	}
	var top v1.Descriptor
	r, err := (&Client{Keychain: keychain}).Open(ctx, source, Pull)
	if err == nil {
		top, err = r.Resolve(ctx)
	}
	if err != nil {
		return nil, Explain(ctx, err)
	}
	return &Image{Store: explained{r}, Entries: []v1.Descriptor{top}, Repository: r, Tag: !strings.Contains(identifier, ":")}, nil
}

// explained is a repository as an [image.Store].
type explained struct{ *Repository }

func (r explained) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	data, err := r.Repository.Manifest(ctx, digest)
	return data, Explain(ctx, err)
}

func (r explained) Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error) {
	rc, err := r.Repository.Blob(ctx, digest)
	return rc, Explain(ctx, err)
}

// Explain says what an error of a registry means to who reads an image there: it is
// [image.ErrNotFound] or [ErrUnreachable], where it means that.
func Explain(ctx context.Context, err error) error {
	host := HostOf(err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case NotFound(err):
		return fmt.Errorf("%w in %s: %w", image.ErrNotFound, host, err)
	case Denied(err):
		return fmt.Errorf("%w in %s, or no permission to read it (docker login %s): %w", image.ErrNotFound, host, host, err)
	case Unreachable(err):
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, host, err)
	}
	return err
}
