package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	oci "github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/registry"
)

// Open returns the images of platforms from an OCI layout, in a folder or in a tar, or
// from a registry reference, for which the keychain has the credentials.
func Open(ctx context.Context, source string, keychain authn.Keychain, platforms ...v1.Platform) (images []v1.Image, err error) {
	store, entries, err := open(ctx, source, keychain)
	for _, p := range platforms {
		var img v1.Image
		if err == nil {
			img, err = oci.ForPlatform(ctx, store, entries, p)
		}
		images = append(images, img)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return images, nil
}

func open(ctx context.Context, source string, keychain authn.Keychain) (oci.Store, []v1.Descriptor, error) {
	if _, err := os.Stat(source); err == nil {
		opened, err := oci.Open(source)
		if err == nil && opened.Saved != nil {
			err = errors.Join(errors.New("a docker archive has no manifest"), opened.Close())
		}
		if err != nil {
			return nil, nil, fmt.Errorf("not an OCI layout: %w", err)
		}
		return opened, opened.Entries, nil
	}
	if strings.HasPrefix(source, ".") || filepath.IsAbs(source) {
		return nil, nil, errors.New("no such directory; give an OCI layout or a registry reference")
	}
	if _, _, err := registry.Split(source); err != nil {
		return nil, nil, fmt.Errorf("neither a directory nor a reference: %w", err)
	}
	var top v1.Descriptor
	r, err := (&registry.Client{Keychain: keychain}).Open(ctx, source, registry.Pull)
	if err == nil {
		top, err = r.Resolve(ctx)
	}
	switch {
	case registry.NotFound(err):
		err = fmt.Errorf("no such reference in %s", registry.HostOf(err))
	case registry.Denied(err):
		err = fmt.Errorf("no such reference, or no permission to read it: log in to %s with docker login: %w", registry.HostOf(err), err)
	}
	return r, []v1.Descriptor{{MediaType: top.MediaType, Digest: top.Digest}}, err
}
