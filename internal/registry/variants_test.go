package registry

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// planForAll is a push of all variants of a release with their tags.
func planForAll(t testing.TB, r *registrytest.Release, repositories ...string) Plan {
	t.Helper()
	p := Plan{Repositories: repositories}
	for _, v := range r.Lock.Inputs.Variants {
		img, err := Read(r.Layout(v), r.Lock)
		if err != nil {
			t.Fatal(err)
		}
		img.Tags = Tags(r.Lock.Inputs.ImageVersion(), v.Suffix, lock.ChannelOf(r.Lock.Inputs.Tailscale.Version))
		p.Images = append(p.Images, img)
	}
	return p
}

// TestPushVariants guards that all variants of a release get there together: what they share
// is uploaded once, each has its tags, and no tag of any of them moves while one of them
// cannot be had.
func TestPushVariants(t *testing.T) {
	other := attesttest.Other()
	a, b := registrytest.Memory(t, registrytest.Options{}), registrytest.Memory(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, b)
	c := newClient(nil, a, b)
	repositories := []string{a.Repository("derper"), proxy.Repository("derper")}
	old, next := registrytest.NewVariants(t, "v1.102.3", 1000, other), registrytest.NewVariants(t, "v1.102.4", 1000, other)
	check := func(r *registrytest.Release) {
		t.Helper()
		for _, registry := range []*registrytest.Registry{a, b} {
			for _, v := range r.Lock.Inputs.Variants {
				want := r.Lock.Outputs[v.Name].Index
				whole(t, registry, "derper", want)
				tags := []string{"latest", "1.102", r.Lock.Inputs.Tailscale.Short(), r.Lock.Inputs.Version()}
				for i := range tags {
					tags[i] += v.Suffix
				}
				if v.Suffix != "" {
					tags = append(tags, v.Suffix[1:])
				}
				for _, tag := range tags {
					if got := at(t, registry, "derper", tag); got != want {
						t.Errorf("%s: %s is at %s, want %s, of %s", registry.Host, tag, got, want, v.Name)
					}
				}
			}
		}
	}
	p := planForAll(t, old, repositories...)
	report := push(t, c, p)
	digests := slices.Clone(report.Repositories[0].Missing.Digests)
	slices.Sort(digests)
	if n := len(slices.Compact(slices.Clone(digests))); n != len(digests) {
		t.Errorf("%d of %d are uploaded twice", len(digests)-n, len(digests))
	}
	alone := 0
	for _, img := range p.Images {
		alone += len(img.blobs)
	}
	if got := report.Repositories[0].Missing.Blobs; got >= alone {
		t.Errorf("%d blobs are uploaded, and each alone has %d in all: nothing is shared", got, alone)
	}
	check(old)

	// The last manifest of the last variant does not get to one of the registries.
	index := next.Lock.Outputs[other.Name].Index
	proxy.Refuse(registrytest.Reset, func(q registrytest.Request) bool {
		return q.Method == http.MethodPut && strings.HasSuffix(q.Path, "/manifests/"+index)
	})
	p = planForAll(t, next, repositories...)
	if _, err := c.Push(t.Context(), p); err == nil {
		t.Error("the push ended well without an index")
	}
	proxy.Refuse("", nil)
	check(old)
	// A tag of one variant that may not move keeps those of the other, too.
	newer := registrytest.NewVariants(t, "v1.102.5", 1000, other)
	ahead := planForAll(t, newer, repositories...)
	ahead.Images = ahead.Images[1:]
	ahead.Images[0].Tags = []Tag{{Name: "other", Moves: true}}
	push(t, c, ahead)
	var refused *TagError
	if _, err := c.Push(t.Context(), p); !asError(err, &refused) || refused.Tag != "other" || refused.Version != "1.102.5-r0" {
		t.Errorf("other, which is ahead: %v", err)
	}
	p.Retag = true
	push(t, c, p)
	check(next)

	for _, v := range old.Lock.Inputs.Variants {
		list, err := c.Versions(t.Context(), repositories[0], v.Suffix)
		if err != nil || len(list) != 2 || list[0].Tag != "1.102.3-r0"+v.Suffix || list[1].Tag != "1.102.4-r0"+v.Suffix {
			t.Errorf("%s: %v, %v", v.Name, list, err)
		}
	}
	p.Images[0].Tags = p.Images[1].Tags
	if _, err := c.Push(t.Context(), p); err == nil || !strings.Contains(err.Error(), "is for two images") {
		t.Errorf("one tag for two images: %v", err)
	}
}
