package hostile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Content is an index and everything below it, as bytes: what a layout, an archive or a
// registry has. Nothing of it need be what its digest says.
type Content struct {
	// Index is its digest.
	Index string
	// Blobs are all manifests and blobs, by digest.
	Blobs map[string][]byte
	// Top is what index.json has in the place of one entry for the index, if not nil.
	Top []byte
	// Referrers are the artifacts about a digest, for a registry.
	Referrers map[string][]v1.Descriptor

	mu      *sync.Mutex       // for a registry
	tags    map[string]string // that were pushed
	archive func() []byte     // what Files writes, if that follows from more than the content
	kept    map[string]string // files of the good release, by digest, which layouts link
}

// contentOf reads an index with all that it names.
func contentOf(t testing.TB, index v1.ImageIndex) *Content {
	t.Helper()
	c := &Content{mu: new(sync.Mutex), Blobs: map[string][]byte{}, Referrers: map[string][]v1.Descriptor{}}
	raw, err := index.RawManifest()
	check(t, err)
	c.Index = c.Put(raw)
	list, err := index.IndexManifest()
	check(t, err)
	for _, d := range list.Manifests {
		img, err := index.Image(d.Digest)
		check(t, err)
		c.PutImage(t, img)
	}
	return c
}

// Put adds a blob and returns its digest.
func (c *Content) Put(data []byte) string {
	digest := Digest(data)
	c.Blobs[digest] = data
	return digest
}

// PutImage adds an image and returns its descriptor.
func (c *Content) PutImage(t testing.TB, img v1.Image) v1.Descriptor {
	t.Helper()
	config, err := img.RawConfigFile()
	check(t, err)
	manifest, err := img.RawManifest()
	check(t, err)
	c.Put(config)
	layers, err := img.Layers()
	check(t, err)
	for _, l := range layers {
		digest, err := l.Digest()
		check(t, err)
		if c.Blobs[digest.String()] == nil {
			r, err := l.Compressed()
			c.Blobs[digest.String()] = read(t, r, err)
		}
	}
	return c.descriptor(c.Put(manifest), types.OCIManifestSchema1)
}

// descriptor names a blob.
func (c *Content) descriptor(digest string, mediaType types.MediaType) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: hash(digest), Size: int64(len(c.Blobs[digest]))}
}

// Clone is the same content, to be changed.
func (c *Content) Clone() *Content {
	n := *c
	n.mu = new(sync.Mutex)
	n.Blobs, n.Referrers = maps.Clone(c.Blobs), maps.Clone(c.Referrers)
	return &n
}

// Manifests is the index, parsed.
func (c *Content) Manifests(t testing.TB) *v1.IndexManifest {
	t.Helper()
	list, err := v1.ParseIndexManifest(bytes.NewReader(c.Blobs[c.Index]))
	check(t, err)
	return list
}

// Raw changes the bytes of the index.
func (c *Content) Raw(change func([]byte) []byte) *Content {
	c.Index = c.Put(change(bytes.Clone(c.Blobs[c.Index])))
	return c
}

// Edit changes what the index says.
func (c *Content) Edit(t testing.TB, change func(*v1.IndexManifest)) *Content {
	t.Helper()
	list := c.Manifests(t)
	change(list)
	data, err := json.Marshal(list)
	check(t, err)
	c.Index = c.Put(data)
	return c
}

// Manifest changes the bytes of the first image's manifest, and lets the index name the
// new one.
func (c *Content) Manifest(t testing.TB, change func([]byte) []byte) *Content {
	t.Helper()
	old := c.Manifests(t).Manifests[0]
	data := change(bytes.Clone(c.Blobs[old.Digest.String()]))
	digest := c.Put(data)
	return c.Edit(t, func(m *v1.IndexManifest) {
		for i := range m.Manifests {
			d := &m.Manifests[i]
			if d.Digest == old.Digest {
				d.Digest, d.Size = hash(digest), int64(len(data))
			}
			for name, value := range d.Annotations {
				d.Annotations[name] = strings.ReplaceAll(value, old.Digest.String(), digest)
			}
		}
	})
}

