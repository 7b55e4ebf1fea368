package verify

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// TestPullers guards what each program is taken to choose from an index.
// The mistake it guards: that our own order of the entries is taken for theirs.
func TestPullers(t *testing.T) {
	p := func(s string) *v1.Platform {
		if s == "none" {
			return nil
		}
		parts := append(strings.Split(s, "/"), "", "")
		return &v1.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	}
	registry := registrytest.Memory(t, registrytest.Options{})
	for i, test := range []struct {
		asked, entries string
		want           [3]int // of containerd, Docker, go-containerregistry: which entry, -1 for none
	}{
		{"linux/amd64", "linux/arm64 linux/amd64", [3]int{1, 1, 1}},
		{"linux/amd64", "linux/amd64 linux/amd64", [3]int{0, 0, 0}},
		{"linux/amd64", "none linux/amd64", [3]int{1, 1, 0}},
		{"linux/arm64", "none linux/arm64", [3]int{1, 1, 1}},
		{"linux/arm64", "none linux/386", [3]int{0, 0, -1}},
		{"linux/amd64", "linux/386 linux/amd64", [3]int{1, 1, 1}},
		{"linux/amd64", "linux/386", [3]int{0, 0, -1}},
		{"linux/amd64", "linux/x86_64 linux/amd64", [3]int{0, 0, 1}},
		{"linux/amd64", "Linux/amd64 linux/amd64", [3]int{0, 0, 1}},
		{"linux/amd64", "linux/amd64/v1 linux/amd64", [3]int{0, 0, 0}},
		{"linux/amd64", "linux/amd64/v3 linux/amd64", [3]int{1, 1, 0}},
		{"linux/arm64", "linux/arm64/v8 linux/arm64", [3]int{0, 0, 0}},
		{"linux/arm/v7", "linux/arm/v6 linux/arm/v7", [3]int{1, 1, 1}},
		{"linux/arm/v7", "linux/arm linux/arm/v7", [3]int{0, 0, 1}},
		{"linux/arm/v6", "linux/arm/v7 linux/arm/v5", [3]int{1, 1, -1}},
		{"linux/amd64", "/ linux/arm64", [3]int{-1, 0, -1}},
		{"linux/amd64", "unknown/unknown linux/amd64", [3]int{1, 1, 1}},
	} {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		digests := map[string]int{"": -1}
		for n, entry := range strings.Fields(test.entries) {
			img, err := random.Image(10, 1)
			if err != nil {
				t.Fatal(err)
			}
			digest, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			digests[digest.String()] = n
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p(entry)}})
		}
		raw, err := index.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		for n, puller := range pullers {
			if digest, err := puller.choose(raw, *p(test.asked)); err != nil || digests[digest] != test.want[n] {
				t.Errorf("%s for %s of %s: entry %d, not %d; %v", puller.name, test.asked, test.entries, digests[digest], test.want[n], err)
			}
		}
		// The one of them that is a library here.
		ref, err := name.NewTag(registry.Repository("derper") + ":" + string(rune('a'+i)))
		if err == nil {
			err = remote.WriteIndex(ref, index)
		}
		if err != nil {
			t.Fatal(err)
		}
		digest := ""
		if img, err := remote.Image(ref, remote.WithPlatform(*p(test.asked))); err == nil {
			h, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			digest = h.String()
		}
		if digests[digest] != test.want[2] {
			t.Errorf("go-containerregistry itself for %s of %s: entry %d, not %d", test.asked, test.entries, digests[digest], test.want[2])
		}
	}
}

