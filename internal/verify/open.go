package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// ErrUnreachable says that a registry gave no answer.
var ErrUnreachable = errors.New("registry cannot be reached")

// Limits of what is read of an image.
const (
	maxImages = 64 // in an index, attestations too; a real one has nine of each
	maxLayers = 16 // in an image; a real one has four
	maxStated = 4  // statements about an image; there are two
)

// found is the image, or the index of images, that is to be verified, as it was
// found. Its documents are read and checked by digest, its layers are yet to be read.
type found struct {
	kind   Kind
	digest string // of the index, of the manifest, or of an archive's config
	index  []byte // nil where there is none
	images []*foundImage
	// attestations are what an index states about its images, and others what it has
	// beside both.
	attestations []*foundAttestation
	others       []v1.Descriptor
	tag          bool // it was named by a tag, which may move
	// repository is where it is in a registry, nil for nowhere, and top what it is there.
	repository *repository
	top        v1.Descriptor
	close      func() error
}

// foundImage is one image.
type foundImage struct {
	// name is the platform as the index has it, or else the config.
	name       string
	descriptor *v1.Descriptor // in the index, nil where there is none
	manifest   []byte         // nil in a docker archive
	config     []byte
	digest     string // of the manifest
	configFile *v1.ConfigFile
	layers     []foundLayer
	contents   []*diff.Layer // what is in the layers, once they are read
}

// foundLayer is a layer that can be read.
type foundLayer struct {
	digest string // "" where nothing names it
	open   func(ctx context.Context) (io.ReadCloser, error)
}

// platform is the platform by its name in the lock, "" for one that is not known.
func (i *foundImage) platform() lock.Platform {
	p, _ := lock.ParsePlatform(i.name)
	return p
}

// open finds an image: a layout's folder, an archive's file, or a reference in a
// registry.
func open(ctx context.Context, ref string, keychain authn.Keychain) (*found, error) {
	if _, err := os.Stat(ref); err == nil {
		return openFiles(ctx, ref)
	}
	if strings.HasPrefix(ref, ".") || filepath.IsAbs(ref) || strings.HasSuffix(ref, ".tar") {
		return nil, fmt.Errorf("no such file or folder: %w", image.ErrNotFound)
	}
	return openRegistry(ctx, ref, keychain)
}

// openFiles finds the image of a layout or of an archive.
func openFiles(ctx context.Context, name string) (*found, error) {
	opened, err := image.Open(name)
	if err != nil {
		return nil, err
	}
	var f *found
	if opened.Saved != nil {
		f, err = readSaved(opened.Saved)
	} else if top, terr := opened.Top(); terr != nil {
		err = terr
	} else {
		f, err = read(ctx, opened, top)
	}
	if err != nil {
		opened.Close()
		return nil, err
	}
	f.close = opened.Close
	return f, nil
}

// readSaved is the image of a docker archive, which has no manifest.
func readSaved(saved *image.Saved) (*found, error) {
	img := &foundImage{config: saved.Config}
	if err := img.readConfig(); err != nil {
		return nil, err
	}
	if len(saved.Layers) > maxLayers {
		return nil, fmt.Errorf("has %d layers, more than %d: %w", len(saved.Layers), maxLayers, image.ErrForeign)
	}
	for _, open := range saved.Layers {
		img.layers = append(img.layers, foundLayer{"", func(context.Context) (io.ReadCloser, error) { return open() }})
	}
	return &found{kind: KindArchive, digest: digestOf(img.config), images: []*foundImage{img}}, nil
}

