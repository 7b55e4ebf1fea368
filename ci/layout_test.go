package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// sample writes a layout of two small images, and returns its folder and the digest of
// its index.
func sample(t *testing.T, content string) (dir, digest string) {
	t.Helper()
	l, err := lock.Read(checkedIn)
	if err != nil {
		t.Fatal(err)
	}
	platforms := l.Inputs.Platforms[:2]
	var images []v1.Image
	for _, p := range platforms {
		var blob strings.Builder
		diffID, err := image.WriteLayer(&blob, []image.File{image.Text("hello", content+string(p))}, l.Inputs.Tailscale.Time)
		if err != nil {
			t.Fatal(err)
		}
		hash, size, err := v1.SHA256(strings.NewReader(blob.String()))
		if err != nil {
			t.Fatal(err)
		}
		img, err := image.New(l.Inputs, p, []*image.Layer{{
			Layer: lock.Layer{Name: "hello", DiffID: diffID, Digest: hash.String(), Bytes: size},
			Open:  func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(blob.String())), nil },
		}})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	index, err := image.Index(l.Inputs, platforms, images)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "dist")
	if _, err := image.WriteLayout(dir, "1.0.0", index, false); err != nil {
		t.Fatal(err)
	}
	return dir, hash.String()
}

// checkBlobs checks that the blobs of a layout are what their names say.
func checkBlobs(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if len(names) == 0 {
		err = errors.Join(err, errors.New("no blobs in "+dir))
	}
	for _, name := range names {
		data, rerr := os.ReadFile(name)
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); rerr == nil && got != filepath.Base(name) {
			rerr = fmt.Errorf("%s is sha256:%s", name, got)
		}
		err = errors.Join(err, rerr)
	}
	return err
}

// TestPlace guards against a layout on the client that is not the one on the engine,
// byte for byte, and against writing what is there already.
func TestPlace(t *testing.T) {
	from, digest := sample(t, "new")
	to, _ := sample(t, "old")
	for _, want := range []bool{true, false} {
		written, err := place(t.Context(), from, to, "1.0.0", digest)
		if err != nil || written != want {
			t.Fatalf("written %v, %v, want %v", written, err, want)
		}
	}
	err := filepath.WalkDir(from, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		rel, _ := filepath.Rel(from, name)
		want, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if got, err := os.ReadFile(filepath.Join(to, rel)); err != nil || string(got) != string(want) {
			t.Errorf("%s: another content (%v)", rel, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestPlaceDamaged guards against a layout that lost something on the way: the old one
// must stay as it was.
func TestPlaceDamaged(t *testing.T) {
	for _, test := range []struct {
		name, want string
		damage     func(t *testing.T, dir string)
	}{
		{"byte", "the content has digest sha256:", func(t *testing.T, dir string) {
			for _, name := range blobs(t, dir) {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				data[len(data)/2] ^= 1
				if err := os.WriteFile(name, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"a byte of a layer", "the content has digest sha256:", func(t *testing.T, dir string) {
			opened, err := image.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			index, err := opened.Index(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list, err := index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			img, err := index.Image(list.Manifests[1].Digest)
			if err != nil {
				t.Fatal(err)
			}
			layers, err := img.Layers()
			if err != nil {
				t.Fatal(err)
			}
			digest, err := layers[0].Digest()
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, "blobs", "sha256", digest.Hex)
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"blob missing", "no such file", func(t *testing.T, dir string) {
			for _, name := range blobs(t, dir) {
				os.Remove(name)
			}
		}},
		{"nothing there", "no such file", func(t *testing.T, dir string) { os.RemoveAll(dir) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			from, digest := sample(t, "new")
			to, old := sample(t, "old")
			test.damage(t, from)
			if _, err := place(t.Context(), from, to, "1.0.0", digest); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			index, err := os.ReadFile(filepath.Join(to, "index.json"))
			if err != nil || !strings.Contains(string(index), old) {
				t.Errorf("the old layout is gone: %s %v", index, err)
			}
			if err := checkBlobs(to); err != nil {
				t.Error(err)
			}
		})
	}
	from, _ := sample(t, "new")
	to, other := sample(t, "old")
	if _, err := place(t.Context(), from, to, "1.0.0", other); err == nil || !strings.Contains(err.Error(), "has no index "+other) {
		t.Errorf("another digest than the report's: %v", err)
	}
}

func blobs(t *testing.T, dir string) []string {
	names, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names
}
