package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// Errors of an image that cannot be verified.
var (
	// ErrNotFound says that there is no such image.
	ErrNotFound = errors.New("no such image")
	// ErrUnreachable says that a registry gave no answer.
	ErrUnreachable = errors.New("registry cannot be reached")
	// ErrDamaged says that an image is not whole, or not what its digests name.
	ErrDamaged = errors.New("damaged")
	// ErrNotOurs says that an image is not one of this project.
	ErrNotOurs = errors.New("is not an image of this project")
)

// Limits of what is read of an image.
const (
	maxManifest = 1 << 20 // bytes, of a config and a statement too; real ones have at most 8 kB, an SBOM 185 kB
	maxImages   = 64      // in an index, attestations too; a real one has nine of each
	maxLayers   = 16      // in an image; a real one has four
	maxStated   = 4       // statements about an image; there are two
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

// store is where an image's documents and layers are.
type store interface {
	// manifest reads a manifest or index.
	manifest(ctx context.Context, digest v1.Hash) ([]byte, error)
	blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error)
}

// open finds an image: a layout's folder, an archive's file, or a reference in a
// registry.
func open(ctx context.Context, ref string, keychain authn.Keychain) (*found, error) {
	info, err := os.Stat(ref)
	switch {
	case err == nil && info.IsDir():
		return openLayout(ctx, folder(ref), nil)
	case err == nil:
		return openArchive(ctx, ref)
	case strings.HasPrefix(ref, ".") || filepath.IsAbs(ref) || strings.HasSuffix(ref, ".tar"):
		return nil, fmt.Errorf("no such file or folder: %w", ErrNotFound)
	}
	return openRegistry(ctx, ref, keychain)
}

// read reads what a descriptor names, an index or an image, with all documents below.
func read(ctx context.Context, s store, top v1.Descriptor) (*found, error) {
	data, err := document(ctx, s.manifest, top.Digest)
	if err != nil {
		return nil, err
	}
	mediaType := mediaTypeOf(data, top.MediaType)
	f := &found{digest: top.Digest.String(), close: func() error { return nil }}
	switch {
	case mediaType.IsImage():
		f.kind = KindImage
		img, err := readImage(ctx, s, top.Digest, data)
		if err != nil {
			return nil, err
		}
		f.images = []*foundImage{img}
		return f, nil
	case !mediaType.IsIndex():
		return nil, fmt.Errorf("%s is neither an image nor an index of images: %w", diff.Printable(string(mediaType)), ErrNotOurs)
	}
	f.kind, f.index = KindIndex, data
	index, err := v1.ParseIndexManifest(strings.NewReader(string(data)))
	if err != nil {
		return nil, fmt.Errorf("index %s: %w: %w", top.Digest, ErrDamaged, err)
	}
	if len(index.Manifests) > maxImages {
		return nil, fmt.Errorf("index %s: has %d entries, more than %d: %w", top.Digest, len(index.Manifests), maxImages, ErrNotOurs)
	}
	for _, d := range index.Manifests {
		if about, ok := image.Attests(d); ok {
			a, err := readAttestation(ctx, s, d.Digest, about)
			if err != nil {
				return nil, err
			}
			f.attestations = append(f.attestations, a)
			continue
		}
		if !d.MediaType.IsImage() || d.Platform != nil && d.Platform.OS == "unknown" {
			f.others = append(f.others, d)
			continue
		}
		data, err := document(ctx, s.manifest, d.Digest)
		if err != nil {
			return nil, err
		}
		img, err := readImage(ctx, s, d.Digest, data)
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

// readImage reads the documents of an image with this manifest.
func readImage(ctx context.Context, s store, digest v1.Hash, manifest []byte) (*foundImage, error) {
	m, err := v1.ParseManifest(strings.NewReader(string(manifest)))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w: %w", digest, ErrDamaged, err)
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("manifest %s: has %d layers, more than %d: %w", digest, len(m.Layers), maxLayers, ErrNotOurs)
	}
	config, err := blobDocument(ctx, s, m.Config.Digest)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	img := &foundImage{manifest: manifest, config: config, digest: digest.String()}
	if err := img.readConfig(); err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		img.layers = append(img.layers, foundLayer{l.Digest.String(), func(ctx context.Context) (io.ReadCloser, error) {
			return s.blob(ctx, l.Digest)
		}})
	}
	return img, nil
}