// read reads what a descriptor names, an index or an image, with all documents below.
func read(ctx context.Context, s image.Store, top v1.Descriptor) (*found, error) {
	data, err := s.Manifest(ctx, top.Digest)
	if err != nil {
		return nil, err
	}
	mediaType := image.MediaType(data, top.MediaType)
	f := &found{digest: top.Digest.String(), close: func() error { return nil }}
	switch {
	case mediaType.IsImage():
		f.kind = KindImage
		img, err := parseImage(ctx, s, top.Digest, data)
		if err != nil {
			return nil, err
		}
		f.images = []*foundImage{img}
		return f, nil
	case !mediaType.IsIndex():
		return nil, fmt.Errorf("%s is neither an image nor an index of images: %w", diff.Printable(string(mediaType)), image.ErrForeign)
	}
	f.kind, f.index = KindIndex, data
	index, err := v1.ParseIndexManifest(strings.NewReader(string(data)))
	if err != nil {
		return nil, fmt.Errorf("index %s: %w: %w", top.Digest, image.ErrCorrupt, err)
	}
	if len(index.Manifests) > maxImages {
		return nil, fmt.Errorf("index %s: has %d entries, more than %d: %w", top.Digest, len(index.Manifests), maxImages, image.ErrForeign)
	}
	for _, d := range index.Manifests {
		if about, ok := image.Attests(d); ok {
			a, err := readAttestation(ctx, s, d.Digest)
			if err != nil {
				return nil, err
			}
			a.about = about
			f.attestations = append(f.attestations, a)
			continue
		}
		if !d.MediaType.IsImage() || d.Platform != nil && d.Platform.OS == "unknown" {
			f.others = append(f.others, d)
			continue
		}
		img, err := readImage(ctx, s, d.Digest)
		if err != nil {
			return nil, err
		}
		img.descriptor = &d
		if d.Platform != nil {
			img.name = platformName(*d.Platform)
		}
		f.images = append(f.images, img)
	}
	return f, nil
}

// readImage reads the documents of an image.
func readImage(ctx context.Context, s image.Store, digest v1.Hash) (*foundImage, error) {
	manifest, err := s.Manifest(ctx, digest)
	if err != nil {
		return nil, err
	}
	return parseImage(ctx, s, digest, manifest)
}

func parseImage(ctx context.Context, s image.Store, digest v1.Hash, manifest []byte) (*foundImage, error) {
	m, err := v1.ParseManifest(strings.NewReader(string(manifest)))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w: %w", digest, image.ErrCorrupt, err)
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("manifest %s: has %d layers, more than %d: %w", digest, len(m.Layers), maxLayers, image.ErrForeign)
	}
	config, err := image.Document(ctx, s, m.Config.Digest)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	img := &foundImage{manifest: manifest, config: config, digest: digest.String()}
	if err := img.readConfig(); err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		img.layers = append(img.layers, foundLayer{l.Digest.String(), func(ctx context.Context) (io.ReadCloser, error) {
			return s.Blob(ctx, l.Digest)
		}})
	}
	return img, nil
}

func (i *foundImage) readConfig() (err error) {
	if i.configFile, err = v1.ParseConfigFile(strings.NewReader(string(i.config))); err != nil {
		return fmt.Errorf("config: %w: %w", image.ErrCorrupt, err)
	}
	i.name = platformName(i.ownPlatform())
	return nil
}

// ownPlatform is the platform that the config names.
func (i *foundImage) ownPlatform() v1.Platform {
	c := i.configFile
	return v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
}

func digestOf(data []byte) string {
	h, _, _ := v1.SHA256(strings.NewReader(string(data))) // reading memory does not fail
	return h.String()
}

// platformName is a platform as the lock writes it.
func platformName(p v1.Platform) string { return diff.Printable(string(image.PlatformOf(p))) }

// readLayers reads what is in the layers of an image, and checks that each is what
// its digest names. What was read before is in have, by digest.
func (i *foundImage) readLayers(ctx context.Context, have map[string]*diff.Layer) error {
	i.contents = nil
	for n, l := range i.layers {
		content := have[l.digest]
		if content == nil {
			r, err := l.open(ctx)
			if err != nil {
				return fmt.Errorf("layer %d of %s: %w", n+1, i.name, err)
			}
			content, err = diff.ReadLayer(ctx, r)
			r.Close()
			if err != nil {
				return fmt.Errorf("layer %d of %s: %s: %w", n+1, i.name, l.digest, err)
			}
			if l.digest != "" && content.Digest != l.digest {
				return fmt.Errorf("layer %d of %s: %s: %w: the content has digest %s", n+1, i.name, l.digest, image.ErrCorrupt, content.Digest)
			}
			if l.digest != "" {
				have[l.digest] = content
			}
		}
		i.contents = append(i.contents, content)
	}
	return nil
}

// builtStore is an image that was built here, as a store of what it consists of.
type builtStore struct{ v1.Image }

func (b builtStore) Manifest(context.Context, v1.Hash) ([]byte, error) { return b.RawManifest() }

func (b builtStore) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	l, err := b.LayerByDigest(digest)
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}

// readBuilt reads what was built here, in the form of what was found.
func readBuilt[T any](ctx context.Context, img v1.Image, read func(context.Context, image.Store, v1.Hash) (*T, error)) (*T, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	return read(ctx, builtStore{img}, digest)
}
