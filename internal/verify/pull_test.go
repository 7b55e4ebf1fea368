package verify

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

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
