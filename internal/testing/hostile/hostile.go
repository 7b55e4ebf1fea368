// Package hostile has the images, archives, registries and documents that mean harm, for
// tests. Each is made out of a good release and differs from it in one thing. The tests of
// a package look at what it says of them in detail; the table in docs/attacks.md has what
// the program's commands say.
package hostile

import (
	"bytes"
	"io"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
)

// An Attack is one way in which what somebody serves is wrong.
type Attack struct {
	Name string
	// Make makes the wrong content. What Files, Serve or neither make of it is opened: by
	// default a layout.
	Make func(t testing.TB, g *Good) *Content
	// Files writes the content as a folder or a file and returns its name.
	Files func(t testing.TB, c *Content) string
	// Serve is the first to see a request to a registry with the content; it reports
	// whether it has answered. It is made anew for each registry.
	Serve func(t testing.TB, g *Good, c *Content) Answer
	// Commands meet the attack, "verify" if there are none.
	Commands []string
	// Harmless says why it may pass, "" for what must not.
	Harmless string
}

// Content makes what the attack offers.
func (a Attack) Content(t testing.TB, g *Good) *Content {
	t.Helper()
	if a.Make != nil {
		return a.Make(t, g)
	}
	return g.Content.Clone()
}

// Open puts content where the attack has it, and returns what names it: a path, or a
// reference.
func (a Attack) Open(t testing.TB, g *Good, c *Content) string {
	t.Helper()
	switch {
	case a.Files != nil:
		return a.Files(t, c)
	case a.Serve != nil:
		return c.Serve(t, a.Serve(t, g, c))
	}
	return c.Layout(t)
}

// A Kind is what a list of attacks is about.
type Kind struct {
	Name    string // as a heading
	Attacks []Attack
}

// Kinds are all attacks on what an image is and on where it is kept.
func Kinds() []Kind {
	return []Kind{
		{"Programs", Programs}, {"Files in layers", Entries}, {"Layers", Layers}, {"Configs", Configs}, {"Manifests", Manifests},
		{"What is stated beside an image", Statements}, {"Indexes", Indexes}, {"Claims", Claims},
		{"Layouts", Layouts}, {"Archives", Archives}, {"Registries", Registries},
	}
}

// Find is the attack of a name.
func Find(t testing.TB, name string) Attack {
	t.Helper()
	for _, k := range Kinds() {
		if i := slices.IndexFunc(k.Attacks, func(a Attack) bool { return a.Name == name }); i >= 0 {
			return k.Attacks[i]
		}
	}
	t.Fatalf("there is no attack %q", name)
	return Attack{}
}

// Good is a good release, out of which every attack is made.
type Good struct {
	Inputs lock.Inputs
	// Platforms, Images and Attestations are those of the index, in its order.
	Platforms    []lock.Platform
	Images       []v1.Image
	Attestations []v1.Image
	// Content is all of it.
	Content *Content
}

// NewGood takes a release apart. Its index is what build made of these inputs.
func NewGood(t testing.TB, in lock.Inputs, index v1.ImageIndex) *Good {
	t.Helper()
	g := &Good{Inputs: in, Platforms: in.Platforms, Content: contentOf(t, index)}
	list, err := index.IndexManifest()
	check(t, err)
	for i, d := range list.Manifests {
		img, err := index.Image(d.Digest)
		check(t, err)
		if i < len(g.Platforms) {
			g.Images = append(g.Images, img)
		} else {
			g.Attestations = append(g.Attestations, img)
		}
	}
	g.Content.keep(t)
	return g
}

// With is the release with another image in the place of the first.
func (g *Good) With(t testing.TB, img v1.Image) *Content {
	t.Helper()
	return g.Of(t, g.Platforms, append([]v1.Image{img}, g.Images[1:]...))
}

// Of is a release of images, with an index as IndexOf makes it.
func (g *Good) Of(t testing.TB, platforms []lock.Platform, images []v1.Image) *Content {
	t.Helper()
	return g.contentOf(t, g.IndexOf(t, platforms, images))
}

// IndexOf is an index of images with attestations of what they are, as a build makes it. An
// image whose inventory cannot be taken has the attestation of another.
func (g *Good) IndexOf(t testing.TB, platforms []lock.Platform, images []v1.Image) v1.ImageIndex {
	t.Helper()
	var attestations []v1.Image
	for i, img := range images {
		platform := platforms[i]
		if n := slices.Index(g.Images, img); n >= 0 {
			platform = g.Platforms[n]
		}
		a := attesttest.Attestation(t, g.Inputs, platform, img)
		if a == nil {
			a = g.Attestations[0]
		}
		attestations = append(attestations, a)
	}
	index, err := image.Index(g.Inputs, platforms, images, attestations...)
	check(t, err)
	return index
}

// Beside is a release of images with these attestations.
func (g *Good) Beside(t testing.TB, platforms []lock.Platform, images []v1.Image, attestations ...v1.Image) *Content {
	t.Helper()
	index, err := image.Index(g.Inputs, platforms, images, attestations...)
	check(t, err)
	return g.contentOf(t, index)
}

// contentOf is the content of an index, of which the files of the good one are linked.
func (g *Good) contentOf(t testing.TB, index v1.ImageIndex) *Content {
	t.Helper()
	c := contentOf(t, index)
	c.kept = g.Content.kept
	return c
}

// Layers are the layers of the first image.
func (g *Good) Layers(t testing.TB) []*image.Layer {
	t.Helper()
	list, err := g.Images[0].Layers()
	check(t, err)
	var layers []*image.Layer
	for i, l := range list {
		diffID, err := l.DiffID()
		check(t, err)
		digest, err := l.Digest()
		check(t, err)
		size, err := l.Size()
		check(t, err)
		name := plan.Layers(lock.Defaults())[i]
		layers = append(layers, &image.Layer{Layer: lock.Layer{Name: name, DiffID: diffID.String(), Digest: digest.String(), Bytes: size}, Open: l.Compressed})
	}
	return layers
}

// Image makes the first image again of other layers, as a build would.
func (g *Good) Image(t testing.TB, layers []*image.Layer) v1.Image {
	t.Helper()
	img, err := image.New(g.Inputs, g.Platforms[0], layers)
	check(t, err)
	return img
}

// Edit is the first image with the entries of one layer changed.
func (g *Good) Edit(t testing.TB, layer string, change func([]Part) []Part) v1.Image {
	t.Helper()
	return g.Layer(t, layer, func(l *image.Layer) *image.Layer { return Pack(t, l.Name, best, Tar(t, change(Parts(t, l)))) })
}

// Layer is the first image with one layer changed.
func (g *Good) Layer(t testing.TB, layer string, change func(*image.Layer) *image.Layer) v1.Image {
	t.Helper()
	layers := g.Layers(t)
	for i, l := range layers {
		if l.Name == layer {
			layers[i] = change(l)
		}
	}
	return g.Image(t, layers)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read reads all of what was opened.
func read(t testing.TB, r io.ReadCloser, err error) []byte {
	t.Helper()
	check(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	check(t, err)
	return data
}

func reader(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}
