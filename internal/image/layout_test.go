package image

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// write writes the sample of a version as a layout that is expected to work out.
func write(t *testing.T, dir, version string, verify bool) (written bool) {
	t.Helper()
	_, _, index := sampleImages(t, version)
	written, err := WriteLayout(dir, version, index, verify)
	if err != nil {
		t.Fatal(err)
	}
	return written
}

// readable fails the test unless other programs read the layout, and find in it,
// whole, the sample of one of the versions, which it returns.
func readable(t *testing.T, dir string, versions ...string) string {
	t.Helper()
	path, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	top, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 {
		t.Fatalf("index.json has %d entries", len(m.Manifests))
	}
	entry := m.Manifests[0]
	index, err := top.ImageIndex(entry.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		_, _, want := sampleImages(t, version)
		digest, err := want.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if digest == entry.Digest {
			if got := entry.Annotations["org.opencontainers.image.ref.name"]; got != version {
				t.Errorf("the name of %s is %q", version, got)
			}
			return version
		}
	}
	t.Fatalf("the layout has %s, none of %v", entry.Digest, versions)
	return ""
}

// contents are the files below a folder with their contents.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name)
		files[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// states are contents with what can be seen from outside: a file that was written
// again has another.
func states(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := contents(t, dir)
	for name := range files {
		files[name] += state(dir, name)
	}
	return files
}

// names are the files that a layout of the sample has, and those given.
func names(t *testing.T, version string, more ...string) []string {
	t.Helper()
	list := append(more, "index.json", "oci-layout", marker)
	layers, images, index := sampleImages(t, version)
	blob := func(h v1.Hash, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, filepath.Join("blobs", "sha256", h.Hex))
	}
	for _, l := range layers {
		blob(l.Digest())
	}
	for _, img := range images {
		blob(img.ConfigName())
		blob(img.Digest())
	}
	blob(index.Digest())
	slices.Sort(list)
	return list
}

func has(t *testing.T, dir string, want []string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(contents(t, dir))); !slices.Equal(got, want) {
		t.Errorf("the layout has\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNewLayout(t *testing.T) {
	empty := t.TempDir()
	interrupted := t.TempDir()
	// As a first run leaves it that was killed before it wrote its marker.
	if err := os.WriteFile(filepath.Join(interrupted, temporary+"123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"missing":     filepath.Join(t.TempDir(), "not", "yet"),
		"empty":       empty,
		"interrupted": interrupted,
	} {
		t.Run(name, func(t *testing.T) {
			if err := CheckLayout(dir); err != nil {
				t.Error(err)
			}
			if !write(t, dir, "1", false) {
				t.Error("says that it wrote nothing")
			}
			readable(t, dir, "1")
			has(t, dir, names(t, "1"))
		})
	}
}

func TestUnchangedLayout(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "1", false)
	before := states(t, dir)
	for _, verify := range []bool{false, true} {
		layers, _, _ := sampleImages(t, "1")
		for _, l := range layers {
			l.Open = func() (io.ReadCloser, error) { return nil, errors.New("a layer was read") }
		}
		_, index := assemble(t, inputs(), layers)
		if written, err := WriteLayout(dir, "1", index, verify); written || err != nil {
			t.Errorf("verify %v: %v, %v", verify, written, err)
		}
		if !maps.Equal(states(t, dir), before) {
			t.Errorf("verify %v: something was touched", verify)
		}
	}
}

// What is not ours is not touched, whatever it is.
func TestForeignFolder(t *testing.T) {
	_, _, index := sampleImages(t, "1")
	for name, fill := range map[string]func(dir string) error{
		"a file": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("x"), 0o666)
		},
		"a folder": func(dir string) error { return os.Mkdir(filepath.Join(dir, "blobs"), 0o777) },
		"a layout of another program": func(dir string) error {
			_, err := layout.Write(dir, index)
			return err
		},
		"a damaged marker": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, marker), []byte(`{"files`), 0o666)
		},
		"a marker that points outside": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, marker), []byte(`{"files": {"../victim": "1 2 3"}}`), 0o666)
		},
	} {
		t.Run(name, func(t *testing.T) {
			above := t.TempDir()
			dir := filepath.Join(above, "dist")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(above, "victim"), nil, 0o666); err != nil {
				t.Fatal(err)
			}
			if err := fill(dir); err != nil {
				t.Fatal(err)
			}
			before := states(t, above)
			_, _, index := sampleImages(t, "1")
			_, err := WriteLayout(dir, "1", index, false)
			if !errors.Is(err, ErrNotBuilt) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v, not ErrNotBuilt", err)
			}
			if err := CheckLayout(dir); !errors.Is(err, ErrNotBuilt) {
				t.Errorf("CheckLayout: %v, not ErrNotBuilt", err)
			}
			if !maps.Equal(states(t, above), before) {
				t.Error("something was touched")
			}
		})
	}
	t.Run("no folder", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		_, _, index := sampleImages(t, "1")
		if _, err := WriteLayout(file, "1", index, false); err == nil {
			t.Error("a layout was written to a file")
		}
		if data, err := os.ReadFile(file); string(data) != "x" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
	})
}