// Parsed is Manifest of what it says.
func (c *Content) Parsed(t testing.TB, change func(*v1.Manifest)) *Content {
	t.Helper()
	return c.Manifest(t, func(data []byte) []byte {
		m, err := v1.ParseManifest(bytes.NewReader(data))
		check(t, err)
		change(m)
		data, err = json.Marshal(m)
		check(t, err)
		return data
	})
}

// Config changes the bytes of the first image's config, and what names it.
func (c *Content) Config(t testing.TB, change func([]byte) []byte) *Content {
	t.Helper()
	return c.Parsed(t, func(m *v1.Manifest) {
		data := change(bytes.Clone(c.Blobs[m.Config.Digest.String()]))
		m.Config.Digest, m.Config.Size = hash(c.Put(data)), int64(len(data))
	})
}

// First is the manifest of the first image.
func (c *Content) First(t testing.TB) *v1.Manifest {
	t.Helper()
	m, err := v1.ParseManifest(bytes.NewReader(c.Blobs[c.Manifests(t).Manifests[0].Digest.String()]))
	check(t, err)
	return m
}

// IndexJSON is the index.json of a layout with the content.
func (c *Content) IndexJSON(t testing.TB) []byte {
	t.Helper()
	if c.Top != nil {
		return c.Top
	}
	return IndexJSON(t, c.descriptor(c.Index, types.OCIImageIndex))
}

// IndexJSON is an index.json with these entries.
func IndexJSON(t testing.TB, entries ...v1.Descriptor) []byte {
	t.Helper()
	data, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: entries})
	check(t, err)
	return data
}

// files are the files of a layout, by name, but for the blobs that are the good release's.
func (c *Content) files(t testing.TB) map[string][]byte {
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": c.IndexJSON(t)}
	for digest, data := range c.Blobs {
		files["blobs/"+strings.Replace(digest, ":", "/", 1)] = data
	}
	return files
}

// Layout writes the content as an OCI layout and returns the folder.
func (c *Content) Layout(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range c.files(t) {
		name = filepath.Join(dir, filepath.FromSlash(name))
		check(t, os.MkdirAll(filepath.Dir(name), 0o755))
		if from := c.kept[Digest(data)]; from != "" && len(data) > 1<<16 && os.Link(from, name) == nil {
			continue
		}
		check(t, os.WriteFile(name, data, 0o644))
	}
	return dir
}

// keep writes the content to files that layouts link.
func (c *Content) keep(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	c.kept = map[string]string{}
	for digest, data := range c.Blobs {
		name := filepath.Join(dir, strings.TrimPrefix(digest, "sha256:"))
		check(t, os.WriteFile(name, data, 0o444))
		c.kept[digest] = name
	}
}

// Digest is the digest of bytes.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hash is a digest as go-containerregistry has it, right or wrong.
func hash(digest string) v1.Hash {
	algorithm, digits, _ := strings.Cut(digest, ":")
	return v1.Hash{Algorithm: algorithm, Hex: digits}
}

// flipped is data with one bit of its middle turned over.
func flipped(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

// inserted is data with text behind the first place where it has after.
func inserted(t testing.TB, after, text string) func([]byte) []byte {
	return replaced(t, after, after+text)
}

// replaced is data with one text in the place of another, once.
func replaced(t testing.TB, old, new string) func([]byte) []byte {
	return func(data []byte) []byte {
		if !bytes.Contains(data, []byte(old)) {
			t.Fatal(fmt.Errorf("there is no %q in %s", old, data))
		}
		return bytes.Replace(data, []byte(old), []byte(new), 1)
	}
}

// behind adds text to the end.
func behind(text string) func([]byte) []byte {
	return func(data []byte) []byte { return append(data, text...) }
}
