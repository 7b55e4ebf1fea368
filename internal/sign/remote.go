package sign

import (
	"context"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/registry"
)

// Bundles lists the Sigstore bundles that refer to a digest in a repository, sorted by
// the digest of their manifest.
func Bundles(ctx context.Context, r *registry.Repository, subject v1.Hash) ([][]byte, error) {
	list, err := r.Artifacts(ctx, subject, isBundle)
	if err != nil {
		return nil, err
	}
	var bundles [][]byte
	for _, a := range list {
		bundles = append(bundles, a.Layers[0])
	}
	return bundles, nil
}

// isBundle reports whether an artifact is a Sigstore bundle, as cosign recognises it.
func isBundle(m *v1.Manifest) bool {
	return len(m.Layers) == 1 && strings.HasPrefix(string(m.Layers[0].MediaType), "application/vnd.dev.sigstore.bundle")
}
