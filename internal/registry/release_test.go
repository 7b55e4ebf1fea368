package registry

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// TestRead guards that only what the lock records is read, and that the reason for
// anything else is named.
func TestRead(t *testing.T) {
	r := registrytest.NewRelease(t, "v1.102.3", 1000)
	if got, err := Read(r.Dir, r.Lock); err != nil || got.Digest.String() != r.Lock.Output().Index || got.Version != "1.102.3-r0" {
		t.Fatalf("the release itself: %+v, %v", got, err)
	}
	blob := func(r *registrytest.Release, digest string) string {
		return filepath.Join(r.Dir, "blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
	}
	var difference *lock.Difference
	for _, test := range []struct {
		name   string
		change func(r *registrytest.Release)
		is     func(error) bool
		says   string
	}{
		{"no folder", func(r *registrytest.Release) { os.RemoveAll(r.Dir) }, is(ErrNoLayout), "is not an OCI layout"},
		{"garbage", func(r *registrytest.Release) { write(r.Dir+"/index.json", "{") }, is(ErrNoLayout), "is not an OCI layout"},
		{"no outputs", func(r *registrytest.Release) { r.Lock.Outputs = nil }, is(lock.ErrNoOutputs), "records no outputs"},
		{"another image", func(r *registrytest.Release) { other(t, r.Dir) }, is(image.ErrForeign), "is not an image of this project"},
		{"another version", func(r *registrytest.Release) { r.Lock = registrytest.NewRelease(t, "v1.102.2", 1000).Lock },
			func(err error) bool { return errors.As(err, &difference) }, "version differs from the lock: recorded 1.102.2-r0, built 1.102.3-r0"},
		{"another build", func(r *registrytest.Release) { r.Lock = registrytest.NewRelease(t, "v1.102.3", 1001).Lock },
			func(err error) bool { return errors.As(err, &difference) }, "linux/amd64: manifest differs"},
		{"a platform too few", func(r *registrytest.Release) {
			r.Lock.Inputs.Platforms = append(r.Lock.Inputs.Platforms, "linux/s390x", "linux/386")
		}, is(ErrIncomplete), "it lacks linux/s390x, linux/386"},
		{"a platform too many", func(r *registrytest.Release) {
			r.Lock.Inputs.Platforms = r.Lock.Inputs.Platforms[:1]
			r.Lock.Output().Platforms = r.Lock.Output().Platforms[:1]
			r.Lock.Output().Index = "sha256:" + strings.Repeat("0", 64)
		}, func(err error) bool { return errors.As(err, &difference) }, "index differs"},
		{"no index", func(r *registrytest.Release) { os.Remove(blob(r, r.Lock.Output().Index)) }, is(ErrIncomplete), "is incomplete"},
		{"a manifest missing", func(r *registrytest.Release) { os.Remove(blob(r, r.Lock.Output().Platforms[1].Manifest)) }, is(ErrIncomplete), "is incomplete"},
		{"a config missing", func(r *registrytest.Release) { os.Remove(blob(r, r.Lock.Output().Platforms[1].Config)) }, is(ErrIncomplete), "is incomplete"},
		{"a layer missing", func(r *registrytest.Release) { os.Remove(blob(r, r.Lock.Output().Platforms[1].Layers[1].Digest)) }, is(ErrIncomplete), "is incomplete"},
		{"a layer cut off", func(r *registrytest.Release) {
			os.Truncate(blob(r, r.Lock.Output().Platforms[1].Layers[1].Digest), 10)
		}, is(image.ErrCorrupt), "corrupt: it has 10 bytes"},
		{"a manifest changed", func(r *registrytest.Release) {
			name := blob(r, r.Lock.Output().Platforms[1].Manifest)
			data, _ := os.ReadFile(name)
			write(name, strings.Replace(string(data), "Tailscale's", "Somebody's ", 1))
		}, is(image.ErrCorrupt), "corrupt: the content has digest"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := registrytest.NewRelease(t, "v1.102.3", 1000)
			dir := r.Dir
			test.change(r)
			_, err := Read(dir, r.Lock)
			if err == nil || !test.is(err) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("says %v; want %q and the folder in it", err, test.says)
			}
		})
	}
}

