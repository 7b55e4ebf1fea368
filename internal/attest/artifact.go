package attest

import (
	"bytes"
	"context"
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
)

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

// Artifact is a manifest in an image's form, of parts in the place of layers.
func Artifact(m v1.Manifest, parts ...Part) (v1.Image, error) {
	// Source: OCI image specification, v1.1, guidance for an empty descriptor.
	config := Bytes([]byte("{}"))
	m.SchemaVersion, m.MediaType = 2, types.OCIManifestSchema1
	m.Config = v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: config.Digest, Size: config.Size}
	all := blobs{config}
	for _, p := range parts {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: p.Type, Digest: p.Blob.Digest, Size: p.Blob.Size, Annotations: p.Annotations})
		all = append(all, p.Blob)
	}
	raw, err := encode(m, "")
	if err != nil {
		return nil, err
	}
	manifest := Bytes(raw)
	return image.ImageOf(context.Background(), append(all, manifest), v1.Descriptor{MediaType: m.MediaType, Digest: manifest.Digest, Size: manifest.Size})
}

// blobs are those of an artifact, as an [image.Store].
type blobs []Blob

func (b blobs) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	return image.Document(ctx, b, digest)
}

func (b blobs) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	for _, blob := range b {
		if blob.Digest == digest {
			return blob.Open()
		}
	}
	return nil, errors.New("no such blob")
}