// oldDockerChoice is the choice of Docker 18.06 to 20.10, which reads OCI indexes and does
// not know that a variant runs those before it.
// Source: filterManifests in
// https://github.com/moby/moby/blob/v20.10.27/distribution/pull_v2_unix.go.
func oldDockerChoice(index []byte, p v1.Platform) (string, error) {
	var m ocispec.Index
	if err := json.Unmarshal(index, &m); err != nil {
		return "", err
	}
	fits := platforms.NewMatcher(platforms.Normalize(ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}))
	i := slices.IndexFunc(m.Manifests, func(d ocispec.Descriptor) bool { return fits.Match(*d.Platform) })
	if i < 0 && p.Architecture == "arm" {
		i = slices.IndexFunc(m.Manifests, func(d ocispec.Descriptor) bool {
			return d.Platform.OS == p.OS && d.Platform.Architecture == p.Architecture
		})
	}
	if i < 0 {
		return "", nil
	}
	return m.Manifests[i].Digest.String(), nil
}

// TestOrder guards the order of the platforms in the index. The mistake it guards: that
// linux/arm/v6 comes before v7 to help an old Docker. It helps none, and a Docker that runs
// 32-bit programs on a 64-bit kernel, whose variant is v8, gets the slower programs.
func TestOrder(t *testing.T) {
	var index v1.IndexManifest
	digests := map[string]string{}
	for _, p := range lock.Known {
		digest, _, err := v1.SHA256(strings.NewReader(string(p)))
		if err != nil {
			t.Fatal(err)
		}
		digests[digest.String()] = p.Variant()
		index.Manifests = append(index.Manifests, v1.Descriptor{Digest: digest, Platform: &v1.Platform{OS: p.OS(), Architecture: p.Arch(), Variant: p.Variant()}})
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ host, containerd, docker, oldDocker, registry string }{
		{"v5", "v5", "v5", "v5", "v5"},
		{"v6", "v6", "v6", "v6", "v6"},
		{"v7", "v7", "v7", "v7", "v7"},
		{"v8", "v7", "v7", "v7", ""}, // a 64-bit kernel
		{"", "v7", "v7", "v7", "v7"}, // --platform linux/arm
	} {
		host := v1.Platform{OS: "linux", Architecture: "arm", Variant: test.host}
		for name, c := range map[string]struct {
			choose func([]byte, v1.Platform) (string, error)
			want   string
		}{
			"containerd": {containerdChoice, test.containerd}, "Docker": {dockerChoice, test.docker},
			"Docker 20.10": {oldDockerChoice, test.oldDocker}, "go-containerregistry": {registryChoice, test.registry},
		} {
			if digest, err := c.choose(raw, host); err != nil || digests[digest] != c.want {
				t.Errorf("%s on %s: linux/arm/%s, not %s; %v", name, host, digests[digest], c.want, err)
			}
		}
	}
	l, err := lock.Read("../../versions.json")
	if err != nil {
		t.Fatal(err)
	}
	ordered := slices.DeleteFunc(slices.Clone(lock.Known), func(p lock.Platform) bool { return !slices.Contains(l.Inputs.Platforms, p) })
	if !slices.Equal(l.Inputs.Platforms, ordered) {
		t.Errorf("versions.json has the platforms %v, not in this order: %v", l.Inputs.Platforms, ordered)
	}
}

// TestPulled guards the words about a pull that gives another image.
func TestPulled(t *testing.T) {
	good, evil := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}, v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("2", 64)}
	index := func(entries ...v1.Descriptor) []byte {
		data, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: entries})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	img := &foundImage{foundManifest: foundManifest{digest: good.String()}, name: "linux/amd64"}
	amd64 := v1.Descriptor{Digest: good, Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}
	if c := pulled(index(amd64), img); c.Result != Pass || c.Note != "containerd, Docker and go-containerregistry select this image" {
		t.Errorf("%s: %s", c.Result, c.Note)
	}
	c := pulled(index(v1.Descriptor{Digest: evil}, amd64), img)
	if want := "pulling linux/amd64 does not give " + good.String() + ": go-containerregistry gets " + evil.String(); c.Result != Fail || c.Note != want {
		t.Errorf("%s: %s, not %s", c.Result, c.Note, want)
	}
	if c := pulled(index(), img); c.Result != Fail || !strings.Contains(c.Note, "containerd gets no image, Docker gets no image") {
		t.Errorf("%s: %s", c.Result, c.Note)
	}
}
