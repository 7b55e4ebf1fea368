package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// member is an entry of a tar with its content.
type member struct {
	tar.Header
	content string
}

func file(name, content string) member { return member{tar.Header{Name: name, Mode: 0o644}, content} }
func link(name, to string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Size = int64(len(m.content))
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layoutOf are the files of a layout of an image, and the manifest.json that Docker, since
// version 25, saves with it.
func layoutOf(t testing.TB, img v1.Image) (files []member, saved member) {
	t.Helper()
	dir := t.TempDir()
	top, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = top.AppendImage(img)
	}
	if err == nil {
		err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path.Join(dir, name))
			files = append(files, file(name, string(data)))
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var layers []string
	for _, l := range m.Layers {
		layers = append(layers, blobName(l.Digest))
	}
	data, err := json.Marshal([]map[string]any{{"Config": blobName(m.Config.Digest), "RepoTags": []string{"derper:1"}, "Layers": layers}})
	if err != nil {
		t.Fatal(err)
	}
	return files, file("manifest.json", string(data))
}

func randomImage(t testing.TB) v1.Image {
	t.Helper()
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestHostileArchive guards that an archive is read only if every program that loads it gets
// the same image from it.
// The mistake it guards: of two entries of one name, of a link and a file, and of two
// descriptions, we read one and docker load the other.
func TestHostileArchive(t *testing.T) {
	good, evil := randomImage(t), randomImage(t)
	files, saved := layoutOf(t, good)
	evilFiles, evilSaved := layoutOf(t, evil)
	at := func(name string) (member, int) {
		i := slices.IndexFunc(files, func(m member) bool { return m.Name == name })
		return files[i], i
	}
	index, indexAt := at("index.json")
	marker, markerAt := at("oci-layout")
	evilIndex := evilFiles[slices.IndexFunc(evilFiles, func(m member) bool { return m.Name == "index.json" })]
	with := func(more ...member) []byte { return tarOf(t, slices.Concat(files, more)...) }
	before := func(more ...member) []byte { return tarOf(t, slices.Concat(more, files)...) }
	blobs := slices.DeleteFunc(slices.Clone(evilFiles), func(m member) bool { return !strings.HasPrefix(m.Name, "blobs/") })
	instead := func(i int, m member) []byte {
		list := slices.Clone(files)
		list[i] = m
		return tarOf(t, list...)
	}
	edited := func(old, new string) []byte {
		if !strings.Contains(index.content, old) {
			t.Fatalf("index.json has no %s", old)
		}
		return instead(indexAt, file("index.json", strings.Replace(index.content, old, new, 1)))
	}
	dir := func(name string) member {
		return member{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
	}
	typed := func(name string, typ byte) member { return member{tar.Header{Name: name, Typeflag: typ}, ""} }
	hard := member{tar.Header{Name: "a/layer.tar", Typeflag: tar.TypeLink, Linkname: "index.json"}, ""}
	sparse := func() []byte { // the old form of GNU, which archive/tar does not write
		data := tarOf(t, file("sparse", "x"))
		h := data[:512]
		h[156] = 'S'
		copy(h[257:], "ustar  \x00")
		copy(h[386:], "00000000000\x0000000000001\x00") // one piece
		copy(h[483:], "77777777777\x00")                // 8 GiB
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0})
		return data
	}
	list := func(names ...string) string {
		data, err := json.Marshal([]map[string]any{{"Config": names[0], "Layers": names[1:]}})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	config, err := good.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	two := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: good}, mutate.IndexAddendum{Add: evil})
	twoRaw, err := two.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	twoDigest, twoSize, err := v1.SHA256(bytes.NewReader(twoRaw))
	if err != nil {
		t.Fatal(err)
	}
	twoTop, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{MediaType: "application/vnd.oci.image.index.v1+json", Digest: twoDigest, Size: twoSize}}})
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name string
		tar  []byte
		says string // "" for what is read
	}{
		{"a layout", with(), ""},
		{"a layout with folders, twice", with(dir("blobs/"), dir("blobs/sha256/"), dir("./"), dir("blobs/")), ""},
		{"a layout with names that begin with a dot", tarOf(t, func() (list []member) {
			for _, m := range files {
				list = append(list, file("./"+m.Name, m.content))
			}
			return list
		}()...), ""},
		{"what Docker saves since version 25", with(saved), ""},
		{"filled up with zeros", append(with(), make([]byte, 10240)...), ""},

		{"manifest.json of another image", with(append(blobs, evilSaved)...), "name different images"},
		{"manifest.json with fewer layers", with(file("manifest.json", list(func() []string {
			m, _ := good.Manifest()
			return []string{blobName(m.Config.Digest), blobName(m.Layers[0].Digest)}
		}()...))), "name different images"},
		{"manifest.json with the config elsewhere", with(file("config.json", string(config)), file("manifest.json", list("config.json"))), "name different images"},
		{"an index of two images, and manifest.json of one", tarOf(t, slices.Concat(slices.Delete(slices.Clone(files), indexAt, indexAt+1), blobs,
			[]member{file("index.json", string(twoTop)), file(blobName(twoDigest), string(twoRaw)), saved})...), "the first names 2 images"},
		{"index.json twice", with(evilIndex), `"index.json": duplicate name`},
		{"index.json twice, the other first", before(evilIndex), "duplicate name"},
		{"index.json once more with a dot", with(file("./index.json", evilIndex.content)), "duplicate name"},
		{"index.json once more in another case", with(file("Index.json", evilIndex.content)), "duplicate name"},
		{"a blob twice", with(files[0]), "duplicate name"},
		{"a link and a file", with(file("a/layer.tar", "x"), link("a/layer.tar", "../index.json")), "duplicate name"},
		{"a file and a folder", with(file("a", "x"), dir("a/")), "duplicate name"},
		{"a file in a file", with(file("a", "x"), file("a/b", "x")), "both a file and a folder"},
		{"a file in a link", with(link("a/layer.tar", "../index.json"), file("a/layer.tar/b", "x")), "both a file and a folder"},
		{"index.json as a link", tarOf(t, slices.Concat(slices.Delete(slices.Clone(files), indexAt, indexAt+1),
			[]member{file("evil.json", evilIndex.content), link("index.json", "evil.json")})...), "link: only those of docker save"},
		{"a link out of it", with(link("a/layer.tar", "../../etc/passwd")), "which is not a file in it"},
		{"a link to a path of the host", with(link("a/layer.tar", "/etc/passwd")), "which is not a file in it"},
		{"a link from the root, where there is a file of that name, too", with(file("a/b/layer.tar", "x"), file("b/layer.tar", "y"), link("a/layer.tar", "/b/layer.tar")), "which is not a file in it"},
		{"a link through a file", with(file("b", "x"), file("c/layer.tar", "y"), link("a/layer.tar", "../b/../c/layer.tar")), "which is not a file in it"},
		{"a link through nothing", with(file("c/layer.tar", "y"), link("a/layer.tar", "../b/../c/layer.tar")), "which is not a file in it"},
		{"a link to a link", with(link("a/layer.tar", "../b/layer.tar"), link("b/layer.tar", "../index.json")), "which is not a file in it"},
		{"a link to itself", with(link("a/layer.tar", "layer.tar")), "which is not a file in it"},
		{"a hard link", with(hard), "neither a file nor a folder"},
		{"a device", with(typed("a", tar.TypeChar)), "neither a file nor a folder"},
		{"a pipe", with(typed("a", tar.TypeFifo)), "neither a file nor a folder"},
		{"a header for all that follow", before(member{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "global", PAXRecords: map[string]string{"path": "index.json"}}, ""}), "neither a file nor a folder"},
		{"a name from the root", with(file("/index.json", "x")), "invalid name"},
		{"a name that leads out", with(file("../index.json", "x")), "invalid name"},
		{"a name that leads back", with(file("blobs/../index.json", "x")), "invalid name"},
		{"a name with an empty part", with(file("blobs//x", "x")), "invalid name"},
		{"a name of Windows", with(file(`blobs\x`, "x")), "invalid name"},
		{"a name that looks the same", with(file("index.j\u017fon", "x")), "invalid name"},
		{"a name that steers a terminal", with(file("\x1b[2J", "x")), "invalid name"},
		{"sparse, as GNU had it", sparse(), "is a sparse file"},
		{"sparse, as in PAX", append(sparsePAX(t), with()...), "is a sparse file"},
		{"a second archive behind it", append(with(), tarOf(t, evilIndex)...), "data after its end"},
		{"much behind it", append(with(), make([]byte, maxPadding+1)...), "data after its end"},
		{"a layout and an image of Docker 1.9", with(file("repositories", "{}")), "legacy form: repositories"},
		{"a layout and a layer of Docker 1.9", with(file("a/json", "{}"), file("a/layer.tar", "x")), "legacy form: a/json"},
		{"no oci-layout", tarOf(t, slices.Delete(slices.Clone(files), markerAt, markerAt+1)...), "index.json without oci-layout"},
		{"another oci-layout", instead(markerAt, file("oci-layout", `{"imageLayoutVersion":"2.0.0"}`)), `unsupported version "2.0.0", expected 1.0.0`},
		{"oci-layout with a key twice", instead(markerAt, file("oci-layout", `{"imageLayoutVersion":"2.0.0","imageLayoutVersion":"1.0.0"}`)), "duplicate object member name"},
		{"oci-layout too long", instead(markerAt, file("oci-layout", marker.content+strings.Repeat(" ", MaxManifest))), "more than 1 MiB"},
		{"index.json with a key twice", edited(`"manifests"`, `"manifests":[],"manifests"`), "duplicate object member name"},
		{"index.json with a key in another case", edited(`"digest"`, `"Digest"`), "differs in case"},
		{"index.json with data", edited(`"digest"`, `"data":"e30=","digest"`), "content outside of the layout"},
		{"index.json with urls", edited(`"digest"`, `"urls":["https://example.com"],"digest"`), "content outside of the layout"},
		{"index.json and more", instead(indexAt, file("index.json", index.content+evilIndex.content)), "index.json: corrupt"},
		{"manifest.json with a key twice", with(file("manifest.json", strings.Replace(saved.content, `"Config"`, `"Config":"x","Config"`, 1))), "duplicate object member name"},
		{"manifest.json with a key in two cases", with(file("manifest.json", strings.Replace(saved.content, `"Config"`, `"config":"x","Config"`, 1))), "duplicate object member name"},
		{"manifest.json with a key in another case", with(file("manifest.json", strings.Replace(saved.content, `"Config"`, `"config"`, 1))), "differs in case"},
		{"manifest.json of two images", with(file("manifest.json", "["+saved.content[1:len(saved.content)-1]+","+evilSaved.content[1:])), "names 2 images"},
		{"manifest.json that leads out", with(file("manifest.json", list("../config.json"))), "invalid file name"},
		{"manifest.json without its config", with(file("manifest.json", list("config.json"))), "config: corrupt"},
		{"nothing", tarOf(t), "without manifest.json and without index.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, err := openArchive(bytes.NewReader(test.tar))
			if err == nil && o.Saved == nil {
				_, err = o.Top()
			}
			switch {
			case test.says == "" && err != nil:
				t.Error(err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("error is %v, want %q", err, test.says)
			case err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound):
				t.Errorf("%v is neither corrupt nor no image", err)
			}
		})
	}
}

