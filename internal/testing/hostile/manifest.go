package hostile

import (
	"bytes"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
)

// Manifests are attacks on what says which layers an image has.
var Manifests = []Attack{
	{Name: "an annotation of the manifest", Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, imagetest.Annotate(t, g.Images[0], "evil", "yes"))
	}},
	manifest("a subject", func(m *v1.Manifest) { m.Subject = &m.Config }),
	manifest("an artifact's type", func(m *v1.Manifest) { m.ArtifactType = "application/x-evil" }),
	manifest("another type of the config", func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.docker.container.image.v1+json" }),
	manifest("a config of an artifact", func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.oci.empty.v1+json" }),
	manifest("a config that is called smaller than it is", func(m *v1.Manifest) { m.Config.Size-- }),
	manifest("other content in the config's descriptor", func(m *v1.Manifest) { m.Config.Data = []byte(`{"config":{"User":"0"}}`) }),
	manifest("a config that is a layer", func(m *v1.Manifest) { m.Config.Digest, m.Config.Size = m.Layers[3].Digest, m.Layers[3].Size }),
	manifest("a manifest of Docker's type", func(m *v1.Manifest) { m.MediaType = "application/vnd.docker.distribution.manifest.v2+json" }),
	manifest("a manifest that calls itself an index", func(m *v1.Manifest) { m.MediaType = "application/vnd.oci.image.index.v1+json" }),
	manifest("a manifest of the first schema", func(m *v1.Manifest) { m.SchemaVersion = 1 }),
	rawManifest("layers twice in a manifest", func(t testing.TB) func([]byte) []byte { return inserted(t, "{", `"layers":[],`) }),
	rawManifest("layers in capitals in a manifest", func(t testing.TB) func([]byte) []byte {
		return func(b []byte) []byte { return append(bytes.TrimSuffix(b, []byte("}")), `,"LAYERS":[]}`...) }
	}),
	rawManifest("an unknown key in a manifest", func(t testing.TB) func([]byte) []byte { return inserted(t, "{", `"evil":1,`) }),
	rawManifest("images in a manifest", func(t testing.TB) func([]byte) []byte { return inserted(t, "{", `"manifests":[],`) }),
	rawManifest("bytes behind a manifest", func(testing.TB) func([]byte) []byte { return behind(`{"layers":[]}`) }),
	rawManifest("a mark in front of a manifest", func(testing.TB) func([]byte) []byte {
		return func(b []byte) []byte { return append([]byte("\xef\xbb\xbf"), b...) }
	}),
	rawManifest("a manifest written in another way", func(testing.TB) func([]byte) []byte { return behind("\n") }),
}

func manifest(name string, change func(*v1.Manifest)) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content { return g.Content.Clone().Parsed(t, change) }}
}

func rawManifest(name string, change func(testing.TB) func([]byte) []byte) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content { return g.Content.Clone().Manifest(t, change(t)) }}
}

// Statements are attacks on what an index has beside its images: SBOM and provenance.
var Statements = []Attack{
	{Name: "an SBOM with another name", Make: restated(`"name":"derper"`, `"name":"relay"`)},
	{Name: "an SBOM that hides a module", Make: restated("pkg:golang/example.com/dep", "pkg:golang/example.com/safe")},
	{Name: "provenance with another source", Make: restated("github.com/tailscale/tailscale", "example.com/evil")},
	{Name: "provenance by another builder", Make: restated("buildType", "builderType")},
	{Name: "statements in the other order", Make: func(t testing.TB, g *Good) *Content {
		list := statements(t, g.Attestations[0])
		return g.stated(t, list[1], list[0])
	}},
	{Name: "a statement twice", Make: func(t testing.TB, g *Good) *Content {
		list := statements(t, g.Attestations[0])
		return g.stated(t, list[0], list[0])
	}},
	{Name: "a statement that is no JSON", Make: func(t testing.TB, g *Good) *Content {
		list := statements(t, g.Attestations[0])
		return g.stated(t, list[0], []byte("evil\x1b[2J"))
	}},
	{Name: "no attestation", Make: func(t testing.TB, g *Good) *Content { return g.Beside(t, g.Platforms, g.Images) }},
	{Name: "another image's attestation", Make: func(t testing.TB, g *Good) *Content {
		a := append([]v1.Image{}, g.Attestations...)
		a[0], a[1] = a[1], a[0]
		return g.Beside(t, g.Platforms, g.Images, a...)
	}},
	index("an attestation of no image", func(m *v1.IndexManifest) {
		d := m.Manifests[len(m.Manifests)-1]
		d.Annotations = map[string]string{referenceType: attestation, referenceDigest: Digest(nil)}
		m.Manifests = append(m.Manifests, d)
	}),
	index("an attestation twice", func(m *v1.IndexManifest) { m.Manifests = append(m.Manifests, m.Manifests[len(m.Manifests)-1]) }),
	index("an attestation that is left out", func(m *v1.IndexManifest) { m.Manifests = m.Manifests[:len(m.Manifests)-1] }),
	index("attestations before images", func(m *v1.IndexManifest) {
		n := len(m.Manifests) / 2
		m.Manifests = append(append([]v1.Descriptor{}, m.Manifests[n:]...), m.Manifests[:n]...)
	}),
}

// Annotations of an attestation's entry in an index.
// Source: https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md.
const (
	referenceType   = "vnd.docker.reference.type"
	referenceDigest = "vnd.docker.reference.digest"
	attestation     = "attestation-manifest"
)

// restated is the release with a text changed in the statements about its first image.
func restated(old, new string) func(testing.TB, *Good) *Content {
	return func(t testing.TB, g *Good) *Content {
		list := statements(t, g.Attestations[0])
		changed := false
		for i, data := range list {
			changed = changed || bytes.Contains(data, []byte(old))
			list[i] = bytes.Replace(data, []byte(old), []byte(new), 1)
		}
		if !changed {
			t.Fatalf("no statement has %q", old)
		}
		return g.stated(t, list[0], list[1])
	}
}

// stated is the release with other statements about its first image.
func (g *Good) stated(t testing.TB, first, second []byte) *Content {
	t.Helper()
	evil, err := attest.Embed(attest.Bytes(first), attest.Bytes(second))
	check(t, err)
	return g.Beside(t, g.Platforms, g.Images, append([]v1.Image{evil}, g.Attestations[1:]...)...)
}

// statements are those of an attestation.
func statements(t testing.TB, a v1.Image) (list [][]byte) {
	t.Helper()
	layers, err := a.Layers()
	check(t, err)
	for _, l := range layers {
		r, err := l.Compressed()
		check(t, err)
		data, err := io.ReadAll(r)
		check(t, err)
		r.Close()
		list = append(list, data)
	}
	return list
}
