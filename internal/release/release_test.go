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
	// As the attestations of an image are, it is listed and is for no platform.
	attestation, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	return mutate.AppendManifests(index, mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}})
}

func TestNotes(t *testing.T) {
	in, _ := lock.Defaults().Of(lock.Default)
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
	debug, err := Describe(sample(t, in, map[string]int64{"linux/amd64": 9e6}, "linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	n := &Notes{
		Variants: []Variant{
			{lock.Default, now, old, []string{"1.102.3-r0", "latest"}},
			{"debug", debug, nil, []string{"1.102.3-r0-debug", "latest-debug"}}, // which is new
		},
		Repositories: []string{"docker.io/camllia/derper", "ghcr.io/xavieralpha/derper"},
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
		"## default\n\nIndex `" + now.Digest + "`, tags `1.102.3-r0`, `latest`\n",
		"## debug\n\nIndex `" + debug.Digest + "`, tags `1.102.3-r0-debug`, `latest-debug`\n",
		"/compare/v1.100.0...v1.102.3\n",
		"- new flag of derper: `-x`\n",
		"docker pull ghcr.io/xavieralpha/derper:1.102.3-r0\n",
		"docker pull docker.io/camllia/derper:1.102.3-r0-debug\n",
		"| linux/amd64 | 5.0 MB | +2.0 MB | `" + now.Platforms[0].Manifest + "` |",
		"| linux/arm/v7 | 1.0 MB | new | ",
		"No longer there: linux/mips\n",
		"| linux/amd64 | 9.0 MB | `" + debug.Platforms[0].Manifest + "` |",
		"verify docker.io/camllia/derper@" + now.Digest + "\n",
		"verify docker.io/camllia/derper@" + debug.Digest + "\n",
		"cosign verify …\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the notes have no %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}

	const become = "docs/rebuilders.md\n"
	if !strings.Contains(text, become) || strings.Contains(text, "known rebuilders") {
		t.Errorf("nobody is known as a rebuilder:\n%s", text)
	}
	n.Rebuilders, n.Confirmed = 3, map[string][]string{lock.Default: {"alice", "bob"}}
	b.Reset()
	if err := n.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 of 3 known rebuilders confirmed this image: alice, bob.\n", "0 of 3 known rebuilders confirmed this image.\n"} {
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), become) {
			t.Errorf("the notes have no %q, or say that nobody did:\n%s", want, b.String())
		}
	}

	// The first release has nothing to compare with.
	n.Variants[0].Before = nil
	b.Reset()
	if err := n.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, no := range []string{"unknown", "→", "/compare/", "change", "No longer"} {
		if strings.Contains(b.String(), no) {
			t.Errorf("the first release's notes have %q:\n%s", no, b.String())
		}
	}
}