// TestReadVariants guards that a layout is compared with what the lock records of the variant
// that it is of, and with no other's, and that one of no variant of the lock is refused.
func TestReadVariants(t *testing.T) {
	other := attesttest.Other()
	r := registrytest.NewVariants(t, "v1.102.3", 1000, other)
	for _, v := range r.Lock.Inputs.Variants {
		c, err := Read(r.Layout(v), r.Lock)
		if err != nil || c.Variant != v.Name || c.Digest.String() != r.Lock.Outputs[v.Name].Index {
			t.Errorf("%s: %+v, %v", v.Name, c, err)
		}
	}
	swapped := *r.Lock
	swapped.Outputs = map[string]*lock.Output{lock.Default: r.Lock.Outputs[other.Name], other.Name: r.Lock.Outputs[lock.Default]}
	var difference *lock.Difference
	if _, err := Read(r.Layout(other), &swapped); !errors.As(err, &difference) {
		t.Errorf("what the lock records of the other variant: %v", err)
	}
	only, err := r.Lock.Of(lock.Default)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(r.Layout(other), only); err == nil || !strings.Contains(err.Error(), `the lock has no variant "other": it has default`) {
		t.Errorf("a variant that the lock does not have: %v", err)
	}
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func write(name, content string) { _ = os.WriteFile(name, []byte(content), 0o644) }

func other(t testing.TB, dir string) {
	t.Helper()
	os.RemoveAll(dir)
	index, err := random.Index(100, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	p, err := layout.Write(dir, index)
	if err == nil {
		err = p.AppendIndex(index)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTags guards the names of an image, the same in every registry.
func TestTags(t *testing.T) {
	for _, test := range []struct {
		version, suffix string
		channel         lock.Channel
		fixed, moving   string
	}{
		{"1.102.3", "", lock.Stable, "1.102.3-r0", "1.102.3 v1.102.3 1.102 latest"},
		{"v1.102.0-r10", "", lock.Stable, "1.102.0-r10", "1.102.0 v1.102.0 1.102 latest"},
		{"1.103.12-r1", "", lock.Unstable, "1.103.12-r1", "1.103.12 v1.103.12 unstable"},
		{"1.102.3-pre", "", lock.Unstable, "1.102.3-pre-r0", "1.102.3-pre v1.102.3-pre unstable"},
		{"1.104.5-r1", "-debug", lock.Stable, "1.104.5-r1-debug", "1.104.5-debug v1.104.5-debug 1.104-debug latest-debug debug"},
		{"1.105.5", "-debug", lock.Unstable, "1.105.5-r0-debug", "1.105.5-debug v1.105.5-debug unstable-debug"},
	} {
		v, err := lock.ParseImageVersion(test.version)
		if err != nil {
			t.Fatal(err)
		}
		if c := lock.ChannelOf(v.Tailscale); c != test.channel {
			t.Errorf("%s is %s, want %s", test.version, c, test.channel)
		}
		var fixed, moving []string
		for _, tag := range Tags(v, test.suffix, test.channel) {
			if tag.Moves {
				moving = append(moving, tag.Name)
			} else {
				fixed = append(fixed, tag.Name)
			}
		}
		if strings.Join(fixed, " ") != test.fixed || strings.Join(moving, " ") != test.moving {
			t.Errorf("%s: tags %v and %v, want %v and %v", test.version, fixed, moving, test.fixed, test.moving)
		}
	}
	v := lock.ImageVersion{Tailscale: "v1.102.3", Revision: 1}
	named, err := NamedTags(v, "", []string{"edge", "v1.102.3", "edge", "1.102.3-r1"})
	if want := []Tag{{"1.102.3-r1", false}, {"edge", true}, {"v1.102.3", true}}; err != nil || !slices.Equal(named, want) {
		t.Errorf("named: %v, %v; want %v", named, err, want)
	}
	if _, err := NamedTags(v, "", []string{"1.102.3-r2"}); err == nil || !strings.Contains(err.Error(), "another revision") {
		t.Errorf("the tag of another revision: %v", err)
	}
	for _, bad := range []string{"", ".x", "-x", "a b", "a:b", "ä", strings.Repeat("x", 129)} {
		if _, err := NamedTags(v, "", []string{bad}); err == nil {
			t.Errorf("tag %q is taken", bad)
		}
	}
}
