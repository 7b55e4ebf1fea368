package hostile

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// Archives are attacks on the tar that an image is in: a layout, or what docker save
// writes.
var Archives = []Attack{
	archive("half of an archive", func(_ testing.TB, _ *Content, data []byte) []byte { return data[:len(data)/2] }, "test"),
	archive("an archive in gzip", func(t testing.TB, _ *Content, data []byte) []byte { return compressed(t, 1, data, nil) }, "test"),
	archive("no archive", func(testing.TB, *Content, []byte) []byte { return bytes.Repeat([]byte("evil\x1b[2J"), 200) }, "test"),
	archive("an empty archive", func(testing.TB, *Content, []byte) []byte { return make([]byte, 1024) }, "test"),
	archive("an empty file", func(testing.TB, *Content, []byte) []byte { return nil }, "test"),
	archive("a sparse index.json of 4 EiB", func(testing.TB, *Content, []byte) []byte { return tartest.Sparse("index.json")["old GNU"] }),
	archive("20,000 files", func(t testing.TB, _ *Content, _ []byte) []byte {
		var list []Part
		for i := range 20_000 {
			list = append(list, Part{tar.Header{Name: fmt.Sprint("f", i)}, nil})
		}
		return Tar(t, list)
	}, "test"),
	// Two who read it see two images.
	parts("an index.json twice, the first evil", func(t testing.TB, g *Good, c *Content, list []Part) []Part {
		return slices.Insert(list, 0, Part{fileHeader("index.json"), IndexJSON(t, g.Evil(t, c))})
	}),
	parts("an index.json twice, the second evil", func(t testing.TB, g *Good, c *Content, list []Part) []Part {
		return append(list, Part{fileHeader("index.json"), IndexJSON(t, g.Evil(t, c))})
	}),
	parts("an index.json twice, once by another name", func(t testing.TB, g *Good, c *Content, list []Part) []Part {
		return append(list, Part{fileHeader("./blobs/../index.json"), IndexJSON(t, g.Evil(t, c))})
	}),
	parts("an index.json that is a file and a symbolic link", func(t testing.TB, g *Good, c *Content, list []Part) []Part {
		return append(list, Part{fileHeader("evil.json"), IndexJSON(t, g.Evil(t, c))},
			Part{tar.Header{Name: "index.json", Typeflag: tar.TypeSymlink, Linkname: "evil.json"}, nil})
	}),
	parts("an index.json that is a file and a hard link", func(t testing.TB, g *Good, c *Content, list []Part) []Part {
		return append(list, Part{fileHeader("evil.json"), IndexJSON(t, g.Evil(t, c))},
			Part{tar.Header{Name: "index.json", Typeflag: tar.TypeLink, Linkname: "evil.json"}, nil})
	}),
	parts("an index.json that is a file and a folder", func(_ testing.TB, _ *Good, _ *Content, list []Part) []Part {
		return append(list, Part{tar.Header{Name: "index.json/", Typeflag: tar.TypeDir, Mode: 0o755}, nil})
	}),
	parts("blobs that are a link to elsewhere", func(_ testing.TB, _ *Good, _ *Content, list []Part) []Part {
		return append(list, Part{tar.Header{Name: "blobs", Typeflag: tar.TypeSymlink, Linkname: "evil"}, nil})
	}),
	parts("a blob twice", func(t testing.TB, _ *Good, c *Content, list []Part) []Part {
		return append(list, Part{fileHeader("blobs/" + strings.Replace(c.First(t).Layers[2].Digest.String(), ":", "/", 1)), []byte("evil")})
	}),
	parts("a manifest.json that names another image", func(t testing.TB, g *Good, c *Content, list []Part) []Part {
		m := c.First(t)
		evil, err := v1.ParseManifest(bytes.NewReader(c.Blobs[g.Evil(t, c).Digest.String()]))
		check(t, err)
		m.Layers = evil.Layers[:3]
		return append(list, Part{fileHeader("manifest.json"), savedJSON(t, m, blobName)})
	}),
	parts("a manifest.json that names the image of another platform", func(t testing.TB, _ *Good, c *Content, list []Part) []Part {
		m, err := v1.ParseManifest(bytes.NewReader(c.Blobs[c.Manifests(t).Manifests[1].Digest.String()]))
		check(t, err)
		m.Layers[0] = c.First(t).Layers[1]
		return append(list, Part{fileHeader("manifest.json"), savedJSON(t, m, blobName)})
	}),
	parts("a manifest.json that is no JSON beside index.json", func(_ testing.TB, _ *Good, _ *Content, list []Part) []Part {
		return append(list, Part{fileHeader("manifest.json"), []byte("{")})
	}),
	parts("no index.json", func(_ testing.TB, _ *Good, _ *Content, list []Part) []Part {
		return slices.DeleteFunc(list, func(p Part) bool { return p.Header.Name == "index.json" })
	}),
	parts("an index.json that is only a link to outside", func(_ testing.TB, _ *Good, _ *Content, list []Part) []Part {
		list = slices.DeleteFunc(list, func(p Part) bool { return p.Header.Name == "index.json" })
		return append(list, Part{tar.Header{Name: "index.json", Typeflag: tar.TypeSymlink, Linkname: "../../../../etc/passwd"}, nil})
	}),
	// What docker save writes.
	saved("layers of docker save in another order", func(_ testing.TB, m *v1.Manifest, _ []Part) []Part {
		m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0]
		return nil
	}),
	saved("a layer of docker save left out", func(_ testing.TB, m *v1.Manifest, _ []Part) []Part {
		m.Layers = m.Layers[:3]
		return nil
	}),
	saved("another config of docker save", func(t testing.TB, m *v1.Manifest, list []Part) []Part {
		for i := range list {
			if strings.Contains(list[i].Header.Name, m.Config.Digest.Hex) {
				list[i].Content = inserted(t, `"config":{`, `"User":"65532",`)(list[i].Content)
			}
		}
		return list
	}),
	saved("a config of docker save that is no JSON", func(_ testing.TB, m *v1.Manifest, list []Part) []Part {
		for i := range list {
			if strings.Contains(list[i].Header.Name, m.Config.Digest.Hex) {
				list[i].Content = []byte("evil\x1b[2J")
			}
		}
		return list
	}),
	saved("a layer of docker save with one other bit", func(_ testing.TB, m *v1.Manifest, list []Part) []Part {
		for i := range list {
			if strings.Contains(list[i].Header.Name, m.Layers[2].Digest.Hex) {
				list[i].Content = flipped(list[i].Content)
			}
		}
		return list
	}),
	saved("a layer of docker save that is not there", func(_ testing.TB, m *v1.Manifest, list []Part) []Part {
		return slices.DeleteFunc(list, func(p Part) bool { return strings.Contains(p.Header.Name, m.Layers[2].Digest.Hex) })
	}),
	saved("layers of docker save that link to each other", func(_ testing.TB, m *v1.Manifest, list []Part) []Part {
		list = slices.DeleteFunc(list, func(p Part) bool { return strings.Contains(p.Header.Name, m.Layers[2].Digest.Hex) })
		name := savedName(m.Layers[2].Digest.String())
		return append(list, Part{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "x"}, nil}, Part{tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: name}, nil})
	}),
	saved("a layer of docker save that is a file of this machine", func(_ testing.TB, m *v1.Manifest, list []Part) []Part {
		list = slices.DeleteFunc(list, func(p Part) bool { return strings.Contains(p.Header.Name, m.Layers[2].Digest.Hex) })
		return append(list, Part{tar.Header{Name: savedName(m.Layers[2].Digest.String()), Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, nil})
	}),
	savedList("two images of docker save", func(one string) string { return "[" + one + "," + one + "]" }),
	savedList("no image of docker save", func(string) string { return "[]" }),
	savedList("a manifest.json that is no list", func(one string) string { return one }),
	savedList("bytes behind manifest.json", func(one string) string { return "[" + one + "]evil" }),
	savedList("layers twice in manifest.json", func(one string) string { return strings.Replace("["+one+"]", `"Layers":`, `"Layers":[],"Layers":`, 1) }),
	savedList("layers in small letters in manifest.json", func(one string) string {
		return strings.Replace("["+one+"]", `"Layers":`, `"layers":["evil"],"Layers":`, 1)
	}),
}