func (i *foundImage) readConfig() (err error) {
	if i.configFile, err = v1.ParseConfigFile(strings.NewReader(string(i.config))); err != nil {
		return fmt.Errorf("config: %w: %w", ErrDamaged, err)
	}
	i.name = platformName(i.ownPlatform())
	return nil
}

// ownPlatform is the platform that the config names.
func (i *foundImage) ownPlatform() v1.Platform {
	c := i.configFile
	return v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
}

// document reads a document and checks that it is what its digest names.
func document(ctx context.Context, get func(context.Context, v1.Hash) ([]byte, error), digest v1.Hash) ([]byte, error) {
	data, err := get(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", digest, err)
	}
	if got := digestOf(data); got != digest.String() {
		return nil, fmt.Errorf("%s: %w: the content has digest %s", digest, ErrDamaged, got)
	}
	return data, nil
}

// blobDocument is document for one that is kept as a blob: a config, a statement.
func blobDocument(ctx context.Context, s store, digest v1.Hash) ([]byte, error) {
	return document(ctx, func(ctx context.Context, h v1.Hash) ([]byte, error) {
		r, err := s.blob(ctx, h)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readAll(r)
	}, digest)
}

func digestOf(data []byte) string {
	h, _, _ := v1.SHA256(strings.NewReader(string(data))) // reading memory does not fail
	return h.String()
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%w: more than %d MiB", ErrDamaged, maxManifest>>20)
	}
	return data, err
}

// mediaTypeOf is the media type that a document names itself, or else the one that
// it was served with.
func mediaTypeOf(data []byte, served types.MediaType) types.MediaType {
	var m struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Layers    []json.RawMessage `json:"layers"`
	}
	_ = json.Unmarshal(data, &m) // parsed again, with errors, by who uses it
	switch {
	case m.MediaType != "":
		return m.MediaType
	case served != "":
		return served
	case m.Manifests != nil:
		return types.OCIImageIndex
	case m.Layers != nil:
		return types.OCIManifestSchema1
	}
	return "an unknown document"
}

// platformName is a platform as the lock writes it.
func platformName(p v1.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	if known, err := lock.ParsePlatform(name); err == nil {
		return string(known)
	}
	return diff.Printable(name)
}

// readLayers reads what is in the layers of an image, and checks that each is what
// its digest names. What was read before is in have, by digest.
func (i *foundImage) readLayers(ctx context.Context, have map[string]*diff.Layer) error {
	i.contents = nil
	for n, l := range i.layers {
		content := have[l.digest]
		if content == nil {
			r, err := l.open(ctx)
			if err != nil {
				return fmt.Errorf("layer %d of %s: %s: %w", n+1, i.name, l.digest, err)
			}
			content, err = diff.ReadLayer(ctx, r)
			r.Close()
			if err != nil {
				return fmt.Errorf("layer %d of %s: %s: %w", n+1, i.name, l.digest, err)
			}
			if l.digest != "" && content.Digest != l.digest {
				return fmt.Errorf("layer %d of %s: %s: %w: the content has digest %s", n+1, i.name, l.digest, ErrDamaged, content.Digest)
			}
			if l.digest != "" {
				have[l.digest] = content
			}
		}
		i.contents = append(i.contents, content)
	}
	return nil
}

// rebuilt is an image that was built here, in the form of one that was found.
func rebuilt(img v1.Image) (*foundImage, error) {
	i := &foundImage{}
	var err error
	if i.manifest, err = img.RawManifest(); err != nil {
		return nil, err
	}
	if i.config, err = img.RawConfigFile(); err != nil {
		return nil, err
	}
	i.digest = digestOf(i.manifest)
	if err := i.readConfig(); err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return nil, err
		}
		i.layers = append(i.layers, foundLayer{digest.String(), func(context.Context) (io.ReadCloser, error) { return l.Compressed() }})
	}
	return i, nil
}
