package release

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// published pushes an image of a version, with the tags that it has or with others.
func published(t *testing.T, repository, version string, tags ...registry.Tag) *registrytest.Release {
	t.Helper()
	b := registrytest.NewRelease(t, version, 1000)
	c, err := registry.Read(b.Dir, b.Lock)
	if err != nil {
		t.Fatal(err)
	}
	if tags == nil {
		tags = tagsOf(b.Lock.Inputs.ImageVersion(), b.Lock.Inputs.Variant())
	}
	c.Tags = tags
	if _, err := (&registry.Client{}).Push(t.Context(), registry.Plan{Images: []*registry.Content{c}, Repositories: []string{repository}}); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWithdrawRevision guards where tags go when a revision is withdrawn: to the newest
// image before it that has them, and nowhere if there is none; it is marked in any case.
func TestWithdrawRevision(t *testing.T) {
	moving := func(names ...string) (tags []registry.Tag) {
		for _, n := range names {
			tags = append(tags, registry.Tag{Name: n, Moves: true})
		}
		return tags
	}
	index := func(b *registrytest.Release) string { return b.Lock.Output().Index }
	for _, test := range []struct {
		name, withdraw string
		push           func(repository string) (last *registrytest.Release, want map[string]string)
		marks          string
	}{
		{"to the revision before", "1.102.3-r10", func(r string) (*registrytest.Release, map[string]string) {
			published(t, r, "v1.102.3")
			nine := index(published(t, r, "v1.102.3-r9"))
			bad := published(t, r, "v1.102.3-r10")
			return bad, map[string]string{"latest": nine, "1.102": nine, "1.102.3": nine, "v1.102.3": nine, "1.102.3-r10": index(bad)}
		}, "1.102.3-r10"},
		{"all revisions of a release", "v1.102.3", func(r string) (*registrytest.Release, map[string]string) {
			old := index(published(t, r, "v1.102.2-r4"))
			published(t, r, "v1.102.3")
			bad := published(t, r, "v1.102.3-r1")
			return bad, map[string]string{"latest": old, "1.102": old, "1.102.3": index(bad), "v1.102.3": index(bad), "1.102.2": old}
		}, "v1.102.3"},
		{"the first image", "1.102.3-r0", func(r string) (*registrytest.Release, map[string]string) {
			bad := published(t, r, "v1.102.3")
			return bad, map[string]string{"latest": index(bad), "1.102.3": index(bad)}
		}, "1.102.3-r0"},
		{"not to the same image under another name", "1.102.3-r0", func(r string) (*registrytest.Release, map[string]string) {
			old := index(published(t, r, "v1.102.2"))
			bad := published(t, r, "v1.102.3")
			published(t, r, "v1.102.3", moving("v1.102.3-candidate")...)
			return bad, map[string]string{"latest": old, "1.102": old}
		}, "1.102.3-r0"},
		{"to an image from before revisions", "1.102.3-r1", func(r string) (*registrytest.Release, map[string]string) {
			old := published(t, r, "v1.102.3", moving("v1.102.3", "1.102.3", "1.102", "latest")...)
			bad := registrytest.NewRelease(t, "v1.102.3-r1", 1000)
			bad.Lock.Published = &lock.Published{Index: old.Lock.Indexes()}
			if err := bad.Lock.Write(bad.LockFile); err != nil {
				t.Fatal(err)
			}
			rel, _ := fake(t, bad.LockFile)
			rel.Repositories, rel.Registry = []string{r}, &registry.Client{}
			for range 2 { // the second time the tag is there
				if err := rel.Registry.NameBefore(t.Context(), bad.Lock, rel.Repositories); err != nil {
					t.Fatal(err)
				}
			}
			published(t, r, "v1.102.3-r1")
			return bad, map[string]string{"latest": index(old), "1.102": index(old), "1.102.3": index(old), "v1.102.3": index(old), "1.102.3-r0": index(old)}
		}, "1.102.3-r1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			repository := registrytest.Memory(t, registrytest.Options{}).Repository("derper")
			last, want := test.push(repository)
			r, _ := fake(t, last.LockFile)
			r.Repositories, r.Registry = []string{repository}, &registry.Client{}
			for range 2 { // the second time it is all done
				if _, err := r.Withdraw(t.Context(), test.withdraw); err != nil {
					t.Fatal(err)
				}
			}
			for tag, digest := range want {
				if got, err := r.named(t.Context(), repository, tag); err != nil || got != digest {
					t.Errorf("%s is at %s, %v, not at %s", tag, got, err, digest)
				}
			}
			if l, err := lock.Read(last.LockFile); err != nil || !slices.Equal(l.Withdrawn, []string{test.marks}) || !l.IsWithdrawn() {
				t.Errorf("marked: %v, %v", l.Withdrawn, err)
			}
		})
	}
}

