package hostile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Layouts are attacks on the folder that an image is in.
var Layouts = []Attack{
	{Name: "a blob that is missing", Commands: all, Make: blobs(func(c *Content, m *v1.Manifest) { delete(c.Blobs, m.Layers[2].Digest.String()) })},
	{Name: "a blob that is cut off", Commands: all, Make: blobs(func(c *Content, m *v1.Manifest) {
		c.Blobs[m.Layers[2].Digest.String()] = c.Blobs[m.Layers[2].Digest.String()][:1000]
	})},
	{Name: "a blob with bytes behind it", Commands: all, Make: blobs(func(c *Content, m *v1.Manifest) {
		name := m.Layers[2].Digest.String()
		c.Blobs[name] = append(c.Blobs[name][:len(c.Blobs[name]):len(c.Blobs[name])], "evil"...)
	})},
	{Name: "a blob with one other bit", Commands: []string{"verify", "sign", "attest"}, Make: blobs(func(c *Content, m *v1.Manifest) {
		c.Blobs[m.Layers[2].Digest.String()] = flipped(c.Blobs[m.Layers[2].Digest.String()])
	})},
	{Name: "a blob that is empty", Commands: []string{"verify", "push"}, Make: blobs(func(c *Content, m *v1.Manifest) { c.Blobs[m.Layers[2].Digest.String()] = nil })},
	{Name: "a config with one other bit", Commands: append([]string{"test"}, all...), Make: blobs(func(c *Content, m *v1.Manifest) {
		c.Blobs[m.Config.Digest.String()] = flipped(c.Blobs[m.Config.Digest.String()])
	})},
	{Name: "a config that is missing", Commands: append([]string{"test"}, all...), Make: blobs(func(c *Content, m *v1.Manifest) { delete(c.Blobs, m.Config.Digest.String()) })},
	{Name: "a manifest with one other bit", Commands: append([]string{"test"}, all...), Make: spoiled(func(t testing.TB, c *Content) string {
		return c.Manifests(t).Manifests[0].Digest.String()
	})},
	{Name: "an attestation with one other bit", Commands: []string{"verify", "push"}, Make: spoiled(func(t testing.TB, c *Content) string {
		list := c.Manifests(t).Manifests
		return list[len(list)-1].Digest.String()
	})},
	{Name: "an index with one other bit", Commands: append([]string{"test"}, all...), Make: spoiled(func(_ testing.TB, c *Content) string { return c.Index })},
	{Name: "another index under the digest", Commands: all, Make: func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		good := c.Index
		evil := g.Evil(t, c)
		c.Edit(t, func(m *v1.IndexManifest) { m.Manifests[0].Digest, m.Manifests[0].Size = evil.Digest, evil.Size })
		c.Blobs[good], c.Index = c.Blobs[c.Index], good
		return c
	}},
	entries("an index.json of two images", func(t testing.TB, g *Good, c *Content) []v1.Descriptor {
		return []v1.Descriptor{c.descriptor(c.Index, types.OCIImageIndex), g.Evil(t, c)}
	}),
	entries("an index.json of no image", func(testing.TB, *Good, *Content) []v1.Descriptor { return nil }),
	entries("an index.json that names the index by SHA-512", func(testing.TB, *Good, *Content) []v1.Descriptor {
		return []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: hash("sha512:" + strings.Repeat("0", 128))}}
	}),
	entries("an index.json whose digest is a path", func(testing.TB, *Good, *Content) []v1.Descriptor {
		return []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: hash("sha256:../../index.json")}}
	}),
	entries("an index.json that names a layer", func(t testing.TB, _ *Good, c *Content) []v1.Descriptor {
		return []v1.Descriptor{c.First(t).Layers[2]}
	}),
	entries("an index.json that names an attestation", func(t testing.TB, _ *Good, c *Content) []v1.Descriptor {
		list := c.Manifests(t).Manifests
		return list[len(list)-1:]
	}),
	entries("an index.json that names nothing that is there", func(testing.TB, *Good, *Content) []v1.Descriptor {
		return []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: hash(Digest([]byte("evil")))}}
	}),
	top("an index.json that is no JSON", func(testing.TB, []byte) []byte { return []byte("{") }),
	top("an index.json that is empty", func(testing.TB, []byte) []byte { return []byte{} }),
	top("bytes behind index.json", func(_ testing.TB, b []byte) []byte { return append(b, `{"manifests":[]}`...) }),
	top("entries twice in index.json", func(t testing.TB, b []byte) []byte { return inserted(t, "{", `"manifests":[],`)(b) }),
	top("an index.json of 2 MiB", func(_ testing.TB, b []byte) []byte { return append(b, make([]byte, 2<<20)...) }),
	{Name: "an image of another project", Commands: append([]string{"test"}, all...), Make: func(t testing.TB, _ *Good) *Content {
		c := contentOf(t, empty.Index)
		c.Top = IndexJSON(t, c.PutImage(t, empty.Image))
		return c
	}},
	{Name: "an index of nothing", Commands: append([]string{"test"}, all...), Make: func(t testing.TB, _ *Good) *Content { return contentOf(t, empty.Index) }},
	file("an index.json without an end", append([]string{"test"}, all...), func(t testing.TB, dir string, _ *Content) {
		check(t, os.Truncate(filepath.Join(dir, "index.json"), 1<<40))
	}),
	file("a manifest without an end", append([]string{"test"}, all...), func(t testing.TB, dir string, c *Content) {
		check(t, os.Truncate(blobFile(dir, c.Manifests(t).Manifests[0].Digest.String()), 1<<40))
	}),
	file("a config without an end", []string{"verify", "test"}, func(t testing.TB, dir string, c *Content) {
		check(t, os.Truncate(blobFile(dir, c.First(t).Config.Digest.String()), 1<<40))
	}),
	file("an index.json that is a folder", append([]string{"test"}, all...), func(t testing.TB, dir string, _ *Content) {
		check(t, os.Remove(filepath.Join(dir, "index.json")))
		check(t, os.Mkdir(filepath.Join(dir, "index.json"), 0o755))
	}),
	file("an index that is a folder", all, func(t testing.TB, dir string, c *Content) {
		check(t, os.Remove(blobFile(dir, c.Index)))
		check(t, os.Mkdir(blobFile(dir, c.Index), 0o755))
	}),
	file("an index that links to itself", all, func(t testing.TB, dir string, c *Content) {
		check(t, os.Remove(blobFile(dir, c.Index)))
		check(t, os.Symlink(filepath.Base(blobFile(dir, c.Index)), blobFile(dir, c.Index)))
	}),
	file("a folder that is empty", append([]string{"test"}, all...), func(t testing.TB, dir string, _ *Content) {
		list, err := filepath.Glob(filepath.Join(dir, "*"))
		check(t, err)
		for _, name := range list {
			check(t, os.RemoveAll(name))
		}
	}),
	{Name: "a file that nothing names", Commands: partial, Harmless: "nobody reads it", Make: func(_ testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		c.Put([]byte("evil"))
		return c
	}},
	entriesHarmless("the index twice in index.json", "both are the same", func(_ testing.TB, _ *Good, c *Content) []v1.Descriptor {
		d := c.descriptor(c.Index, types.OCIImageIndex)
		return []v1.Descriptor{d, d}
	}),
	entries("an index.json that calls the index an image", func(_ testing.TB, _ *Good, c *Content) []v1.Descriptor {
		return []v1.Descriptor{c.descriptor(c.Index, types.OCIManifestSchema1)}
	}),
	entriesHarmless("another name in index.json", "a name is for people: the digest counts", func(_ testing.TB, _ *Good, c *Content) []v1.Descriptor {
		d := c.descriptor(c.Index, types.OCIImageIndex)
		d.Annotations = map[string]string{"org.opencontainers.image.ref.name": "evil"}
		return []v1.Descriptor{d}
	}),
}

