package container

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Open returns the image of a platform from an OCI layout directory or a registry reference.
func Open(ctx context.Context, source string, p v1.Platform) (v1.Image, error) {
	img, err := open(ctx, source, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return img, nil
}

func open(ctx context.Context, source string, p v1.Platform) (v1.Image, error) {
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		idx, err := layout.ImageIndexFromPath(source)
		if err == nil {
			_, err = idx.IndexManifest()
		}
		if err != nil {
			return nil, fmt.Errorf("not an OCI layout: %w", err)
		}
		return pick(idx, p)
	}
	if strings.HasPrefix(source, ".") || filepath.IsAbs(source) {
		return nil, errors.New("no such directory; give an OCI layout or a registry reference")
	}
	ref, err := name.ParseReference(source)
	if err != nil {
		return nil, fmt.Errorf("neither a directory nor a reference: %w", err)
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	var te *transport.Error
	switch {
	case errors.As(err, &te) && te.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("no such reference in %s", ref.Context().RegistryStr())
	case errors.As(err, &te) && (te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden):
		return nil, fmt.Errorf("no such reference, or no permission to read it: log in to %s with docker login: %w", ref.Context().RegistryStr(), err)
	case err != nil:
		return nil, err
	case desc.MediaType.IsIndex():
		idx, err := desc.ImageIndex()
		if err != nil {
			return nil, err
		}
		return pick(idx, p)
	}
	img, err := desc.Image()
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	if got := *cfg.Platform(); !same(got, p) {
		return nil, fmt.Errorf("image is for %s, not for %s", got, p)
	}
	return img, nil
}

// pick returns the image of a platform from an index, or from the indexes in it.
func pick(idx v1.ImageIndex, p v1.Platform) (v1.Image, error) {
	var have []string
	img, err := find(idx, p, &have)
	if err == nil && img == nil {
		err = fmt.Errorf("has no image for %s, only for %s", p, strings.Join(have, ", "))
	}
	return img, err
}

func find(idx v1.ImageIndex, p v1.Platform, have *[]string) (v1.Image, error) {
	man, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range man.Manifests {
		switch {
		case d.MediaType.IsIndex():
			sub, err := idx.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			if img, err := find(sub, p, have); img != nil || err != nil {
				return img, err
			}
		case d.MediaType.IsImage():
			got := d.Platform
			if got == nil { // a layout of one image may leave it to the config
				img, err := idx.Image(d.Digest)
				if err != nil {
					return nil, err
				}
				cfg, err := img.ConfigFile()
				if err != nil {
					return nil, err
				}
				got = cfg.Platform()
			}
			if same(*got, p) {
				return idx.Image(d.Digest)
			}
			if got.OS != "unknown" { // attestations call themselves so
				*have = append(*have, got.String())
			}
		}
	}
	return nil, nil
}

// same compares platforms. Variant v8 of arm64 is the only one and may be left out.
func same(a, b v1.Platform) bool {
	variant := func(p v1.Platform) string {
		if p.Architecture == "arm64" && p.Variant == "v8" {
			return ""
		}
		return p.Variant
	}
	return a.OS == b.OS && a.Architecture == b.Architecture && variant(a) == variant(b)
}
