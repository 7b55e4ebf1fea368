package registry

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// TestMove guards the way back to an older release: moving tags go there in all
// repositories or in none, those that are elsewhere by now stay, tags of versions stay,
// nothing is uploaded, and where the older release is not whole nothing moves.
func TestMove(t *testing.T) {
	a, b := registrytest.Distribution(t, registrytest.Options{}), registrytest.Memory(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, b)
	c := newClient(nil, a, b)
	repositories := []string{a.Repository("derper"), proxy.Repository("derper")}
	old, bad := registrytest.NewRelease(t, "v1.102.9", 1000), registrytest.NewRelease(t, "v1.102.10", 1000)
	push(t, c, planFor(t, old, repositories...))
	push(t, c, planFor(t, bad, repositories...))
	oldIndex, badIndex := hash(t, old), hash(t, bad)
	tags := Tags(lock.ImageVersion{Tailscale: "v1.102.9"}, "", lock.Stable)
	tags = slices.DeleteFunc(tags, func(tag Tag) bool { return tag.Name != "latest" && tag.Name != "1.102" })
	p := Plan{Images: []*Content{ByDigest("1.102.9-r0", oldIndex, tags...)}, Repositories: repositories, From: []v1.Hash{badIndex}}
	check := func(latest v1.Hash) {
		t.Helper()
		for _, r := range []*registrytest.Registry{a, b} {
			for tag, want := range map[string]v1.Hash{"latest": latest, "1.102": latest, "1.102.10": badIndex, "1.102.10-r0": badIndex, "1.102.9-r0": oldIndex} {
				if got := at(t, r, "derper", tag); got != want.String() {
					t.Errorf("%s: tag %s is at %s, want %s", r.Host, tag, got, want)
				}
			}
		}
	}

	// One registry that takes no tag keeps those of the other where they are.
	proxy.Refuse(registrytest.Reset, func(q registrytest.Request) bool {
		return q.Method == http.MethodPut && strings.HasSuffix(q.Path, "/manifests/latest")
	})
	var half *MoveError
	if _, err := c.Move(t.Context(), p); !asError(err, &half) || len(half.Moved)+len(half.Unknown) > 0 {
		t.Errorf("not put back: %v", err)
	}
	proxy.Refuse("", nil)
	check(badIndex)

	p.DryRun = true
	pushed, err := c.Move(t.Context(), p)
	if err != nil || len(pushed.Repositories) != 2 || len(pushed.Repositories[1].Tags) != 2 || !pushed.Repositories[1].Tags[0].Changed {
		t.Errorf("dry run: %v, %v", pushed, err)
	}
	check(badIndex)
	p.DryRun = false
	a.Forget()
	b.Forget()
	if _, err := c.Move(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	check(oldIndex)
	if n := uploads(a.Requests()) + uploads(b.Requests()); n > 0 {
		t.Errorf("%d requests of uploads", n)
	}
	if _, err := c.Move(t.Context(), p); err != nil {
		t.Errorf("again: %v", err)
	}
	check(oldIndex)

	// Meanwhile there is a newer one, to which latest has gone.
	newer := registrytest.NewRelease(t, "v1.104.0", 1000)
	push(t, c, planFor(t, newer, repositories...))
	if _, err := c.Move(t.Context(), p); err != nil {
		t.Error(err)
	}
	for tag, want := range map[string]v1.Hash{"latest": hash(t, newer), "1.104": hash(t, newer), "1.102": oldIndex} {
		if got := at(t, a, "derper", tag); got != want.String() {
			t.Errorf("tag %s is at %s, want %s", tag, got, want)
		}
	}
}

// TestVersions guards what counts as an image of a repository: what a revision's tag names,
// and the tag of a release from before there were revisions; in the order of versions.
func TestVersions(t *testing.T) {
	r := registrytest.Memory(t, registrytest.Options{})
	c := newClient(nil, r)
	for _, version := range []string{"v1.102.9", "v1.102.9-r9", "v1.102.9-r10", "v1.102.10"} {
		push(t, c, planFor(t, registrytest.NewRelease(t, version, 100), r.Repository("derper")))
	}
	legacy := planFor(t, registrytest.NewRelease(t, "v1.100.0", 100), r.Repository("derper"))
	legacy.Images[0].Tags = []Tag{{"v1.100.0", true}, {"1.100.0", true}, {"1.100", true}, {"1.104.5-r1-debug", true}}
	push(t, c, legacy)
	got, err := c.Versions(t.Context(), r.Repository("derper"), "")
	var tags []string
	for _, p := range got {
		tags = append(tags, p.Tag)
	}
	if want := []string{"v1.100.0", "1.102.9-r0", "1.102.9-r9", "1.102.9-r10", "1.102.10-r0"}; err != nil || !slices.Equal(tags, want) {
		t.Errorf("%v, %v; want %v", tags, err, want)
	}
}

// TestMoveIncomplete guards that no tag goes to what one repository lacks, or lacks a
// part of.
func TestMoveIncomplete(t *testing.T) {
	dir := t.TempDir()
	a, b := registrytest.Distribution(t, registrytest.Options{Dir: dir}), registrytest.Memory(t, registrytest.Options{})
	c := newClient(nil, a, b)
	old, bad := registrytest.NewRelease(t, "v1.102.2", 1000), registrytest.NewRelease(t, "v1.102.3", 1000)
	push(t, c, planFor(t, old, a.Repository("derper")))
	push(t, c, planFor(t, bad, a.Repository("derper"), b.Repository("derper")))
	p := Plan{
		Images:       []*Content{ByDigest("1.102.2", hash(t, old), Tag{"latest", true}, Tag{"1.102", true})},
		Repositories: []string{a.Repository("derper"), b.Repository("derper")},
	}
	refused := func(says string) {
		t.Helper()
		if _, err := c.Move(t.Context(), p); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), says) {
			t.Errorf("incomplete: %v, want %q", err, says)
		}
		for _, r := range []*registrytest.Registry{a, b} {
			if got := at(t, r, "derper", "latest"); got != bad.Lock.Output().Index {
				t.Errorf("%s: latest moved to %s", r.Host, got)
			}
		}
	}
	refused(b.Repository("derper") + ": version 1.102.2 is incomplete: manifest " + old.Lock.Output().Index)
	p.Repositories = p.Repositories[:1]
	lose(t, dir, old)
	refused("it lacks " + old.Lock.Output().Platforms[0].Layers[1].Digest)
}

func hash(t testing.TB, r *registrytest.Release) v1.Hash {
	t.Helper()
	h, err := v1.NewHash(r.Lock.Output().Index)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