func TestOtherContent(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "1", false)
	theirs := []string{"README", filepath.Join("blobs", "sha256", strings.Repeat("a", 64)), filepath.Join("blobs", "other")}
	for _, name := range theirs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("theirs"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	layers, _, _ := sampleImages(t, "1")
	base := filepath.Join("blobs", "sha256", strings.TrimPrefix(layers[0].Layer.Digest, "sha256:"))
	before := state(dir, base)
	if !write(t, dir, "2", false) {
		t.Error("says that it wrote nothing")
	}
	readable(t, dir, "2")
	has(t, dir, names(t, "2", theirs...))
	if state(dir, base) != before {
		t.Error("a layer that both have was written again")
	}
	for _, name := range theirs {
		if data, err := os.ReadFile(filepath.Join(dir, name)); string(data) != "theirs" || err != nil {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if write(t, dir, "2", false) {
		t.Error("says that it wrote the same again")
	}
}

// The same index under another name is another layout.
func TestOtherName(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "1", false)
	_, _, index := sampleImages(t, "1")
	if written, err := WriteLayout(dir, "other", index, false); !written || err != nil {
		t.Fatalf("%v, %v", written, err)
	}
	if data := contents(t, dir)["index.json"]; !strings.Contains(data, `"org.opencontainers.image.ref.name": "other"`) {
		t.Errorf("index.json:\n%s", data)
	}
}

// What somebody did to the layout is made good.
func TestRepair(t *testing.T) {
	_, _, index := sampleImages(t, "1")
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	layers, _, _ := sampleImages(t, "1")
	blob := func(h string) string { return filepath.Join("blobs", "sha256", strings.TrimPrefix(h, "sha256:")) }
	for _, file := range []string{blob(layers[0].Layer.Digest), blob(digest.String()), "index.json", "oci-layout"} {
		for how, damage := range map[string]func(name string, fi fs.FileInfo) error{
			"removed":   func(name string, _ fs.FileInfo) error { return os.Remove(name) },
			"truncated": func(name string, _ fs.FileInfo) error { return os.Truncate(name, 3) },
			"changed, same size": func(name string, fi fs.FileInfo) error {
				if err := os.WriteFile(name, make([]byte, fi.Size()), 0o666); err != nil {
					return err
				}
				later := fi.ModTime().Add(time.Minute)
				return os.Chtimes(name, later, later)
			},
			"changed with pains": func(name string, fi fs.FileInfo) error {
				if err := os.WriteFile(name, make([]byte, fi.Size()), 0o666); err != nil {
					return err
				}
				return os.Chtimes(name, fi.ModTime(), fi.ModTime())
			},
		} {
			t.Run(how+" "+file, func(t *testing.T) {
				dir := t.TempDir()
				write(t, dir, "1", false)
				name := filepath.Join(dir, file)
				fi, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(name, fi); err != nil {
					t.Fatal(err)
				}
				// Of a blob that looks untouched, only the content shows it.
				verify := how == "changed with pains" && strings.HasPrefix(file, "blobs")
				if verify && write(t, dir, "1", false) {
					t.Error("seen without reading it: this test tests nothing")
				}
				if !write(t, dir, "1", verify) {
					t.Error("not noticed")
				}
				readable(t, dir, "1")
				has(t, dir, names(t, "1"))
			})
		}
	}
}
