package image

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/xavieralpha/derper/internal/lock"
)

// Prefix of the labels that say from which lock an image was made; the rest is in those of
// the OCI specification.
const Prefix = "io.github.xavieralpha.derper."

// Names of labels.
const (
	LabelVersion   = "org.opencontainers.image.version"  // of the image: 1.102.3-r1
	LabelCommit    = "org.opencontainers.image.revision" // of tailscale, 40 hex digits
	LabelCreated   = "org.opencontainers.image.created"  // when that was committed
	LabelSource    = "org.opencontainers.image.source"
	LabelGo        = Prefix + "go"
	LabelRoots     = Prefix + "roots"
	LabelTailscale = Prefix + "tailscale" // v1.102.3
	LabelFormat    = Prefix + "format"
	LabelModules   = Prefix + "modules"  // a list of [lock.Source] without sums, in JSON; none for none
	LabelPrograms  = Prefix + "programs" // a list of [lock.Program], in JSON
	LabelVariant   = Prefix + "variant"  // a [lock.Variant] without suffix and budget, in JSON
)

// Annotations are the labels of the image of the first variant, and the annotations of its
// manifests and of their index. They name everything that the image is made of, but for
// sums, which are in public logs. None names a commit of this project: that would move the
// digest without moving the image.
func Annotations(in lock.Inputs) map[string]string {
	list := map[string]string{
		"org.opencontainers.image.title":       "derper",
		"org.opencontainers.image.description": "Tailscale's DERP relay server, with tailscaled of the same revision to verify clients",
		"org.opencontainers.image.licenses":    "BSD-3-Clause",
		LabelVersion:                           in.Version(),
		LabelCommit:                            in.Tailscale.Commit,
		LabelSource:                            in.Source,
		LabelCreated:                           in.Tailscale.Time.Format(time.RFC3339),
		LabelGo:                                in.Go.Version,
		LabelRoots:                             in.Roots.Version,
	}
	in = in.Image()
	list["org.opencontainers.image.documentation"] = in.Source + "#readme"
	list[LabelTailscale] = in.Tailscale.Version
	list[LabelFormat] = strconv.Itoa(in.Format)
	list[LabelPrograms], list[LabelVariant] = asJSON(in.Programs), asJSON(in.Variant())
	if len(in.Modules) > 0 {
		modules := slices.Clone(in.Modules)
		for i := range modules {
			modules[i].Sum = ""
		}
		list[LabelModules] = asJSON(modules)
	}
	return list
}

// VariantOf is the name of the variant that labels or annotations say, "" for none, or for one
// that no lock can have.
func VariantOf(labels map[string]string) string {
	var v lock.Variant
	_ = json.Unmarshal([]byte(labels[LabelVariant]), &v) // an image of another kind says nothing
	if !lock.IsName(v.Name) {
		return ""
	}
	return v.Name
}

// Claimed is the lock as far as it is about the variant that the index of an image says that
// it is of. The error is [ErrForeign] if it says nothing.
func Claimed(l *lock.Lock, index *v1.IndexManifest) (*lock.Lock, error) {
	variant := VariantOf(index.Annotations)
	if variant == "" {
		return nil, fmt.Errorf("%w: its index does not say which variant it is", ErrForeign)
	}
	of, err := l.Of(variant)
	if err != nil {
		err = fmt.Errorf("it is of another variant: %w", err)
	}
	return of, err
}

func asJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(data)
}

// A Layer is a layer that has been written: what the lock records of it, and how to
// read it.
type Layer struct {
	lock.Layer
	// Open opens the compressed blob.
	Open func() (io.ReadCloser, error)
}

// DiffID, Digest, Size, MediaType, Compressed and Uncompressed make a *Layer a
// v1.Layer. The blob is never compressed again.
func (l *Layer) DiffID() (v1.Hash, error)            { return v1.NewHash(l.Layer.DiffID) }
func (l *Layer) Digest() (v1.Hash, error)            { return v1.NewHash(l.Layer.Digest) }
func (l *Layer) Size() (int64, error)                { return l.Bytes, nil }
func (l *Layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }
func (l *Layer) Compressed() (io.ReadCloser, error)  { return l.Open() }

