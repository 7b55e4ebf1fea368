package hostile

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
)

// partial commands look at one platform of an index, all at what it is, and deceive are those
// that would pass a deceit on.
var (
	partial = []string{"verify", "verify --platform linux/amd64"}
	all     = []string{"verify", "verify --platform linux/amd64", "push", "sign", "attest"}
	deceive = []string{"verify", "verify --platform linux/amd64", "verify --require 1", "push", "sign", "sign without outputs", "attest"}
)

// Indexes are attacks on which image is for which platform. Evil is an image that is not
// what the inputs give, and what pullers would get.
var Indexes = []Attack{
	{Name: "a missing platform that is not asked for", Commands: partial[1:], Harmless: "the rest is what the inputs give", Make: func(t testing.TB, g *Good) *Content {
		return g.Of(t, g.Platforms[:1], g.Images[:1])
	}},
	{Name: "a missing platform", Commands: []string{"verify", "push", "sign", "attest"}, Make: func(t testing.TB, g *Good) *Content {
		return g.Of(t, g.Platforms[:1], g.Images[:1])
	}},
	{Name: "an added platform", Make: func(t testing.TB, g *Good) *Content {
		return g.Of(t, append(g.Platforms[:2:2], "linux/s390x"), append(g.Images[:2:2], g.Images[0]))
	}, Commands: []string{"verify", "push", "sign"}},
	{Name: "a platform twice", Commands: all, Make: func(t testing.TB, g *Good) *Content {
		return g.Of(t, append(g.Platforms[:2:2], g.Platforms[0]), append(g.Images[:2:2], g.Images[1]))
	}},
	{Name: "platforms that changed places", Commands: all, Make: func(t testing.TB, g *Good) *Content {
		return g.Of(t, g.Platforms, []v1.Image{g.Images[1], g.Images[0]})
	}},
	{Name: "another order of the platforms", Commands: []string{"verify", "push"}, Make: func(t testing.TB, g *Good) *Content {
		return g.Of(t, []lock.Platform{g.Platforms[1], g.Platforms[0]}, []v1.Image{g.Images[1], g.Images[0]})
	}},
	index("an annotation of the index", func(m *v1.IndexManifest) { m.Annotations["evil"] = "yes" }),
	index("an index for a later revision", func(m *v1.IndexManifest) { m.Annotations["org.opencontainers.image.version"] = "1.102.3-r9" }, "verify", "push", "sign"),
	index("an index without annotations", func(m *v1.IndexManifest) { m.Annotations = nil }, "verify", "push"),
	index("an index of Docker's type", func(m *v1.IndexManifest) { m.MediaType = "application/vnd.docker.distribution.manifest.list.v2+json" }, "verify", "push"),
	index("an index that calls itself an image", func(m *v1.IndexManifest) { m.MediaType = types.OCIManifestSchema1 }, all...),
	index("an index of an unknown type", func(m *v1.IndexManifest) { m.MediaType = "application/x-\x1b[2Jevil" }, "verify"),
	index("no images in an index", func(m *v1.IndexManifest) { m.Manifests = nil }, all...),
	index("a subject of the index", func(m *v1.IndexManifest) { m.Subject = &m.Manifests[0] }, "verify"),
	index("5,000 entries", func(m *v1.IndexManifest) { m.Manifests = slices.Repeat(m.Manifests, 5000/len(m.Manifests)) }, "verify", "push"),
	index("an image without a platform", func(m *v1.IndexManifest) { m.Manifests[0].Platform = nil }, partial...),
	index("an image with a version of its system", func(m *v1.IndexManifest) { m.Manifests[0].Platform.OSVersion = "10.0" }, partial...),
	index("an image with a feature of its system", func(m *v1.IndexManifest) { m.Manifests[0].Platform.OSFeatures = []string{"evil"} }, partial...),
	index("an image with a variant", func(m *v1.IndexManifest) { m.Manifests[0].Platform.Variant = "v3" }, partial...),
	index("an image for a platform with an escape", func(m *v1.IndexManifest) { m.Manifests[0].Platform.Variant = "\x1b[2J" }, partial...),
	index("an image that is called larger than it is", func(m *v1.IndexManifest) { m.Manifests[0].Size++ }, partial...),
	index("an image that is named by SHA-512", func(m *v1.IndexManifest) {
		m.Manifests[0].Digest = hash("sha512:" + strings.Repeat("0", 128))
	}, partial...),
	index("an image whose digest is a path", func(m *v1.IndexManifest) { m.Manifests[0].Digest = hash("sha256:../../index.json") }, partial...),
	index("an image of Docker's type", func(m *v1.IndexManifest) {
		m.Manifests[0].MediaType = "application/vnd.docker.distribution.manifest.v2+json"
	}, partial...),
	index("an image of an unknown type", func(m *v1.IndexManifest) { m.Manifests[0].MediaType = "application/x-evil" }, partial...),
	index("an image without a type", func(m *v1.IndexManifest) { m.Manifests[0].MediaType = "" }, partial...),
	index("another place for an image", func(m *v1.IndexManifest) { m.Manifests[0].URLs = []string{"http://192.0.2.1/evil"} }, partial...),
	index("other content in an image's descriptor", func(m *v1.IndexManifest) { m.Manifests[0].Data = []byte("{}") }, partial...),
	index("an annotation of an image's entry", func(m *v1.IndexManifest) { m.Manifests[0].Annotations = map[string]string{"evil": "yes"} }, partial...),
	raw("an index written in another way", func(testing.TB, *Good) func([]byte) []byte {
		return func(data []byte) []byte {
			var b bytes.Buffer
			_ = json.Indent(&b, data, "", "    ") // it is JSON
			return b.Bytes()
		}
	}, "verify", "verify --platform linux/amd64", "push"),
	raw("bytes behind an index", func(testing.TB, *Good) func([]byte) []byte { return behind("\n{}") }, partial...),
	raw("an unknown key in an index", func(t testing.TB, _ *Good) func([]byte) []byte { return inserted(t, "{", `"evil":1,`) }, partial...),
	raw("layers in an index", func(t testing.TB, _ *Good) func([]byte) []byte { return inserted(t, "{", `"layers":[],`) }, partial...),

	// What pullers of linux/amd64 get is evil, and what a careless verifier looks at is good.
	evil("an image that calls itself an attestation", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
		d.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[0].Digest.String()}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an image that calls itself an attestation, in the place of that", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
		d.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[0].Digest.String()}
		m.Manifests = slices.Insert(m.Manifests[:len(m.Manifests)-2], 0, d)
	}),
	evil("an image that calls itself an attestation of another platform's", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
		d.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[1].Digest.String()}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an index that calls itself an attestation of another platform's image", func(c *Content, m *v1.IndexManifest, d v1.Descriptor) {
		n := c.nested(d, &v1.Platform{OS: "linux", Architecture: "amd64"})
		n.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[1].Digest.String()}
		m.Manifests = slices.Insert(m.Manifests, 0, n)
	}),
	evil("an image that calls itself an attestation of nothing", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
		d.Annotations = map[string]string{referenceType: attestation}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an attestation that is for linux/unknown", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "unknown"}
		d.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[0].Digest.String()}
		m.Manifests = append(m.Manifests, d)
	}),
	evil("an attestation without a platform", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[0].Digest.String()}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an attestation of Docker's type", func(c *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
		d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
		d.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[0].Digest.String()}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an image for no platform that is no attestation", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
		m.Manifests = append(m.Manifests, d)
	}),
	evil("an image before the one of its platform", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an image with a better variant of the platform", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v2"}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("a platform in capitals", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "Linux", Architecture: "AMD64"}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("a platform by its other name", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform = &v1.Platform{OS: "linux", Architecture: "x86_64"}
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an image of an artifact's type for a platform", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform, d.ArtifactType = &v1.Platform{OS: "linux", Architecture: "amd64"}, "application/x-evil"
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an image of a type of its own for a platform", func(_ *Content, m *v1.IndexManifest, d v1.Descriptor) {
		d.Platform, d.MediaType = &v1.Platform{OS: "linux", Architecture: "amd64"}, "application/x-evil"
		m.Manifests = slices.Insert(m.Manifests, 0, d)
	}),
	evil("an index for a platform", func(c *Content, m *v1.IndexManifest, d v1.Descriptor) {
		m.Manifests = slices.Insert(m.Manifests, 0, c.nested(d, &v1.Platform{OS: "linux", Architecture: "amd64"}))
	}),
	evil("an index in the index", func(c *Content, m *v1.IndexManifest, d v1.Descriptor) {
		m.Manifests = append(m.Manifests, c.nested(d, nil))
	}),
	evil("an index that calls itself an attestation", func(c *Content, m *v1.IndexManifest, d v1.Descriptor) {
		n := c.nested(d, &v1.Platform{OS: "linux", Architecture: "amd64"})
		n.Annotations = map[string]string{referenceType: attestation, referenceDigest: m.Manifests[0].Digest.String()}
		m.Manifests = slices.Insert(m.Manifests, 0, n)
	}),
	twice("a digest twice, the first bad", `"digest":"BAD","digest":"GOOD"`),
	twice("a digest twice, the second bad", `"digest":"GOOD","digest":"BAD"`),
	twice("a digest twice, the bad in capitals", `"digest":"GOOD","DIGEST":"BAD"`),
	twice("a digest twice, the bad with an escape in the key", `"digest":"GOOD","dig\u0065st":"BAD"`),
	raw("a list of images twice, the first bad", func(t testing.TB, g *Good) func([]byte) []byte {
		return inserted(t, "{", `"manifests":[],`)
	}, all...),
	raw("a list of images twice, the second bad", func(t testing.TB, g *Good) func([]byte) []byte {
		return func(data []byte) []byte { return append(bytes.TrimSuffix(data, []byte("}")), `,"manifests":[]}`...) }
	}, all...),
	raw("a platform twice in an entry", func(t testing.TB, g *Good) func([]byte) []byte {
		return inserted(t, `"platform":{`, `"architecture":"s390x",`)
	}, all...),
}

