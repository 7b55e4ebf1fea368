package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// twoPlatforms is an index of two images, and a layout of it.
func twoPlatforms(t *testing.T) (v1.ImageIndex, string) {
	t.Helper()
	var adds []mutate.IndexAddendum
	for _, p := range []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}} {
		img, err := random.Image(1000, 2)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		config = config.DeepCopy()
		config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
		if img, err = mutate.ConfigFile(img, config); err != nil {
			t.Fatal(err)
		}
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	index := mutate.AppendManifests(empty.Index, adds...)
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendIndex(index)
	}
	if err != nil {
		t.Fatal(err)
	}
	return index, dir
}

func pack(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layout.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func opened(t *testing.T, name string) *Opened {
	t.Helper()
	o, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// TestOpen guards that a layout is the same index wherever it is, and that the images of it
// are found by platform.
func TestOpen(t *testing.T) {
	want, dir := twoPlatforms(t)
	digest, err := want.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, pack(t, dir)} {
		o := opened(t, name)
		index, err := o.Index(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := index.Digest(); err != nil || got != digest {
			t.Errorf("%s: digest %s, %v; want %s", name, got, err, digest)
		}
		if err := validate.Index(index); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		list, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}} {
			img, err := ForPlatform(t.Context(), o, o.Entries, p)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := img.Digest(); err != nil || got != list.Manifests[i].Digest {
				t.Errorf("%s for %s: %s, %v", name, p, got, err)
			}
		}
		_, err = ForPlatform(t.Context(), o, o.Entries, v1.Platform{OS: "linux", Architecture: "s390x"})
		if err == nil || !strings.Contains(err.Error(), "has no image for linux/s390x, only for linux/amd64, linux/arm64") {
			t.Error(err)
		}
		none := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
		if _, err := o.Size(none); !errors.Is(err, ErrCorrupt) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a blob that it lacks: %v", name, err)
		}
		if size, err := o.Size(digest); err != nil || size == 0 {
			t.Errorf("%s: size %d, %v", name, size, err)
		}
	}
}

