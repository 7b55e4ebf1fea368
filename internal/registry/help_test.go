package registry

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func asError[T error](err error, target *T) bool { return errors.As(err, target) }

// damage changes a byte of a layer in a release's layout.
func damage(t testing.TB, r *registrytest.Release) {
	t.Helper()
	name := filepath.Join(r.Dir, "blobs/sha256", strings.TrimPrefix(r.Lock.Output().Platforms[0].Layers[1].Digest, "sha256:"))
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// lose removes a layer of a release from Distribution's storage.
func lose(t testing.TB, dir string, r *registrytest.Release) {
	t.Helper()
	hex := strings.TrimPrefix(r.Lock.Output().Platforms[0].Layers[1].Digest, "sha256:")
	if err := os.RemoveAll(filepath.Join(dir, "docker/registry/v2/blobs/sha256", hex[:2], hex)); err != nil {
		t.Fatal(err)
	}
}