// blobs changes the content of the first image's blobs.
func blobs(change func(*Content, *v1.Manifest)) func(testing.TB, *Good) *Content {
	return func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		change(c, c.First(t))
		return c
	}
}

// spoiled turns over a bit of one blob.
func spoiled(which func(testing.TB, *Content) string) func(testing.TB, *Good) *Content {
	return func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		digest := which(t, c)
		c.Blobs[digest] = flipped(c.Blobs[digest])
		return c
	}
}

func entries(name string, list func(testing.TB, *Good, *Content) []v1.Descriptor) Attack {
	return Attack{Name: name, Commands: []string{"verify", "push"}, Make: func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		c.Top = IndexJSON(t, list(t, g, c)...)
		return c
	}}
}

func entriesHarmless(name, why string, list func(testing.TB, *Good, *Content) []v1.Descriptor) Attack {
	a := entries(name, list)
	a.Harmless, a.Commands = why, partial
	return a
}

func top(name string, change func(testing.TB, []byte) []byte) Attack {
	return Attack{Name: name, Commands: []string{"verify", "push", "test"}, Make: func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		c.Top = change(t, c.IndexJSON(t))
		return c
	}}
}

// file is an attack on the files of a layout, of which large ones are shared.
func file(name string, commands []string, change func(t testing.TB, dir string, c *Content)) Attack {
	return Attack{Name: name, Commands: commands, Files: func(t testing.TB, c *Content) string {
		dir := c.Layout(t)
		change(t, dir, c)
		return dir
	}}
}

func blobFile(dir, digest string) string {
	return filepath.Join(dir, "blobs", filepath.FromSlash(strings.Replace(digest, ":", "/", 1)))
}
