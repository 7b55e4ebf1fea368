package registrytest

import (
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// TestRegistries guards that each kind of registry takes an image, with every
// option, and nobody without the password.
func TestRegistries(t *testing.T) {
	kinds := map[string]func(testing.TB, Options) *Registry{"distribution": Distribution, "memory": Memory}
	for name, start := range kinds {
		for _, o := range []Options{{}, {Username: "ann", Password: "secret"}, {TLS: true}, {Username: "ann", Password: "secret", TLS: true}} {
			r := start(t, o)
			img, err := random.Image(100, 1)
			if err != nil {
				t.Fatal(err)
			}
			ref := r.Repository("a/b") + ":tag"
			if err := crane.Push(img, ref, crane.WithTransport(r.Transport), crane.WithAuthFromKeychain(Keychain(r))); err != nil {
				t.Errorf("%s %+v: %v", name, o, err)
			}
			uploads := 0
			for _, q := range r.Requests() {
				if q.Uploads() && q.Method == http.MethodPut {
					uploads++
				}
			}
			if uploads != 2 {
				t.Errorf("%s %+v: the log has %d blobs, want 2: %v", name, o, uploads, r.Requests())
			}
			if o.Username != "" {
				if err := crane.Push(img, ref, crane.WithTransport(r.Transport)); err == nil {
					t.Errorf("%s %+v: took an image without password", name, o)
				}
			}
		}
	}
}
