package release

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// sample is an index of images with a layer of the given sizes.
func sample(t *testing.T, in lock.Inputs, sizes map[string]int64, order ...string) v1.ImageIndex {
	t.Helper()
	index := mutate.Annotations(empty.Index, image.Annotations(in)).(v1.ImageIndex)
	for _, name := range order {
		img, err := random.Image(sizes[name], 1)
		if err != nil {
			t.Fatal(err)
		}
		p, err := v1.ParsePlatform(name)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}})
	}
	return index
}

func TestNotes(t *testing.T) {
	in := lock.Defaults()
	in.Variants = in.Variants[:1]
	in.Tailscale = lock.Tailscale{Version: "v1.100.0", Commit: strings.Repeat("a", 40), Time: time.Unix(1, 0)}
	in.Go, in.Roots = lock.Go{Version: "go1.26.7"}, lock.Module{Version: "v0.0.0-1"}
	in.Revision = 2
	old, err := Describe(sample(t, in, map[string]int64{"linux/amd64": 3e6, "linux/mips": 1e6}, "linux/amd64", "linux/mips"))
	if err != nil {
		t.Fatal(err)
	}
	in.Tailscale.Version, in.Go.Version, in.Revision = "v1.102.3", "go1.26.8", 0
	now, err := Describe(sample(t, in, map[string]int64{"linux/amd64": 5e6, "linux/arm/v7": 1e6}, "linux/amd64", "linux/arm/v7"))
	if err != nil {
		t.Fatal(err)
	}
	n := &Notes{
		Image: now, Before: old,
		Repositories: []string{"docker.io/camllia/derper", "ghcr.io/xavieralpha/derper"},
		Tags:         []string{"latest", "v1.102.3"},
		Changes:      []string{"new flag of derper: `-x`"},
		Verify:       []string{"cosign verify …"},
	}
	var b strings.Builder
	if err := n.Write(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		"# derper 1.102.3-r0\n",
		"| image | `1.100.0-r2` → `1.102.3-r0` |",
		"| tailscale | `v1.100.0` → `v1.102.3` |",
		"| Go | `go1.26.7` → `go1.26.8` |",
		"| CA roots | `v0.0.0-1` |",
		"| index | `" + now.Digest + "` |",
		"/compare/v1.100.0...v1.102.3\n",
		"- new flag of derper: `-x`\n",
		"- `ghcr.io/xavieralpha/derper`: `latest`, `v1.102.3`\n",
		"| linux/amd64 | 5.0 MB | +2.0 MB | `" + now.Platforms[0].Manifest + "` |",
		"| linux/arm/v7 | 1.0 MB | new | ",
		"No longer there: linux/mips\n",
		"verify docker.io/camllia/derper@" + now.Digest + "\n",
		"cosign verify …\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the notes have no %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}

	// The first release has nothing to compare with.
	n.Before = nil
	b.Reset()
	if err := n.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, no := range []string{"→", "/compare/", "change", "No longer"} {
		if strings.Contains(b.String(), no) {
			t.Errorf("the first release's notes have %q:\n%s", no, b.String())
		}
	}
}
