package registry

import (
	"context"
	"errors"
	"net/http"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// TestDetach guards against an artifact that readers still find after it was removed, or
// others that they no longer find; and against a removal that is said to have worked where
// the registry keeps everything.
func TestDetach(t *testing.T) {
	ctx := context.Background()
	deletes := func(q registrytest.Request) bool { return q.Method == http.MethodDelete }
	for name, test := range map[string]struct {
		registry *registrytest.Registry
		refuse   registrytest.Fault
		want     error
	}{
		"distribution, which has no API":         {registrytest.Distribution(t, registrytest.Options{Username: "ann", Password: password}), "", nil},
		"distribution, which does not delete":    {registrytest.Distribution(t, registrytest.Options{}), registrytest.Unauthorized, nil},
		"memory with the API":                    {registrytest.Memory(t, registrytest.Options{Username: "ann", Password: password, Tokens: 60}), "", nil},
		"memory without":                         {registrytest.Memory(t, registrytest.Options{NoReferrers: true}), "", nil},
		"memory with the API, which keeps it":    {registrytest.Memory(t, registrytest.Options{}), registrytest.Unauthorized, ErrKept},
		"memory with the API, which breaks down": {registrytest.Memory(t, registrytest.Options{}), registrytest.Status500, errAny},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := registrytest.NewProxy(t, test.registry)
			c := newClient(nil, proxy.Registry)
			p := planFor(t, registrytest.NewRelease(t, "v1.102.3", 1000), proxy.Repository("derper"))
			push(t, c, p)
			repo, err := c.Open(ctx, proxy.Repository("derper"), Push)
			if err != nil {
				t.Fatal(err)
			}
			index := p.Images[0].manifests[len(p.Images[0].manifests)-1]
			subject := v1.Descriptor{MediaType: index.mediaType, Digest: index.digest, Size: int64(len(index.raw))}
			var digests []v1.Hash
			for _, content := range []string{`{"a":1}`, `{"a":2}`} {
				d, err := repo.Attach(ctx, artifact(t, subject, "application/vnd.test.vex", content))
				if err != nil {
					t.Fatal(err)
				}
				digests = append(digests, d)
			}
			if test.refuse != "" {
				proxy.Refuse(test.refuse, deletes)
			}
			err = repo.Detach(ctx, subject.Digest, digests[0])
			if test.want == errAny && (err == nil || errors.Is(err, ErrKept)) || test.want != errAny && !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			left := 1
			if test.want != nil {
				left = 2
			}
			list, err := newRepository(t, proxy.Registry).Artifacts(ctx, subject.Digest, ofType(""))
			if err != nil || len(list) != left || left == 1 && list[0].Digest != digests[1] {
				t.Errorf("there are %d, want %d: %v", len(list), left, err)
			}
			// The image is where it was, and so are its tags.
			for _, tag := range p.Images[0].Tags {
				if got := at(t, proxy.Registry, "derper", tag.Name); got != subject.Digest.String() {
					t.Errorf("tag %s is at %s", tag.Name, got)
				}
			}
			if test.want != nil {
				return
			}
			proxy.Refuse("", nil)
			if err := repo.Detach(ctx, subject.Digest, digests[0]); err != nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

// errAny is any error but ErrKept.
var errAny = errors.New("any")