// TestOpenHostile guards against files that are not what they should be: nothing of them is
// believed before its digest is right, and nothing is read whole that has no end.
func TestOpenHostile(t *testing.T) {
	blob := func(dir string, digest v1.Hash) string { return filepath.Join(dir, "blobs", "sha256", digest.Hex) }
	open := func(t *testing.T, dir string) (v1.Image, error) {
		o := opened(t, dir)
		index, err := o.Index(t.Context())
		if err != nil {
			return nil, err
		}
		list, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		return index.Image(list.Manifests[1].Digest)
	}
	ofImage := func(t *testing.T, dir string) (manifest, config, layer v1.Hash) {
		img, err := open(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if manifest, err = img.Digest(); err != nil {
			t.Fatal(err)
		}
		return manifest, m.Config.Digest, m.Layers[0].Digest
	}
	spoil := func(t *testing.T, name string) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("manifest", func(t *testing.T) {
		_, dir := twoPlatforms(t)
		manifest, _, _ := ofImage(t, dir)
		spoil(t, blob(dir, manifest))
		if _, err := open(t, dir); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), manifest.String()+": corrupt: the content has digest sha256:") {
			t.Error(err)
		}
	})
	t.Run("config", func(t *testing.T) {
		_, dir := twoPlatforms(t)
		_, config, _ := ofImage(t, dir)
		spoil(t, blob(dir, config))
		img, err := open(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.ConfigFile(); !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("layer", func(t *testing.T) {
		_, dir := twoPlatforms(t)
		_, _, digest := ofImage(t, dir)
		spoil(t, blob(dir, digest))
		img, err := open(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		layer, err := img.LayerByDigest(digest)
		if err != nil {
			t.Fatal(err)
		}
		r, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("manifest without end", func(t *testing.T) {
		_, dir := twoPlatforms(t)
		manifest, _, _ := ofImage(t, dir)
		if err := os.Truncate(blob(dir, manifest), 1<<40); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, dir); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "more than 1 MiB") {
			t.Error(err)
		}
	})
	t.Run("index.json without end", func(t *testing.T) {
		_, dir := twoPlatforms(t)
		if err := os.Truncate(filepath.Join(dir, "index.json"), 1<<40); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("archive of too many files", func(t *testing.T) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range maxFiles + 2 {
			if err := w.WriteHeader(&tar.Header{Name: strings.Repeat("a/", i%50) + strconv.Itoa(i), Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
		}
		name := filepath.Join(t.TempDir(), "many.tar")
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(name); err == nil || !strings.Contains(err.Error(), "more than 16384 files") {
			t.Error(err)
		}
	})
	t.Run("no platform", func(t *testing.T) {
		img, err := random.Image(1000, 1)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		path, err := layout.Write(dir, empty.Index)
		if err == nil {
			err = path.AppendImage(img)
		}
		if err != nil {
			t.Fatal(err)
		}
		o := opened(t, dir)
		if _, err := ForPlatform(t.Context(), o, o.Entries, v1.Platform{OS: "linux", Architecture: "amd64"}); err == nil {
			t.Error("an image that names no platform is taken for one of linux/amd64")
		}
	})
	t.Run("nothing", func(t *testing.T) {
		for _, name := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
			if _, err := Open(name); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// memory is a store in memory that counts what is read.
type memory struct {
	blobs map[v1.Hash][]byte
	reads int
}

func (m *memory) add(t *testing.T, mediaType types.MediaType, v any) v1.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	m.blobs[digest] = data
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}
}

func (m *memory) Manifest(ctx context.Context, digest v1.Hash) ([]byte, error) {
	return Document(ctx, m, digest)
}

func (m *memory) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	m.reads++
	return io.NopCloser(bytes.NewReader(m.blobs[digest])), nil
}

// TestForPlatformBounds guards against an index for which the search for an image goes on for
// hours: with an image of an unknown platform a thousand times, with more documents or more
// entries than there is time for.
func TestForPlatformBounds(t *testing.T) {
	amd64 := v1.Platform{OS: "linux", Architecture: "amd64"}
	m := &memory{blobs: map[v1.Hash][]byte{}}
	index := func(n int, entries ...v1.Descriptor) v1.Descriptor {
		return m.add(t, types.OCIImageIndex, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: slices.Repeat(entries, n)})
	}
	img := func(n int) v1.Descriptor {
		config := m.add(t, types.OCIConfigJSON, v1.ConfigFile{OS: "plan9", Architecture: "amd64", Author: strconv.Itoa(n)})
		return m.add(t, types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{}})
	}
	var images []v1.Descriptor
	for i := range 2 * maxDocuments {
		images = append(images, img(i))
	}
	chain := index(1, images[0])
	for range 2 * maxDocuments {
		chain = index(1, chain)
	}
	for _, test := range []struct {
		name  string
		top   v1.Descriptor
		reads int
		says  string
	}{
		{"one image a thousand times", index(maxEntries, images[0]), 3, "has no image for linux/amd64, only for plan9/amd64"},
		{"and once more", index(maxEntries+1, images[0]), 1, "has 1025 entries, more than 1024"},
		{"many images", index(1, images...), 2 * maxDocuments, "more than 256 indexes"},
		{"many indexes", chain, maxDocuments, "more than 256 indexes"},
	} {
		m.reads = 0
		_, err := ForPlatform(t.Context(), m, []v1.Descriptor{test.top}, amd64)
		if err == nil || !strings.Contains(err.Error(), test.says) || m.reads > test.reads {
			t.Errorf("%s: %d reads, wants %d: %v", test.name, m.reads, test.reads, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ForPlatform(ctx, m, []v1.Descriptor{chain}, amd64); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	images[1].Platform = &amd64
	if _, err := ForPlatform(t.Context(), m, []v1.Descriptor{index(1, images[0], images[1])}, amd64); err != nil {
		t.Error(err)
	}
}

// TestSparse guards against an archive whose files are not in it.
func TestSparse(t *testing.T) {
	for form, data := range tartest.Sparse("index.json") {
		name := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(name); !errors.Is(err, limit.ErrSparse) {
			t.Errorf("%s: %v", form, err)
		}
	}
}