// index is an attack on what the index says.
func index(name string, change func(*v1.IndexManifest), commands ...string) Attack {
	return Attack{Name: name, Commands: commands, Make: func(t testing.TB, g *Good) *Content {
		return g.Content.Clone().Edit(t, change)
	}}
}

// raw is an attack on the bytes of the index.
func raw(name string, change func(testing.TB, *Good) func([]byte) []byte, commands ...string) Attack {
	return Attack{Name: name, Commands: commands, Make: func(t testing.TB, g *Good) *Content {
		return g.Content.Clone().Raw(change(t, g))
	}}
}

// Evil puts an image into the content that is not what the inputs give.
func (g *Good) Evil(t testing.TB, c *Content) v1.Descriptor {
	t.Helper()
	return c.PutImage(t, imagetest.Annotate(t, g.Images[0], "evil", "yes"))
}

// evil is an attack with an evil image in the index, which add puts there.
func evil(name string, add func(c *Content, m *v1.IndexManifest, d v1.Descriptor)) Attack {
	return Attack{Name: name, Commands: deceive, Make: func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		d := g.Evil(t, c)
		return c.Edit(t, func(m *v1.IndexManifest) { add(c, m, d) })
	}}
}

// nested puts an index of one image into the content.
func (c *Content) nested(d v1.Descriptor, p *v1.Platform) v1.Descriptor {
	data, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{d}})
	if err != nil {
		panic(err) // of strings and numbers
	}
	n := c.descriptor(c.Put(data), types.OCIImageIndex)
	n.Platform = p
	return n
}

// twice is an attack with two digests in the entry of the first image.
func twice(name, digests string) Attack {
	return Attack{Name: name, Commands: deceive, Make: func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		good := c.Manifests(t).Manifests[0].Digest.String()
		digests := strings.NewReplacer("GOOD", good, "BAD", g.Evil(t, c).Digest.String()).Replace(digests)
		return c.Raw(replaced(t, `"digest":"`+good+`"`, digests))
	}}
}