// TestNameBefore guards that an image which a repository never had is no obstacle.
func TestNameBefore(t *testing.T) {
	repository := registrytest.Memory(t, registrytest.Options{}).Repository("derper")
	b := published(t, repository, "v1.102.3-r1")
	b.Lock.Published = &lock.Published{Index: map[string]string{lock.Default: "sha256:" + strings.Repeat("0", 64)}}
	r, _ := fake(t, b.LockFile)
	r.Repositories, r.Registry = []string{repository}, &registry.Client{}
	if err := r.Registry.NameBefore(t.Context(), b.Lock, r.Repositories); err != nil {
		t.Error(err)
	}
	if got, err := r.named(t.Context(), repository, "1.102.3-r0"); got != "" || err != nil {
		t.Errorf("1.102.3-r0 is at %s, %v", got, err)
	}
}

// TestAfterWithdrawal guards that the next image of the release is published: before it is
// built, its revision is not known.
func TestAfterWithdrawal(t *testing.T) {
	name, _ := locked(t, func(l *lock.Lock) {
		l.Published = &lock.Published{Revision: l.Inputs.Revision, Index: l.Indexes()}
		l.Withdrawn = []string{l.Inputs.Version()}
		l.Outputs, l.Inputs.Go.Version = nil, "go1.26.99" // what build update --version writes
	})
	r, _ := fake(t, name)
	if result, err := r.Run(t.Context(), Steps[0]); err != nil || !result.Needed || result.Withdrawn {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestWithdrawVariants guards that the tags of every variant go back together, each to an
// image of its own variant; one that nothing before it has stays.
func TestWithdrawVariants(t *testing.T) {
	repository := registrytest.Memory(t, registrytest.Options{}).Repository("derper")
	index := func(b *registrytest.Release) string { return b.Lock.Output().Index }
	debug := lock.Variant{Name: "debug", Suffix: "-debug", Programs: []string{"derper"}}
	nonroot := lock.Variant{Name: "nonroot", Suffix: "-nonroot", Programs: []string{"derper"}}
	old, bad := published(t, repository, "v1.102.2"), published(t, repository, "v1.102.3")
	// What is in the images of the other variants does not matter here.
	of := func(version string, v lock.Variant) string {
		parsed, err := lock.ParseImageVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		return index(published(t, repository, strings.Replace(version, "v1.102.", "v1."+fmt.Sprint(len(v.Name))+".", 1), tagsOf(parsed, v)...))
	}
	oldDebug, badDebug, badNonroot := of("v1.102.2", debug), of("v1.102.3", debug), of("v1.102.3", nonroot)
	oldIndex, l := index(old), bad.Lock
	l.Inputs.Variants, l.Outputs = append(l.Inputs.Variants, debug, nonroot), nil
	if err := l.Write(bad.LockFile); err != nil {
		t.Fatal(err)
	}
	r, _ := fake(t, bad.LockFile)
	r.Repositories, r.Registry = []string{repository}, &registry.Client{}
	w, err := r.Withdraw(t.Context(), "1.102.3")
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]string{
		"latest": oldIndex, "1.102": oldIndex, "latest-debug": oldDebug, "1.102-debug": oldDebug, "debug": oldDebug,
		"1.102.3-r0-debug": badDebug, "latest-nonroot": badNonroot, "1.102.3-nonroot": badNonroot,
	} {
		if got, err := r.named(t.Context(), repository, tag); err != nil || got != want {
			t.Errorf("%s is at %s, %v, not at %s", tag, got, err, want)
		}
	}
	if !slices.Contains(w.Tags, WithdrawnTag{repository + ":latest-nonroot", badNonroot, badNonroot, true}) {
		t.Errorf("%+v", w.Tags)
	}
}