// sparsePAX is the beginning of an archive: a sparse file in the form of PAX, with a hole of 8 GiB.
func sparsePAX(t *testing.T) []byte {
	t.Helper()
	// archive/tar refuses to write these records.
	records := ""
	for _, r := range [][2]string{{"GNU.sparse.major", "0"}, {"GNU.sparse.minor", "1"}, {"GNU.sparse.name", "sparse"}, {"GNU.sparse.size", "8589934592"}, {"GNU.sparse.numblocks", "1"}, {"GNU.sparse.map", "0,0"}} {
		line := " " + r[0] + "=" + r[1] + "\n"
		n := len(line) + 2
		records += string(rune('0'+n/10)) + string(rune('0'+n%10)) + line
	}
	data := tarOf(t, file("PaxHeaders/sparse", records), file("sparse", ""))
	data = data[:len(data)-1024] // without an end
	h := data[:512]
	h[156] = 'x'
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0})
	return data
}

// TestSeveralEntries guards what a layout's index.json may name: one image, by as many names
// as it has.
func TestSeveralEntries(t *testing.T) {
	files, _ := layoutOf(t, randomImage(t))
	i := slices.IndexFunc(files, func(m member) bool { return m.Name == "index.json" })
	for name, test := range map[string]struct {
		change func(d *v1.Descriptor)
		says   string
	}{
		"two names":             {func(d *v1.Descriptor) { d.Annotations = map[string]string{refName: "2"} }, ""},
		"another media type":    {func(d *v1.Descriptor) { d.MediaType = "application/vnd.evil" }, "conflicting entries for"},
		"another platform":      {func(d *v1.Descriptor) { d.Platform = &v1.Platform{OS: "linux", Architecture: "s390x"} }, "conflicting entries for"},
		"another size":          {func(d *v1.Descriptor) { d.Size++ }, "conflicting entries for"},
		"another image":         {func(d *v1.Descriptor) { d.Digest.Hex = strings.Repeat("0", 64) }, "index.json names 2 images"},
		"another artifact type": {func(d *v1.Descriptor) { d.ArtifactType = "evil" }, "conflicting entries for"},
	} {
		m, err := ParseIndex([]byte(files[i].content))
		if err != nil {
			t.Fatal(err)
		}
		d := m.Manifests[0]
		test.change(&d)
		m.Manifests = append(m.Manifests, d)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		list := slices.Clone(files)
		list[i] = file("index.json", string(data))
		o, err := openArchive(bytes.NewReader(tarOf(t, list...)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Top(); test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: error is %v, want %q", name, err, test.says)
		}
	}
}
