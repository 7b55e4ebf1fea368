package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// blobs is an [image.Store] in memory, by digest.
type blobs map[v1.Hash][]byte

// add adds a blob and describes it.
func (b blobs) add(content string) v1.Descriptor {
	sum := sha256.Sum256([]byte(content))
	digest := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	b[digest] = []byte(content)
	return v1.Descriptor{Digest: digest, Size: int64(len(content))}
}

func (b blobs) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	return image.Document(ctx, b, digest)
}

func (b blobs) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	data, ok := b[digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w: %w", digest, image.ErrCorrupt, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// seeds are indexes, the first one as it should be, and a store of what they name.
func seeds() (store blobs, indexes []string) {
	store = blobs{}
	describe := func(mediaType, content, more string) string {
		d := store.add(content)
		return fmt.Sprintf(`{"mediaType":"application/vnd.%s","digest":"%s","size":%d%s}`, mediaType, d.Digest, d.Size, more)
	}
	manifest := func(config, layer string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + config + `,"layers":[` + layer + `]}`
	}
	const ociManifest, ociIndex = "oci.image.manifest.v1+json", "oci.image.index.v1+json"
	layer := describe("oci.image.layer.v1.tar+gzip", "x", "")
	config := describe("oci.image.config.v1+json", `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:`+strings.Repeat("1", 64)+`"]}}`, "")
	img := describe(ociManifest, manifest(config, layer), `,"platform":{"architecture":"amd64","os":"linux"}`)
	_, digest, _ := strings.Cut(img, `"digest":"`)
	digest, _, _ = strings.Cut(digest, `"`)
	statement := describe("in-toto+json", `{"subject":[{"digest":{"sha256":"`+digest[7:]+`"}}]}`, `,"annotations":{"in-toto.io/predicate-type":"x"}`)
	attestation := describe(ociManifest, manifest(describe("oci.image.config.v1+json", `{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}`, ""), statement),
		`,"platform":{"architecture":"unknown","os":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"`+digest+`"}`)
	indexOf := func(entries ...string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.` + ociIndex + `","manifests":[` + strings.Join(entries, ",") + `]}`
	}
	want := indexOf(img, attestation)
	arm := strings.Replace(img, "amd64", "arm64", 1)
	indexes = []string{
		want, indexOf(img), indexOf(attestation, img), indexOf(img, arm, attestation),
		indexOf(strings.Replace(attestation, "unknown", "amd64", 1), img),     // what pullers get
		indexOf(describe(ociIndex, want, ""), img),                            // nested
		indexOf(strings.Replace(img, `"digest"`, `"digest":"x","digest"`, 1)), // a key twice
		manifest(config, layer),
	}
	return store, indexes
}

// FuzzIndex guards against an index of which an entry is not looked at, or one that is taken
// for something that its digest does not name: each is an image, an attestation or something
// else.
func FuzzIndex(f *testing.F) {
	store, indexes := seeds()
	for _, index := range indexes {
		f.Add([]byte(index))
	}
	f.Fuzz(func(t *testing.T, index []byte) {
		ctx := context.Background()
		sum := sha256.Sum256(index)
		top := v1.Descriptor{MediaType: types.OCIImageIndex, Size: int64(len(index)), Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
		found := &found{opened: &registry.Image{Store: with{store, top.Digest, index}}}
		if err := found.read(ctx, top); err != nil || found.kind != KindIndex {
			return
		}
		parsed, err := v1.ParseIndexManifest(bytes.NewReader(index))
		if err != nil {
			t.Fatalf("is read, and is no index: %v", err)
		}
		if n := len(found.images) + len(found.attestations) + len(found.others); n != len(parsed.Manifests) || n > maxImages {
			t.Errorf("%d of %d entries are looked at", n, len(parsed.Manifests))
		}
		for _, i := range found.images {
			if i.digest != digestOf(i.manifest) || !slices.ContainsFunc(parsed.Manifests, func(d v1.Descriptor) bool { return d.Digest.String() == i.digest }) {
				t.Errorf("an image %s that the index does not name", i.digest)
			}
		}
		for _, a := range found.attestations {
			if a.digest != digestOf(a.manifest) || len(a.statements) > maxStated {
				t.Errorf("an attestation %s with %d statements", a.digest, len(a.statements))
			}
		}
	})
}

// FuzzIndexesDiffer guards that what is said of how two indexes differ does not steer a
// terminal, and has an end.
func FuzzIndexesDiffer(f *testing.F) {
	_, indexes := seeds()
	for _, index := range indexes {
		f.Add([]byte(index))
	}
	want, platforms := []byte(indexes[0]), []lock.Platform{"linux/amd64", "linux/arm64"}
	f.Fuzz(func(t *testing.T, index []byte) {
		note, details, err := indexesDiffer(want, index, platforms, nil)
		if err != nil {
			return
		}
		if len(details) > 100 {
			t.Errorf("%d details", len(details))
		}
		for _, line := range append(details, note) {
			if strings.ContainsFunc(line, unicode.IsControl) {
				t.Errorf("steers a terminal: %q", line)
			}
		}
	})
}

// with is a store with one blob more.
type with struct {
	blobs
	digest  v1.Hash
	content []byte
}

func (w with) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	if digest == w.digest {
		return w.content, nil
	}
	return w.blobs.Manifest(ctx, digest)
}
