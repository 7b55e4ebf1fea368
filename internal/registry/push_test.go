package registry

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/testing/registrytest"

	"github.com/xavieralpha/derper/internal/lock"
)

// hasty is the patience of tests: many attempts, no time.
var hasty = Patience{Attempts: 4, Backoff: time.Millisecond, Stall: time.Minute, RetryAfter: time.Second}

// password is one that no output may have.
const password = "correct-horse/battery+staple"

func newClient(base http.RoundTripper, registries ...*registrytest.Registry) *Client {
	return &Client{Keychain: registrytest.Keychain(registries...), Patience: hasty, Base: base}
}

// planFor is a push of a release with the tags of its channel.
func planFor(t testing.TB, r *registrytest.Release, repositories ...string) Plan {
	t.Helper()
	release, err := Read(r.Dir, r.Lock)
	if err != nil {
		t.Fatal(err)
	}
	v := r.Lock.Inputs.ImageVersion()
	release.Tags = Tags(v, "", lock.ChannelOf(v.Tailscale))
	return Plan{Images: []*Content{release}, Repositories: repositories}
}

// push pushes and must work.
func push(t testing.TB, c *Client, p Plan) *Pushed {
	t.Helper()
	report, err := c.Push(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// at is the digest that a tag points at, "" for none, read past this package.
func at(t testing.TB, r *registrytest.Registry, repository, tag string) string {
	t.Helper()
	ref, err := name.ParseReference(r.Repository(repository) + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Head(ref, remote.WithTransport(r.Transport), remote.WithAuthFromKeychain(registrytest.Keychain(r)))
	if NotFound(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest.String()
}

// whole checks a pushed release with go-containerregistry's own eyes.
func whole(t testing.TB, r *registrytest.Registry, repository, digest string) {
	t.Helper()
	ref, err := name.NewDigest(r.Repository(repository) + "@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref, remote.WithTransport(r.Transport), remote.WithAuthFromKeychain(registrytest.Keychain(r)))
	if err == nil {
		err = validate.Index(index)
	}
	if err != nil {
		t.Fatalf("%s: %v", ref, err)
	}
}

func uploads(requests []registrytest.Request) (n int) {
	for _, q := range requests {
		if q.Uploads() {
			n++
		}
	}
	return n
}

// TestPush guards the way from a layout to two registries at once, of each kind: what
// arrives is whole, the tags are those of the channel, and a second push uploads
// nothing and asks little.
func TestPush(t *testing.T) {
	basic := registrytest.Options{Username: "ann", Password: password}
	tls := registrytest.Options{Username: "ann", Password: password, TLS: true}
	// Each token lasts for more requests than are made at a time.
	tokens := registrytest.Options{Username: "ann", Password: password, Tokens: 40}
	for _, test := range []struct {
		name string
		a, b *registrytest.Registry
	}{
		{"docker and memory", registrytest.Distribution(t, basic), registrytest.Memory(t, basic)},
		{"docker with TLS", registrytest.Distribution(t, tls), nil},
		{"memory with tokens that expire", registrytest.Memory(t, tokens), registrytest.Distribution(t, registrytest.Options{})},
	} {
		t.Run(test.name, func(t *testing.T) {
			release := registrytest.NewRelease(t, "v1.102.3", 50_000)
			registries := []*registrytest.Registry{test.a}
			if test.b != nil {
				registries = append(registries, test.b)
			}
			c := newClient(test.a.Transport, registries...)
			var names []string
			for _, r := range registries {
				names = append(names, r.Repository("me/derper"))
			}
			p := planFor(t, release, names...)
			report := push(t, c, p)
			for i, r := range registries {
				whole(t, r, "me/derper", release.Lock.Output().Index)
				for _, tag := range []string{"latest", "1.102", "v1.102.3", "1.102.3", "1.102.3-r0"} {
					if got := at(t, r, "me/derper", tag); got != release.Lock.Output().Index {
						t.Errorf("%s: tag %s is at %q, want %s", r.Host, tag, got, release.Lock.Output().Index)
					}
				}
				// Ten blobs: a layer that both platforms share, two of their own, two
				// configs, SBOM and provenance of each, the config that those share.
				if m := report.Repositories[i].Missing; m == nil || m.Blobs != 10 || m.Manifests != 5 {
					t.Errorf("report says %+v was missing", m)
				}
				r.Forget()
			}

			push(t, newClient(test.a.Transport, registries...), p)
			for _, r := range registries {
				requests := r.Requests()
				if n := uploads(requests); n > 0 {
					t.Errorf("%s: second push uploads: %v", r.Host, requests)
				}
				heads := 0
				for _, q := range requests {
					if q.Method == http.MethodHead && q.Status == http.StatusOK {
						heads++
					} else if q.Method != http.MethodGet || !strings.HasPrefix(q.Path, "/v2/") && !strings.HasPrefix(q.Path, "/token") || strings.Contains(q.Path, "/manifests/") {
						t.Errorf("%s: second push: %s", r.Host, q)
					}
				}
				t.Logf("%s: second push: %d HEAD of %d requests, 0 uploads", r.Host, heads, len(requests))
				if heads != len(p.Images[0].Tags) || len(requests) > heads+3 {
					t.Errorf("%s: second push makes %d requests: %v", r.Host, len(requests), requests)
				}
				r.Forget()
			}

			// With Verify everything is looked over, and still nothing uploaded.
			p.Verify = true
			push(t, c, p)
			for _, r := range registries {
				if n := uploads(r.Requests()); n > 0 {
					t.Errorf("%s: push with Verify uploads: %v", r.Host, r.Requests())
				}
				blobs := 0
				for _, q := range r.Requests() {
					if q.Method == http.MethodHead && q.Status == http.StatusOK && strings.Contains(q.Path, "/blobs/") {
						blobs++
					}
				}
				if blobs != 10 {
					t.Errorf("%s: Verify looks at %d blobs, want 10", r.Host, blobs)
				}
			}
		})
	}
}

// TestNextRelease guards which tags go on to a new release: those of the old version
// stay, and the layer that both share is not sent again.
func TestNextRelease(t *testing.T) {
	r := registrytest.Distribution(t, registrytest.Options{})
	c := newClient(nil, r)
	name := r.Repository("derper")
	one, two := registrytest.NewRelease(t, "v1.102.2", 1000), registrytest.NewRelease(t, "v1.102.3", 1000)
	odd := registrytest.NewRelease(t, "v1.103.7", 1000)
	for _, x := range []*registrytest.Release{one, odd} {
		push(t, c, planFor(t, x, name))
	}
	report := push(t, c, planFor(t, two, name))
	if m := report.Repositories[0].Missing; m.Blobs != 8 {
		t.Errorf("%d blobs uploaded, want 8: the shared layer is there, and the empty config", m.Blobs)
	}
	for tag, want := range map[string]*registrytest.Release{
		"latest": two, "1.102": two, "v1.102.3": two, "1.102.3": two, "1.102.3-r0": two, "v1.102.2": one, "1.102.2-r0": one,
		"unstable": odd, "v1.103.7": odd, "1.103.7": odd, "1.103.7-r0": odd,
	} {
		if got := at(t, r, "derper", tag); got != want.Lock.Output().Index {
			t.Errorf("tag %s is at %q, want %s", tag, got, want.Lock.Inputs.Tailscale.Version)
		}
	}
	if got := at(t, r, "derper", "1.103"); got != "" {
		t.Errorf("tag 1.103 is at %s: an unstable release has none", got)
	}
}

// TestTagsThatMayNotMove guards what others rely on: a revision's tag names one digest
// for ever, and latest does not go back. One registry that refuses keeps the tags of
// all where they are, and nothing is uploaded.
func TestTagsThatMayNotMove(t *testing.T) {
	a, b := registrytest.Distribution(t, registrytest.Options{}), registrytest.Memory(t, registrytest.Options{})
	c := newClient(nil, a, b)
	old, other := registrytest.NewRelease(t, "v1.102.3", 1000), registrytest.NewRelease(t, "v1.102.3", 1001)
	newer := registrytest.NewRelease(t, "v1.104.0", 1000)
	push(t, c, planFor(t, old, b.Repository("derper")))

	p := planFor(t, other, a.Repository("derper"), b.Repository("derper"))
	for _, p.Retag = range []bool{false, true} { // leave to go back is none to rename
		a.Forget()
		b.Forget()
		_, err := c.Push(context.Background(), p)
		var refused *TagError
		if !asError(err, &refused) || refused.Tag != "1.102.3-r0" || refused.From != old.Lock.Output().Index || refused.Repository != b.Repository("derper") {
			t.Fatalf("another digest of the same revision: %v", err)
		}
		if n := uploads(a.Requests()) + uploads(b.Requests()); n > 0 {
			t.Errorf("%d requests of uploads before it was refused", n)
		}
		if got := at(t, b, "derper", "latest"); got != old.Lock.Output().Index {
			t.Errorf("latest moved to %s", got)
		}
	}

	var err error
	var refused *TagError
	push(t, c, planFor(t, newer, a.Repository("derper"), b.Repository("derper")))
	_, err = c.Push(context.Background(), planFor(t, registrytest.NewRelease(t, "v1.102.9", 1000), a.Repository("derper")))
	if !asError(err, &refused) || refused.Tag != "latest" || refused.Version != "1.104.0-r0" {
		t.Fatalf("latest back to an older version: %v", err)
	}
	if got := at(t, a, "derper", "v1.102.9"); got != "" {
		t.Errorf("v1.102.9 is at %s although latest was refused", got)
	}
}

// TestRevisions guards the way of the tags over the revisions of one release: forward
// without leave, -r10 after -r9, and back only with it; a revision's own stays.
func TestRevisions(t *testing.T) {
	r := registrytest.Memory(t, registrytest.Options{})
	c := newClient(nil, r)
	index := map[string]string{}
	check := func(moving string) {
		t.Helper()
		for _, tag := range []string{"latest", "1.102", "1.102.3", "v1.102.3"} {
			if got := at(t, r, "derper", tag); got != index[moving] {
				t.Errorf("%s is at %s, not at that of %s", tag, got, moving)
			}
		}
		for v, want := range index {
			if got := at(t, r, "derper", strings.TrimPrefix(v, "v")); got != want {
				t.Errorf("%s is at %s, not %s", v, got, want)
			}
		}
	}
	for i, version := range []string{"v1.102.3-r0", "v1.102.3-r9", "v1.102.3-r10"} {
		release := registrytest.NewRelease(t, version, 1000+i)
		index[version] = release.Lock.Output().Index
		push(t, c, planFor(t, release, r.Repository("derper")))
		check(version)
	}
	back := planFor(t, registrytest.NewRelease(t, "v1.102.3-r9", 1001), r.Repository("derper"))
	var refused *TagError
	if _, err := c.Push(t.Context(), back); !asError(err, &refused) || !refused.Moves || refused.Version != "1.102.3-r10" {
		t.Errorf("back from -r10 to -r9: %v", err)
	}
	check("v1.102.3-r10")
	back.Retag = true
	push(t, c, back)
	check("v1.102.3-r9")
}

// TestTagsThatCannotBeRead guards the same while a registry does not say where its
// tags are: that is no leave to move them.
func TestTagsThatCannotBeRead(t *testing.T) {
	r := registrytest.Memory(t, registrytest.Options{})
	old, other := registrytest.NewRelease(t, "v1.102.3", 1000), registrytest.NewRelease(t, "v1.102.3", 1001)
	push(t, newClient(nil, r), planFor(t, old, r.Repository("derper")))
	proxy := registrytest.NewProxy(t, r)
	proxy.Refuse(registrytest.Status500, func(q registrytest.Request) bool {
		return q.Method != http.MethodPut && strings.Contains(q.Path, "/manifests/") && !strings.Contains(q.Path, "/manifests/sha256:")
	})
	if _, err := newClient(nil, proxy.Registry).Push(context.Background(), planFor(t, other, proxy.Repository("derper"))); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("pushed: %v", err)
	}
	for _, tag := range []string{"v1.102.3", "latest"} {
		if got := at(t, r, "derper", tag); got != old.Lock.Output().Index {
			t.Errorf("%s moved to %s", tag, got)
		}
	}
}

// TestDryRun guards that it says what is missing and what would move, and does
// nothing.
func TestDryRun(t *testing.T) {
	r := registrytest.Distribution(t, registrytest.Options{})
	c := newClient(nil, r)
	one, two := registrytest.NewRelease(t, "v1.102.2", 1000), registrytest.NewRelease(t, "v1.102.3", 1000)
	push(t, c, planFor(t, one, r.Repository("derper")))
	r.Forget()
	p := planFor(t, two, r.Repository("derper"))
	p.DryRun = true
	report := push(t, c, p)
	for _, q := range r.Requests() {
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			t.Errorf("dry run: %s", q)
		}
	}
	got := report.Repositories[0]
	if got.Missing.Blobs != 8 || got.Missing.Manifests != 5 || len(got.Missing.Digests) != 13 {
		t.Errorf("missing: %+v", got.Missing)
	}
	latest := got.Tags[slices.IndexFunc(got.Tags, func(x PushedTag) bool { return x.Tag == "latest" })]
	if want := (PushedTag{"latest", one.Lock.Output().Index, two.Lock.Output().Index, true}); latest != want {
		t.Errorf("latest: %+v, want %+v", latest, want)
	}
}

// TestMount guards that a registry's second repository gets its blobs from the first,
// over no line.
func TestMount(t *testing.T) {
	r := registrytest.Distribution(t, registrytest.Options{Username: "ann", Password: password})
	release := registrytest.NewRelease(t, "v1.102.3", 1000)
	p := planFor(t, release, r.Repository("one"), r.Repository("two"))
	push(t, newClient(nil, r), p)
	whole(t, r, "two", release.Lock.Output().Index)
	mounted, sent := 0, 0
	for _, q := range r.Requests() {
		if q.Method == http.MethodPost && strings.Contains(q.Path, "from=one") && q.Status == http.StatusCreated {
			mounted++
		}
		if q.Method == http.MethodPatch {
			sent++
		}
	}
	if mounted != 10 || sent != 10 {
		t.Errorf("%d blobs mounted, %d sent; want 10 and 10: %v", mounted, sent, r.Requests())
	}
}

// TestNewRepository guards the first push to a registry that says of a repository
// which does not exist that one may not look into it.
func TestNewRepository(t *testing.T) {
	r := registrytest.Distribution(t, registrytest.Options{})
	release := registrytest.NewRelease(t, "v1.102.3", 1000)
	var exists atomic.Bool
	var refused atomic.Bool
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil && resp.StatusCode == http.StatusNotFound && !exists.Load() {
			resp.StatusCode = http.StatusForbidden
			refused.Store(true)
		}
		if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
			exists.Store(true)
		}
		return resp, err
	})
	push(t, newClient(base, r), planFor(t, release, r.Repository("derper")))
	whole(t, r, "derper", release.Lock.Output().Index)
	if !refused.Load() {
		t.Error("nothing was refused: the test tested nothing")
	}
}

