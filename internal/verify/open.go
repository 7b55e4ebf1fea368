package verify

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// Limits of what is read of an image.
const (
	maxImages = 64 // in an index, attestations too; a real one has ten of each
	maxLayers = 16 // in an image; a real one has four or five
	maxStated = 4  // statements about an image; there are two

	// maxDocuments is for all that is read besides the layers, in bytes. A real image has
	// some 2 MB on ten platforms. What is parsed has up to 35 times as many in memory.
	maxDocuments = 8 << 20
)

// found is the image, or the index of images, that is to be verified, as it was
// found. Its documents are read and checked by digest, its layers are yet to be read.
type found struct {
	foundManifest // of the index; of an image or an archive, only its digest
	kind          Kind
	images        []*foundImage
	// attestations are what an index states about its images, and others what it has
	// beside both.
	attestations []*foundAttestation
	others       []v1.Descriptor
	opened       *registry.Image
	version      lock.ImageVersion // that it claims
	documents    int               // bytes, of what was read of all of it
}

// foundManifest is what is read alike of an index, an image and an attestation.
type foundManifest struct {
	manifest    []byte // nil in a docker archive
	digest      string // of the manifest, of an archive's config
	annotations map[string]string
	layers      []foundLayer
}

// descriptor is the digest and the size of a manifest.
func (f foundManifest) descriptor() v1.Descriptor {
	digest, size, _ := v1.SHA256(bytes.NewReader(f.manifest)) // reading memory does not fail
	return v1.Descriptor{Digest: digest, Size: size}
}

// foundImage is one image.
type foundImage struct {
	foundManifest
	// name is the platform as the index has it, or else the config.
	name       string
	config     []byte
	configFile *v1.ConfigFile
	contents   []*diff.Layer     // what is in the layers, once they are read
	stated     *foundAttestation // of an image that was built here
}

// foundLayer is a layer that can be read.
type foundLayer struct {
	v1.Descriptor
	open func() (io.ReadCloser, error)
}

// named reports whether a manifest names the layer: in a docker archive, nothing does.
func (l foundLayer) named() bool { return l.Digest != v1.Hash{} }

// platform is the platform by its name in the lock, "" for one that is not known.
func (i *foundImage) platform() lock.Platform {
	p, _ := lock.ParsePlatform(i.name)
	return p
}

// open finds an image: a layout's folder, an archive's file, or a reference in a
// registry. What it finds is to be closed even when there is an error.
func open(ctx context.Context, ref string, keychain authn.Keychain) (*found, error) {
	opened, err := registry.OpenImage(ctx, ref, keychain)
	if err != nil {
		return nil, err
	}
	f := &found{opened: opened}
	if opened.Files == nil {
		return f, f.read(ctx, opened.Entries[0])
	}
	if opened.Files.Saved != nil {
		return f, f.readSaved()
	}
	top, err := opened.Files.Top()
	if err != nil {
		return f, err
	}
	return f, f.read(ctx, top)
}

// readSaved reads the image of a docker archive, which has no manifest.
func (f *found) readSaved() error {
	saved := f.opened.Files.Saved
	img := &foundImage{config: saved.Config}
	if err := img.readConfig(); err != nil {
		return err
	}
	if len(saved.Layers) > maxLayers {
		return fmt.Errorf("has %d layers, more than %d: %w", len(saved.Layers), maxLayers, image.ErrForeign)
	}
	for _, open := range saved.Layers {
		img.layers = append(img.layers, foundLayer{open: open})
	}
	f.kind, f.digest, f.images = KindArchive, digestOf(img.config), []*foundImage{img}
	return nil
}

// read reads what a descriptor names, an index or an image, with all documents below.
func (f *found) read(ctx context.Context, top v1.Descriptor) error {
	data, err := f.opened.Manifest(ctx, top.Digest)
	if err != nil {
		return err
	}
	mediaType, err := image.MediaType(data, top.MediaType)
	if err != nil {
		return fmt.Errorf("%s: %w", top.Digest, err)
	}
	f.kind, f.digest = KindImage, top.Digest.String()
	if mediaType.IsIndex() {
		f.kind, f.manifest = KindIndex, data
		return f.readIndex(ctx)
	}
	if !mediaType.IsImage() {
		return fmt.Errorf("%s is neither an image nor an index of images: %w", diff.Printable(string(mediaType)), image.ErrForeign)
	}
	return f.readEntry(ctx, top)
}

