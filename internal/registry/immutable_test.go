package registry

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// TestImmutableTags guards a repository that makes the tags of revisions immutable, where
// writing one again is an error even if it would name the same image. Pushing again, going
// back and forward, and pushing what was stopped between two tags write none of them, and no
// answer that gets lost makes a push fail.
func TestImmutableTags(t *testing.T) {
	behind := registrytest.Distribution(t, registrytest.Options{})
	first, next := registrytest.NewRelease(t, "v1.102.3-r0", 1000), registrytest.NewRelease(t, "v1.102.3-r1", 1001)
	revision := func(tag string) func(registrytest.Request) bool {
		return func(q registrytest.Request) bool {
			return q.Method == http.MethodPut && strings.HasSuffix(q.Path, "/manifests/"+tag)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(registrytest.Immutabilities)) {
		t.Run(name, func(t *testing.T) {
			proxy := registrytest.NewProxy(t, behind)
			proxy.Immutable(registrytest.RevisionTags, registrytest.Immutabilities[name])
			repository := strings.ToLower(strings.ReplaceAll(name, " ", "-"))
			c := newClient(nil, proxy.Registry)
			at := func(tag string, want *registrytest.Release) {
				t.Helper()
				if got := at(t, behind, repository, tag); got != want.Lock.Output().Index {
					t.Errorf("%s is at %q, not at %s", tag, got, want.Lock.Inputs.ImageVersion())
				}
			}
			p, q := planFor(t, first, proxy.Repository(repository)), planFor(t, next, proxy.Repository(repository))

			// The moving tags cannot be written, and a new tag of a revision cannot be removed.
			proxy.Refuse(registrytest.Status500, revision("latest"))
			_, err := c.Push(t.Context(), p)
			var half *MoveError
			if !asError(err, &half) || !slices.Equal(half.Moved, []string{proxy.Repository(repository) + ":1.102.3-r0"}) || len(half.Unknown) > 0 {
				t.Fatalf("stopped between two tags: %v", err)
			}
			proxy.Refuse("", nil)
			before := proxy.Refused() // to remove it
			push(t, c, p)
			at("1.102.3-r0", first)
			at("latest", first)
			for _, p.Verify = range []bool{false, true} {
				push(t, c, p)
			}
			push(t, c, q)
			back := p
			back.Retag = true
			push(t, c, back)
			at("latest", first)
			push(t, c, q)
			at("latest", next)
			at("1.102.3-r0", first)
			if after := proxy.Refused(); len(after) != len(before) {
				t.Errorf("tags that are in place were written: %q", after[len(before):])
			}

			// An image that is not the revision's stays refused, before anything is asked of the registry.
			if _, err := c.Push(t.Context(), planFor(t, registrytest.NewRelease(t, "v1.102.3-r1", 1002), proxy.Repository(repository))); !asError(err, new(*TagError)) {
				t.Errorf("another image of the same revision: %v", err)
			}

			// The tag is written and the answer is lost; what is sent again is refused.
			last := planFor(t, registrytest.NewRelease(t, "v1.102.3-r2", 1003), proxy.Repository(repository))
			lost := false
			proxy.Refuse(registrytest.Lost, func(q registrytest.Request) bool {
				hit := !lost && revision("1.102.3-r2")(q)
				lost = lost || hit
				return hit
			})
			push(t, c, last)
			if got := proxy.Refused(); !lost || len(got) == len(before) {
				t.Errorf("the tag was not sent again: the test tested nothing")
			}
		})
	}
}
