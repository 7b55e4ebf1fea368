package registry

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// artifact is one of a type, with a layer, about a subject.
func artifact(t testing.TB, subject v1.Descriptor, kind, content string) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType(kind))
	img, err := mutate.AppendLayers(img, static.NewLayer([]byte(content), "application/json"))
	if err != nil {
		t.Fatal(err)
	}
	return mutate.Subject(img, subject).(v1.Image)
}

// ofType matches the artifacts of a type, or all.
func ofType(kind string) func(*v1.Manifest) bool {
	return func(m *v1.Manifest) bool { return kind == "" || string(m.Config.MediaType) == kind }
}

// TestAttach guards attestations and signatures: listed by the registry that has the
// referrers API and through the tag where not, found by type, read back whole, and
// the same when attached again.
func TestAttach(t *testing.T) {
	ctx := context.Background()
	for name, r := range map[string]*registrytest.Registry{
		"distribution, which has no API": registrytest.Distribution(t, registrytest.Options{Username: "ann", Password: password}),
		"memory with the API":            registrytest.Memory(t, registrytest.Options{Username: "ann", Password: password, Tokens: 40}),
		"memory without":                 registrytest.Memory(t, registrytest.Options{NoReferrers: true}),
	} {
		t.Run(name, func(t *testing.T) {
			release := registrytest.NewRelease(t, "v1.102.3", 1000)
			c := newClient(nil, r)
			p := planFor(t, release, r.Repository("derper"))
			push(t, c, p)
			repo, err := c.Open(ctx, r.Repository("derper"), Push)
			if err != nil {
				t.Fatal(err)
			}
			index := p.Images[0].manifests[len(p.Images[0].manifests)-1]
			subject := v1.Descriptor{MediaType: index.mediaType, Digest: index.digest, Size: int64(len(index.raw))}
			if list, err := repo.Artifacts(ctx, subject.Digest, ofType("")); err != nil || len(list) != 0 {
				t.Fatalf("before: %v, %v", list, err)
			}
			var first v1.Hash
			for _, a := range []v1.Image{
				artifact(t, subject, "application/vnd.test.sbom", `{"a":1}`),
				artifact(t, subject, "application/vnd.test.sbom", `{"a":2}`),
				artifact(t, subject, "application/vnd.test.signature", `{"b":1}`),
			} {
				d, err := repo.Attach(ctx, a)
				if err != nil {
					t.Fatal(err)
				}
				if first == (v1.Hash{}) {
					first = d
				}
			}
			r.Forget()
			if _, err := repo.Attach(ctx, artifact(t, subject, "application/vnd.test.sbom", `{"a":1}`)); err != nil {
				t.Fatal(err)
			}
			for _, q := range r.Requests() {
				if q.Method != http.MethodGet && q.Method != http.MethodHead {
					t.Errorf("attached again: %s", q)
				}
			}
			for kind, want := range map[string]int{"": 3, "application/vnd.test.sbom": 2, "application/vnd.test.signature": 1, "application/other": 0} {
				list, err := newRepository(t, r).Artifacts(ctx, subject.Digest, ofType(kind))
				if err != nil || len(list) != want {
					t.Errorf("referrers of type %q: %d, want %d (%v)", kind, len(list), want, err)
				}
			}
			all, err := repo.Artifacts(ctx, subject.Digest, ofType(""))
			i := slices.IndexFunc(all, func(a *Artifact) bool { return a.Digest == first })
			if err != nil || i < 0 || len(all[i].Layers) != 1 || string(all[i].Layers[0]) != `{"a":1}` || all[i].Manifest.Subject.Digest != subject.Digest {
				t.Errorf("fetched %+v, %v", all, err)
			}
			// The tags of the release are where they were.
			for _, tag := range p.Images[0].Tags {
				if got := at(t, r, "derper", tag.Name); got != subject.Digest.String() {
					t.Errorf("tag %s is at %s", tag.Name, got)
				}
			}
			// Others find them too.
			others, err := remote.Referrers(repo.digest(subject.Digest), repo.options(ctx)...)
			if err != nil {
				t.Fatal(err)
			}
			if list, err := others.IndexManifest(); err != nil || len(list.Manifests) != 3 {
				t.Errorf("go-containerregistry finds %v, %v", list, err)
			}
		})
	}
}

func newRepository(t testing.TB, r *registrytest.Registry) *Repository {
	t.Helper()
	repo, err := newClient(r.Transport, r).Open(context.Background(), r.Repository("derper"), Pull)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// TestAttachAfterKill guards a run that was killed after it had put the manifest and
// before the list had it: attaching again brings it on the list.
func TestAttachAfterKill(t *testing.T) {
	ctx := context.Background()
	r := registrytest.Distribution(t, registrytest.Options{})
	release := registrytest.NewRelease(t, "v1.102.3", 1000)
	p := planFor(t, release, registrytest.NewProxy(t, r).Repository("derper"))
	push(t, newClient(nil), p)
	index := p.Images[0].manifests[len(p.Images[0].manifests)-1]
	a := artifact(t, v1.Descriptor{MediaType: index.mediaType, Digest: index.digest, Size: int64(len(index.raw))}, "application/vnd.test.sbom", `{}`)

	proxy := registrytest.NewProxy(t, r)
	proxy.Refuse(registrytest.Reset, func(q registrytest.Request) bool {
		return q.Method == http.MethodPut && strings.Contains(q.Path, "/manifests/sha256-")
	})
	repo, err := newClient(nil).Open(ctx, proxy.Repository("derper"), Push)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := repo.Attach(ctx, a)
	if err == nil {
		t.Fatal("the list could not be written, and it is said to have worked")
	}
	if _, err := repo.read(ctx, repo.digest(digest)); err != nil {
		t.Fatalf("the manifest is not there, so the test tests nothing: %v", err)
	}
	proxy.Refuse("", nil)
	if _, err := repo.Attach(ctx, a); err != nil {
		t.Fatal(err)
	}
	if list, err := repo.Artifacts(ctx, index.digest, ofType("application/vnd.test.sbom")); err != nil || len(list) != 1 {
		t.Errorf("referrers: %v, %v", list, err)
	}
}
