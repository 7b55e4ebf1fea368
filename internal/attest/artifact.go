package attest

import (
	"bytes"
	"errors"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// emptyConfig is the config of an artifact that has none.
// Source: OCI image specification, v1.1, guidance for an empty descriptor.
const emptyConfig = "{}"

// A Blob is bytes that have been written: what they are, and how to read them.
type Blob struct {
	Digest v1.Hash
	Size   int64
	Open   func() (io.ReadCloser, error)
}

// Bytes is a blob in memory.
func Bytes(data []byte) Blob {
	digest, size, _ := v1.SHA256(bytes.NewReader(data)) // reading memory does not fail
	return Blob{digest, size, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// A Part is a blob in an artifact.
type Part struct {
	Type        types.MediaType
	Annotations map[string]string
	Blob        Blob
}

// The methods make a Part a layer that is not compressed.

func (p Part) Digest() (v1.Hash, error)             { return p.Blob.Digest, nil }
func (p Part) DiffID() (v1.Hash, error)             { return p.Blob.Digest, nil }
func (p Part) Size() (int64, error)                 { return p.Blob.Size, nil }
func (p Part) MediaType() (types.MediaType, error)  { return p.Type, nil }
func (p Part) Compressed() (io.ReadCloser, error)   { return p.Blob.Open() }
func (p Part) Uncompressed() (io.ReadCloser, error) { return p.Blob.Open() }

// Artifact is a manifest in an image's form, of parts in the place of layers.
func Artifact(m v1.Manifest, parts ...Part) (v1.Image, error) {
	config, size, err := v1.SHA256(strings.NewReader(emptyConfig))
	if err != nil {
		return nil, err
	}
	m.SchemaVersion, m.MediaType = 2, types.OCIManifestSchema1
	m.Config = v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: config, Size: size}
	for _, p := range parts {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: p.Type, Digest: p.Blob.Digest, Size: p.Blob.Size, Annotations: p.Annotations})
	}
	raw, err := encode(m, "")
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&artifact{bytes.TrimSpace(raw), parts})
}

// artifact is what partial.CompressedToImage asks for.
type artifact struct {
	manifest []byte
	parts    []Part
}

func (a *artifact) RawConfigFile() ([]byte, error)      { return []byte(emptyConfig), nil }
func (a *artifact) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a *artifact) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, p := range a.parts {
		if p.Blob.Digest == h {
			return p, nil
		}
	}
	return nil, errors.New("no such blob")
}