// Uncompressed opens the tar.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	r, err := l.Open()
	if err != nil {
		return nil, err
	}
	zr, err := gzip.NewReader(r)
	if err != nil {
		r.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{zr, r}, nil
}

// Index makes the index of images, one for each platform, in their order. Behind them
// stand their attestations, one for each image in the same order, or none at all.
func Index(in lock.Inputs, platforms []lock.Platform, images []v1.Image, attestations ...v1.Image) (v1.ImageIndex, error) {
	return indexOf(in, platforms, images, attestations)
}

// RawIndex is the index that Index makes, of images and attestations of which no more is
// at hand than digests and sizes.
func RawIndex(in lock.Inputs, platforms []lock.Platform, images, attestations []v1.Descriptor) ([]byte, error) {
	index, err := indexOf(in, platforms, named(images, string(types.OCIConfigJSON)), named(attestations, AttestationType))
	if err != nil {
		return nil, err
	}
	return index.RawManifest()
}

func indexOf[I mutate.Appendable](in lock.Inputs, platforms []lock.Platform, images, attestations []I) (v1.ImageIndex, error) {
	var adds []mutate.IndexAddendum
	for i, p := range platforms {
		adds = append(adds, mutate.IndexAddendum{Add: images[i], Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: p.OS(), Architecture: p.Arch(), Variant: p.Variant()},
		}})
	}
	for i, a := range attestations {
		digest, err := images[i].Digest()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", platforms[i], err)
		}
		adds = append(adds, mutate.IndexAddendum{Add: a, Descriptor: v1.Descriptor{
			// What is for no platform is pulled and run by nobody.
			Platform:    noPlatform(),
			Annotations: map[string]string{referenceType: attestationManifest, referenceDigest: digest.String()},
		}})
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...)
	return mutate.Annotations(index, Annotations(in)).(v1.ImageIndex), nil
}

// nameOnly is an image of which only digest and size are at hand.
type nameOnly struct {
	v1.Descriptor
	artifactType string
}

func (n nameOnly) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (n nameOnly) Digest() (v1.Hash, error)            { return n.Descriptor.Digest, nil }
func (n nameOnly) Size() (int64, error)                { return n.Descriptor.Size, nil }
func (n nameOnly) ArtifactType() (string, error)       { return n.artifactType, nil }

func named(list []v1.Descriptor, artifactType string) (names []nameOnly) {
	for _, d := range list {
		names = append(names, nameOnly{d, artifactType})
	}
	return names
}

// AttestationType is the artifact type of an attestation.
const AttestationType = "application/vnd.docker.attestation.manifest.v1+json"

// Annotations of an attestation's entry in an index: what it is, and of which image.
// Source: https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md.
const (
	referenceType       = "vnd.docker.reference.type"
	referenceDigest     = "vnd.docker.reference.digest"
	attestationManifest = "attestation-manifest"
)

func noPlatform() *v1.Platform { return &v1.Platform{OS: "unknown", Architecture: "unknown"} }

// Attests reports whether an entry of an index is an attestation, and of the image with
// which digest. What it calls itself is not enough: it must be for no platform, so that
// nobody pulls it for one, and belong to an image of the index.
func Attests(d v1.Descriptor, index []v1.Descriptor) (digest string, ok bool) {
	digest = d.Annotations[referenceDigest]
	return digest, d.Annotations[referenceType] == attestationManifest && d.MediaType == types.OCIManifestSchema1 &&
		d.Platform != nil && d.Platform.Equals(*noPlatform()) && d.URLs == nil && d.Data == nil &&
		slices.ContainsFunc(index, func(e v1.Descriptor) bool { return OfPlatform(e) && e.Digest.String() == digest })
}

// OfPlatform reports whether an entry of an index is an image of a platform.
func OfPlatform(d v1.Descriptor) bool {
	return d.MediaType.IsImage() && d.Platform != nil && d.Platform.OS != "unknown" && d.Platform.Architecture != "unknown"
}
