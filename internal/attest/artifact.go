package attest

import (
	"bytes"
	"errors"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// emptyConfig is the config of an artifact that has none.
// Source: OCI image specification, v1.1, guidance for an empty descriptor.
const emptyConfig = "{}"

// A Part is a blob of an artifact.
type Part struct {
	MediaType   types.MediaType
	Annotations map[string]string
	Content     []byte
}

// Artifact is a manifest in an image's form, of parts in the place of layers.
func Artifact(m v1.Manifest, parts ...Part) (v1.Image, error) {
	config, size, err := v1.SHA256(strings.NewReader(emptyConfig))
	if err != nil {
		return nil, err
	}
	m.SchemaVersion, m.MediaType = 2, types.OCIManifestSchema1
	m.Config = v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: config, Size: size}
	a := &artifactImage{layers: map[v1.Hash]v1.Layer{}}
	for _, p := range parts {
		layer := static.NewLayer(p.Content, p.MediaType)
		digest, err := layer.Digest()
		if err != nil {
			return nil, err
		}
		a.layers[digest] = layer
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: p.MediaType, Digest: digest, Size: int64(len(p.Content)), Annotations: p.Annotations})
	}
	raw, err := encode(m, "")
	if err != nil {
		return nil, err
	}
	a.manifest = bytes.TrimSpace(raw)
	return partial.CompressedToImage(a)
}

// artifactImage is what partial.CompressedToImage asks for.
type artifactImage struct {
	manifest []byte
	layers   map[v1.Hash]v1.Layer
}

func (a *artifactImage) RawConfigFile() ([]byte, error)      { return []byte(emptyConfig), nil }
func (a *artifactImage) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *artifactImage) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a *artifactImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if l := a.layers[h]; l != nil {
		return l, nil
	}
	return nil, errors.New("no such layer")
}