// TestDamagedLayout guards that what is not what its digest names is not uploaded
// whole, and that the layout is said to be at fault, not the registry.
func TestDamagedLayout(t *testing.T) {
	r := registrytest.Memory(t, registrytest.Options{})
	release := registrytest.NewRelease(t, "v1.102.3", 100_000)
	damage(t, release)
	_, err := newClient(nil, r).Push(context.Background(), planFor(t, release, r.Repository("derper")))
	if err == nil || !strings.Contains(err.Error(), "corrupt: the content has digest") {
		t.Errorf("damaged blob: %v", err)
	}
	for _, q := range r.Requests() {
		if q.Method == http.MethodPut && q.Status == http.StatusCreated && strings.Contains(q.Path, "/manifests/") {
			t.Errorf("damaged blob: %s", q)
		}
	}
}

// TestRepair guards that a registry which has lost a blob gets it again.
func TestRepair(t *testing.T) {
	dir := t.TempDir()
	r := registrytest.Distribution(t, registrytest.Options{Dir: dir})
	release := registrytest.NewRelease(t, "v1.102.3", 1000)
	p := planFor(t, release, r.Repository("derper"))
	push(t, newClient(nil, r), p)
	lose(t, dir, release)
	p.Verify = true
	report := push(t, newClient(nil, r), p)
	if got := report.Repositories[0].Missing.Blobs; got != 1 {
		t.Errorf("%d blobs missing, want 1", got)
	}
	whole(t, r, "derper", release.Lock.Output().Index)
}

