package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/redact"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// oldIndex is what the moving tags point at before a push.
const oldIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"org.opencontainers.image.version":"1.102.2"}}`

// oldTags are the tags that are there before a push; those of the version are new.
var oldTags = []string{"latest", "1.102"}

// rig is two registries, each behind a proxy, with an old release under the tags that
// move.
type rig struct {
	registries [2]*registrytest.Registry
	proxies    [2]*registrytest.Proxy
	direct     [2]*Repository // past the proxies
	repository string
	plan       Plan
	oldDigest  string
	fixed      bool // a tag cannot be removed from the first registry
	full       bool // nor be put back: its disk is full
	output     bytes.Buffer
}

func newRig(t testing.TB, release *registrytest.Release, repository string, a, b *registrytest.Registry) *rig {
	r := &rig{registries: [2]*registrytest.Registry{a, b}, repository: repository}
	var names []string
	for i, reg := range r.registries {
		r.proxies[i] = registrytest.NewProxy(t, reg)
		names = append(names, r.proxies[i].Repository(repository))
		c := newClient(reg.Transport, reg)
		var err error
		if r.direct[i], err = c.Open(context.Background(), reg.Repository(repository), Push); err != nil {
			t.Fatal(err)
		}
		for _, tag := range oldTags {
			m := &manifest{raw: []byte(oldIndex), mediaType: "application/vnd.oci.image.index.v1+json"}
			if err := r.direct[i].put(context.Background(), r.direct[i].name.Tag(tag), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.plan = planFor(t, release, names...)
	r.oldDigest = r.at(t, 0, "latest")
	return r
}

// at is where a tag of one of the registries is.
func (r *rig) at(t testing.TB, side int, tag string) string {
	t.Helper()
	d, err := r.direct[side].head(context.Background(), r.direct[side].name.Tag(tag))
	if broken(err) {
		return "broken"
	}
	if err != nil {
		t.Fatal(err)
	}
	if d == nil {
		return ""
	}
	return d.Digest.String()
}

// push pushes through the proxies; what it says is kept.
func (r *rig) push(p Patience) (*Pushed, error) {
	c := &Client{Keychain: registrytest.Keychain(r.proxies[0].Registry, r.proxies[1].Registry), Patience: p, Display: progress.New(&r.output)}
	defer c.Display.Close()
	report, err := c.Push(context.Background(), r.plan)
	fmt.Fprintf(&r.output, "%v\n", err)
	return report, err
}

// judge is the verdict after a fault: the push has completed, or no tag moved, save
// those that the error names: of a registry that nobody can reach any more, new tags
// of versions where a registry cannot remove tags, and tags for which a registry has no
// space left to put them back.
func (r *rig) judge(t *testing.T, err error) (exceptions int) {
	t.Helper()
	var half *MoveError
	asError(err, &half)
	for i := range r.registries {
		for _, tag := range r.plan.Images[0].Tags {
			got, want := r.at(t, i, tag.Name), ""
			old := slices.Contains(oldTags, tag.Name)
			if old {
				want = r.oldDigest
			}
			if err == nil {
				want = r.plan.Images[0].Digest.String()
			}
			if got == want {
				continue
			}
			full := r.proxies[i].Repository(r.repository) + ":" + tag.Name
			docker := r.fixed && i == 0
			unknown := half != nil && slices.Contains(half.Unknown, full)
			moved := half != nil && slices.Contains(half.Moved, full) && docker && (!old || r.full)
			if got != r.plan.Images[0].Digest.String() || !unknown && !moved {
				t.Errorf("%s is at %q, want %q; the push said: %v", full, got, want, err)
			}
			exceptions++
		}
	}
	// Whatever a tag names is whole.
	for i := range r.registries {
		names := func(tag Tag) bool { return r.at(t, i, tag.Name) == r.plan.Images[0].Digest.String() }
		if err != nil && !slices.ContainsFunc(r.plan.Images[0].Tags, names) {
			continue
		}
		index, err := remote.Index(r.direct[i].digest(r.plan.Images[0].Digest), r.direct[i].options(context.Background())...)
		if err == nil {
			err = validate.Index(index)
		}
		if err != nil {
			t.Errorf("%s is not whole: %v", r.direct[i], err)
		}
	}
	return exceptions
}

// silent checks that nothing that was said has a secret in it.
func (r *rig) silent(t *testing.T) {
	t.Helper()
	for _, secret := range secretsOf(r.registries[:]...) {
		if strings.Contains(r.output.String(), secret) {
			t.Errorf("a secret is in the output: %q\n%s", secret, &r.output)
		}
	}
}

func secretsOf(registries ...*registrytest.Registry) []string {
	list := []string{password, base64.StdEncoding.EncodeToString([]byte("ann:" + password)), base64.StdEncoding.EncodeToString([]byte(password)), "correct-horse"}
	for _, r := range registries {
		list = append(list, r.Tokens()...)
	}
	return list
}

// dies is a fault that no request comes back from.
const dies = "dies for good"

// impatient gives up a hanging request soon.
var impatient = Patience{Attempts: 4, Backoff: time.Millisecond, Stall: 500 * time.Millisecond, RetryAfter: time.Second}

// tally counts what the fault tests did.
type tally struct {
	tried, completed, refused, window atomic.Int64

	mu    sync.Mutex
	kinds map[string]int
}

func (c *tally) hit(f registrytest.Fault, q *registrytest.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds == nil {
		c.kinds = map[string]int{}
	}
	what := "blob"
	for _, part := range []string{"/manifests/sha256:", "/manifests/", "/uploads/", "/token"} {
		if strings.Contains(q.Path, part) {
			what = strings.Trim(part, "/")
			break
		}
	}
	if q.Path == "/v2/" {
		what = "ping"
	}
	c.kinds[q.Method+" "+what]++
}

// try pushes once with a fault at request n of one of the registries, judges, and
// pushes again.
func (c *tally) try(t *testing.T, r *rig, side, n int, f registrytest.Fault) {
	t.Helper()
	fault, always := f, false
	if f == dies {
		fault, always = registrytest.Reset, true
	}
	r.proxies[side].Arm(n, fault, always)
	// Only a request that hangs has to be given up soon: the disk may hold others up.
	p := hasty
	if f == registrytest.Hang {
		p = impatient
	}
	_, err := r.push(p)
	q := r.proxies[side].Hit()
	r.proxies[side].Arm(0, "", false)
	if q == nil {
		if err != nil {
			t.Errorf("no fault, and: %v", err)
		}
		return // this push made fewer requests
	}
	c.tried.Add(1)
	c.hit(f, q)
	if r.judge(t, err) > 0 {
		c.window.Add(1)
	}
	if err == nil {
		c.completed.Add(1)
	} else {
		c.refused.Add(1)
		if !strings.Contains(err.Error(), r.proxies[side].Repository(r.repository)) {
			t.Errorf("the error does not name the repository at fault: %v", err)
		}
		if strings.Contains(err.Error(), "\n") || len(err.Error()) > 4*redact.Longest {
			t.Errorf("the error is no line to read: %v", err)
		}
		if _, err := r.push(hasty); err != nil {
			t.Errorf("running it again: %v", err)
		}
		r.judge(t, nil)
	}
	r.silent(t)
	if t.Failed() {
		t.Errorf("fault was %s at %s %s", f, q.Method, q.Path)
	}
}

func (c *tally) log(t *testing.T) {
	t.Logf("%d faults tried: %d pushes completed, %d gave up with every tag where it was but for %d that the error names; all others completed when run again",
		c.tried.Load(), c.completed.Load(), c.refused.Load(), c.window.Load())
	t.Logf("requests that met a fault: %v", c.kinds)
}

// TestFaultAtEveryRequest guards a push to two registries against everything that can
// become of any of its requests: it completes, or no tag moves, and running it again
// completes it. One registry wants a password, the other one tokens that expire.
func TestFaultAtEveryRequest(t *testing.T) {
	need.Minutes(t, "a push for each fault at each request of one")
	release := registrytest.NewRelease(t, "v1.102.3", 2000, "linux/amd64")
	pair := func(t testing.TB) *rig {
		return newRig(t, release, "derper",
			registrytest.Memory(t, registrytest.Options{Username: "ann", Password: password}),
			registrytest.Memory(t, registrytest.Options{Username: "ann", Password: password, Tokens: 20}))
	}
	log.SetOutput(io.Discard) // go-containerregistry's registry tells everybody of wrong digests
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	calm := pair(t)
	if _, err := calm.push(hasty); err != nil {
		t.Fatal(err)
	}
	var c tally
	t.Run("faults", func(t *testing.T) {
		for _, f := range append(slices.Clone(registrytest.Faults), dies) {
			for side := range calm.proxies {
				t.Run(fmt.Sprintf("%s registry %d", f, side+1), func(t *testing.T) {
					t.Parallel()
					for n := 1; n <= calm.proxies[side].Count(); n++ {
						t.Run(fmt.Sprint("request ", n), func(t *testing.T) { c.try(t, pair(t), side, n, f) })
					}
				})
			}
		}
	})
	c.log(t)
	if least := int64(len(registrytest.Faults)+1) * int64(calm.proxies[0].Count()+calm.proxies[1].Count()) * 9 / 10; c.tried.Load() < least {
		t.Errorf("%d faults tried, want %d: the test tested less than it means to", c.tried.Load(), least)
	}
}

// TestFaultAtEveryRequestDistribution is the same with Distribution as one of the two,
// which checks more, keeps uploads on disk and removes no tag. The faults take turns.
func TestFaultAtEveryRequestDistribution(t *testing.T) {
	need.Minutes(t, "a push for each request of one")
	release := registrytest.NewRelease(t, "v1.102.3", 2000, "linux/amd64")
	options := registrytest.Options{Username: "ann", Password: password}
	docker := registrytest.Distribution(t, options)
	number := 0
	pair := func(t testing.TB) *rig {
		number++
		r := newRig(t, release, fmt.Sprintf("derper%d", number), docker, registrytest.Memory(t, options))
		r.fixed = true
		return r
	}
	calm := pair(t)
	if _, err := calm.push(hasty); err != nil {
		t.Fatal(err)
	}
	var c tally
	faults := append(slices.Clone(registrytest.Faults), dies)
	for side := range calm.proxies {
		for n := 1; n <= calm.proxies[side].Count(); n++ {
			f := faults[(n+side)%len(faults)]
			t.Run(fmt.Sprintf("registry %d request %d %s", side+1, n, f), func(t *testing.T) { c.try(t, pair(t), side, n, f) })
		}
	}
	c.log(t)
}

// TestTagStage looks closer at the moments between the first tag and the last: for
// every one of those requests, a registry that dies just there.
func TestTagStage(t *testing.T) {
	release := registrytest.NewRelease(t, "v1.102.3", 1000)
	for side := range 2 {
		for _, tag := range []string{"1.102.3-r0", "v1.102.3", "1.102.3", "1.102", "latest"} {
			for _, fault := range []registrytest.Fault{registrytest.Reset, registrytest.Status500, registrytest.Unauthorized, registrytest.Lost} {
				t.Run(fmt.Sprintf("%s at %s of registry %d", fault, tag, side+1), func(t *testing.T) {
					r := newRig(t, release, "derper", registrytest.Memory(t, registrytest.Options{}), registrytest.Memory(t, registrytest.Options{}))
					proxy := r.proxies[side]
					for _, reg := range r.registries {
						reg.Forget()
					}
					// Only that tag cannot be written; the registry answers else.
					proxy.Refuse(fault, func(q registrytest.Request) bool {
						return q.Method == http.MethodPut && strings.HasSuffix(q.Path, "/manifests/"+tag)
					})
					_, err := r.push(hasty)
					var half *MoveError
					if !asError(err, &half) || len(half.Moved)+len(half.Unknown) > 0 {
						t.Fatalf("not put back: %v", err)
					}
					if !strings.Contains(err.Error(), "tag "+tag+": ") {
						t.Errorf("does not name tag %s: %v", tag, err)
					}
					r.judge(t, err)
					// Tags that move wait until that of the revision is in place
					// everywhere.
					for _, q := range slices.Concat(r.registries[0].Requests(), r.registries[1].Requests()) {
						if q.Method == http.MethodPut && strings.HasSuffix(q.Path, "/latest") && tag == "1.102.3-r0" {
							t.Errorf("latest moved although %s could not be written", tag)
						}
					}
					proxy.Refuse("", nil)
					if _, err := r.push(hasty); err != nil {
						t.Errorf("running it again: %v", err)
					}
					r.judge(t, nil)
				})
			}
		}
	}
}