func fileHeader(name string) tar.Header { return tar.Header{Name: name, Mode: 0o644} }

// parts of a layout, sorted by name.
func (c *Content) parts(t testing.TB) (list []Part) {
	files := c.files(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, Part{fileHeader(name), files[name]})
	}
	return list
}

func writeArchive(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	check(t, os.WriteFile(name, data, 0o644))
	return name
}

// archive is an attack on the bytes of an archive of a layout.
func archive(name string, change func(testing.TB, *Content, []byte) []byte, more ...string) Attack {
	return Attack{Name: name, Commands: append([]string{"verify"}, more...), Files: func(t testing.TB, c *Content) string {
		return writeArchive(t, change(t, c, Tar(t, c.parts(t))))
	}}
}

// parts is an attack on the entries of an archive of a layout.
func parts(name string, change func(testing.TB, *Good, *Content, []Part) []Part) Attack {
	return Attack{Name: name, Commands: []string{"verify", "verify --platform linux/amd64"}, Make: func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		change(t, g, c, nil) // puts its blobs there
		c.archive = func() []byte { return Tar(t, change(t, g, c, c.parts(t))) }
		return c
	}, Files: func(t testing.TB, c *Content) string { return writeArchive(t, c.archive()) }}
}

func blobName(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func savedName(digest string) string { return strings.TrimPrefix(digest, "sha256:") + ".tar" }

// savedJSON is the entry of an image in docker save's manifest.json.
func savedJSON(t testing.TB, m *v1.Manifest, name func(digest string) string) []byte {
	t.Helper()
	return []byte("[" + savedEntry(t, m, name) + "]")
}

func savedEntry(t testing.TB, m *v1.Manifest, name func(digest string) string) string {
	t.Helper()
	var layers []string
	for _, l := range m.Layers {
		layers = append(layers, name(l.Digest.String()))
	}
	data, err := json.Marshal(map[string]any{"Config": name(m.Config.Digest.String()), "RepoTags": []string{"derper:1"}, "Layers": layers})
	check(t, err)
	return string(data)
}

// saves are the blobs of an image as docker save writes them.
func (c *Content) saves(m *v1.Manifest) (list []Part) {
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		list = append(list, Part{fileHeader(savedName(d.Digest.String())), c.Blobs[d.Digest.String()]})
	}
	return list
}

// saved is an attack on what docker save wrote. change may change the manifest, which
// stands for manifest.json, and the other files.
func saved(name string, change func(testing.TB, *v1.Manifest, []Part) []Part) Attack {
	return Attack{Name: name, Files: func(t testing.TB, c *Content) string {
		m := c.First(t)
		m.MediaType = types.OCIManifestSchema1
		list := c.saves(m)
		if changed := change(t, m, list); changed != nil {
			list = changed
		}
		return writeArchive(t, Tar(t, append(list, Part{fileHeader("manifest.json"), savedJSON(t, m, savedName)})))
	}}
}

// savedList is an attack on the text of manifest.json.
func savedList(name string, change func(string) string) Attack {
	return Attack{Name: name, Files: func(t testing.TB, c *Content) string {
		m := c.First(t)
		return writeArchive(t, Tar(t, append(c.saves(m), Part{fileHeader("manifest.json"), []byte(change(savedEntry(t, m, savedName)))})))
	}}
}