// TestEmptyLinks guards that a push mends what Distribution leaves of a push that
// filled its disk: links, which say what a repository has, that are empty. Its answer
// to whoever asks for such a thing is 500.
func TestEmptyLinks(t *testing.T) {
	dir := t.TempDir()
	r := registrytest.Distribution(t, registrytest.Options{Dir: dir})
	release := registrytest.NewRelease(t, "v1.102.3", 1000, "linux/amd64")
	p := planFor(t, release, r.Repository("derper"))
	push(t, newClient(nil, r), p)
	repository := filepath.Join(dir, "docker/registry/v2/repositories/derper")
	index := release.Lock.Output().Index
	for what, links := range map[string]string{
		"of a tag":     "_manifests/tags/v1.102.3/current/link",
		"of all tags":  "_manifests/tags/*/current/link",
		"of the index": "_manifests/revisions/sha256/" + index[len("sha256:"):] + "/link",
		"of manifests": "_manifests/revisions/sha256/*/link",
		"of blobs":     "_layers/sha256/*/link",
	} {
		t.Run(what, func(t *testing.T) {
			found, err := filepath.Glob(filepath.Join(repository, links))
			if err != nil || len(found) == 0 {
				t.Fatalf("no link of Distribution is at %s: %v", links, err)
			}
			for _, link := range found {
				if err := os.Truncate(link, 0); err != nil {
					t.Fatal(err)
				}
			}
			p.Verify = true
			push(t, newClient(nil, r), p)
			whole(t, r, "derper", index)
			for _, tag := range p.Images[0].Tags {
				if got := at(t, r, "derper", tag.Name); got != index {
					t.Errorf("tag %s is at %q, want %s", tag.Name, got, index)
				}
			}
		})
	}
}