// readIndex reads what an index names. Only what is an image of a platform, or belongs to
// one as an attestation, is read.
func (f *found) readIndex(ctx context.Context) error {
	m, err := image.ParseIndex(f.manifest)
	if err != nil {
		return fmt.Errorf("index %s: %w", f.digest, err)
	}
	if len(m.Manifests) > maxImages {
		return fmt.Errorf("index %s: has %d entries, more than %d: %w", f.digest, len(m.Manifests), maxImages, image.ErrForeign)
	}
	f.annotations = m.Annotations
	for _, d := range m.Manifests {
		about, attests := image.Attests(d, m.Manifests)
		switch {
		case attests:
			img, err := image.ImageOf(ctx, f.opened, d)
			if err != nil {
				return err
			}
			a, err := readAttestation(img)
			if err != nil {
				return err
			}
			a.about = about
			documents := [][]byte{a.manifest}
			for _, s := range a.statements {
				documents = append(documents, s.content)
			}
			if err := f.count(documents...); err != nil {
				return err
			}
			f.attestations = append(f.attestations, a)
		case image.OfPlatform(d):
			if err := f.readEntry(ctx, d); err != nil {
				return err
			}
		default:
			f.others = append(f.others, d)
		}
	}
	return nil
}

// count counts documents that were read: each may have a megabyte, but not all of them.
func (f *found) count(documents ...[]byte) error {
	for _, data := range documents {
		f.documents += len(data)
	}
	if f.documents > maxDocuments {
		return fmt.Errorf("its documents have more than %d MiB: %w", maxDocuments>>20, image.ErrForeign)
	}
	return nil
}

// readEntry reads an image, which is for the platform that names it so, if one does.
func (f *found) readEntry(ctx context.Context, d v1.Descriptor) error {
	img, err := image.ImageOf(ctx, f.opened, d)
	if err != nil {
		return err
	}
	i, err := readImage(img)
	if err != nil {
		return err
	}
	if d.Platform != nil {
		i.name = platformName(*d.Platform)
	}
	if err := f.count(i.manifest, i.config); err != nil {
		return err
	}
	f.images = append(f.images, i)
	return nil
}

// readManifest reads the manifest of an image, or of what is in its form, with at most so
// many layers.
func readManifest(img v1.Image, limit int, layers string) (f foundManifest, err error) {
	m, err := img.Manifest()
	if err == nil {
		f.manifest, err = img.RawManifest()
	}
	if err != nil {
		return f, err
	}
	f.digest, f.annotations = digestOf(f.manifest), m.Annotations
	if len(m.Layers) > limit {
		return f, fmt.Errorf("manifest %s: has %d %s, more than %d: %w", f.digest, len(m.Layers), layers, limit, image.ErrForeign)
	}
	list, err := img.Layers()
	for n, l := range list {
		f.layers = append(f.layers, foundLayer{m.Layers[n], l.Compressed})
	}
	return f, err
}

// readImage reads the documents of an image.
func readImage(img v1.Image) (i *foundImage, err error) {
	i = &foundImage{}
	if i.foundManifest, err = readManifest(img, maxLayers, "layers"); err != nil {
		return nil, err
	}
	if i.config, err = img.RawConfigFile(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return i, i.readConfig()
}

func (i *foundImage) readConfig() (err error) {
	if i.configFile, err = image.ParseConfig(i.config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	i.name = i.ownName()
	return nil
}

// ownName is the platform that the config names.
func (i *foundImage) ownName() string {
	c := i.configFile
	return platformName(v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant})
}

func digestOf(data []byte) string {
	h, _, _ := v1.SHA256(bytes.NewReader(data)) // reading memory does not fail
	return h.String()
}

// platformName is a platform as the lock writes it.
func platformName(p v1.Platform) string { return diff.Printable(string(image.PlatformOf(p))) }

// readLayers reads what is in the layers of an image. What was read before is in have, by
// digest; all of it counts for the budget.
func (i *foundImage) readLayers(ctx context.Context, have map[v1.Hash]*diff.Layer, budget *diff.Budget) error {
	i.contents = nil
	for n, l := range i.layers {
		content := have[l.Digest]
		if content == nil {
			r, err := l.open()
			if err == nil {
				content, err = diff.ReadLayer(ctx, r, budget)
				r.Close()
			}
			if err != nil {
				return fmt.Errorf("layer %d of %s: %w", n+1, i.name, err)
			}
			if l.named() {
				have[l.Digest] = content
			}
		}
		i.contents = append(i.contents, content)
	}
	return nil
}
