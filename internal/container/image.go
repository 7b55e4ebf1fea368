package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	oci "github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/registry"
)

// Open returns the images of platforms from an OCI layout, in a folder or in a tar, or
// from a registry reference, for which the keychain has the credentials.
func Open(ctx context.Context, source string, keychain authn.Keychain, platforms ...v1.Platform) (images []v1.Image, err error) {
	opened, err := registry.OpenImage(ctx, source, keychain)
	if err == nil && opened.Files != nil && opened.Files.Saved != nil {
		err = errors.Join(errors.New("a docker archive has no manifest: name an OCI layout"), opened.Files.Close())
	}
	for _, p := range platforms {
		var img v1.Image
		if err == nil {
			img, err = oci.ForPlatform(ctx, opened, opened.Entries, p)
		}
		images = append(images, img)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return images, nil
}
