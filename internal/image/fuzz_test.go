package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// smallLayout has the files of a layout of one image for linux/amd64, and the manifest.json
// of docker save that names it, too.
func smallLayout() fstest.MapFS {
	files := fstest.MapFS{"oci-layout": {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	blob := func(mediaType, content string) string {
		digest := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
		files["blobs/sha256/"+digest] = &fstest.MapFile{Data: []byte(content)}
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d}`, mediaType, digest, len(content))
	}
	name := func(descriptor string) string {
		_, digest, _ := strings.Cut(descriptor, "sha256:")
		return "blobs/sha256/" + digest[:64]
	}
	layer := blob("layer.v1.tar", "x")
	config := blob("config.v1+json", `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:`+path.Base(name(layer))+`"]}}`)
	manifest := blob("manifest.v1+json", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":`+config+`,"layers":[`+layer+`]}`)
	entry := strings.TrimSuffix(manifest, "}") + `,"platform":{"architecture":"amd64","os":"linux"}}`
	index := blob("index.v1+json", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+entry+`]}`)
	files["index.json"] = &fstest.MapFile{Data: []byte(`{"schemaVersion":2,"manifests":[` + index + `]}`)}
	files["manifest.json"] = &fstest.MapFile{Data: []byte(`[{"Config":"` + name(config) + `","Layers":["` + name(layer) + `"]}]`)}
	return files
}

// packed is a tar of files, in the order of names.
func packed(t testing.TB, files fstest.MapFS, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var err error
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644}
		if to, link := strings.CutPrefix(name, "link:"); link {
			h.Name, h.Typeflag, h.Linkname = "a/layer.tar", tar.TypeSymlink, to
		} else {
			h.Size = int64(len(files[name].Data))
		}
		err = errors.Join(err, w.WriteHeader(h))
		if h.Size > 0 {
			_, werr := w.Write(files[name].Data)
			err = errors.Join(err, werr)
		}
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// blobsOf are the digests of what is in a layout.
func blobsOf(files fstest.MapFS) (digests []string) {
	for name := range files {
		if strings.HasPrefix(name, "blobs/") {
			digests = append(digests, path.Base(name))
		}
	}
	return digests
}

// FuzzArchive guards against archives that load as another image elsewhere: in one that is
// opened, no two names are the same for any system, and what is read of it is what its
// digest names. One entry gets the name of another, by the halves of rename, and the checksums
// of the tar's headers are put right.
func FuzzArchive(f *testing.F) {
	files := smallLayout()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
	}
	files["indey.json"] = files["index.json"] // a bit away from a name that is there twice
	for _, seed := range [][]string{
		append(without("manifest.json"), "indey.json"),
		append([]string{"indey.json"}, without("manifest.json")...),
		without("index.json"),
		names,
		append(without("index.json"), "link:../"+names[0]),
	} {
		archive := packed(f, files, seed...)
		if _, err := openArchive(bytes.NewReader(archive)); err != nil {
			f.Fatalf("%q: %v", seed, err)
		}
		f.Add(archive, byte(0))
	}
	f.Fuzz(func(t *testing.T, archive []byte, rename byte) {
		archive = bytes.Clone(archive)
		var headers [][]byte
		for at := 0; at+512 <= len(archive); at += 512 {
			if string(archive[at+257:at+262]) == "ustar" {
				headers = append(headers, archive[at:])
			}
		}
		if to, from := int(rename>>4), int(rename&15); max(to, from) < len(headers) {
			copy(headers[to][:100], headers[from][:100]) // the names
		}
		tartest.Mend(archive)
		o, err := openArchive(bytes.NewReader(archive))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for tr := tar.NewReader(bytes.NewReader(archive)); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("is opened, and cannot be read: %v", err)
			}
			name := strings.ToLower(path.Clean("/" + h.Name))
			if seen[name] && h.Typeflag != tar.TypeDir {
				t.Fatalf("has %q twice", name)
			}
			seen[name] = true
		}
		if o.Saved != nil {
			if len(o.Saved.Config) > MaxManifest || len(o.Saved.Config) > len(archive) {
				t.Errorf("the config has %d bytes", len(o.Saved.Config))
			}
			for _, layer := range o.Saved.Layers {
				if r, err := layer(); err == nil {
					if n, err := io.Copy(io.Discard, r); err != nil || n > int64(len(archive)) {
						t.Errorf("a layer of %d bytes, %v", n, err)
					}
				}
			}
		}
		checkOpened(t, o)
	})
}

// FuzzLayout guards against an index.json, or an index or manifest below it, that gives
// something else than what it names.
func FuzzLayout(f *testing.F) {
	files := smallLayout()
	delete(files, "manifest.json")
	blobs := blobsOf(files)
	f.Add(files["index.json"].Data, []byte{})
	none := strings.Repeat("0", 64)
	for _, digest := range blobs {
		f.Add([]byte(`{"manifests":[{"digest":"sha256:`+none+`","size":9},{"digest":"sha256:`+digest+`"}]}`), files["blobs/sha256/"+digest].Data)
	}
	f.Fuzz(func(t *testing.T, top, index []byte) {
		layout := fstest.MapFS{"index.json": {Data: top}}
		for name, file := range files {
			if name != "index.json" {
				layout[name] = file
			}
		}
		if len(index) > 0 { // which the zeros name
			sum := sha256.Sum256(index)
			digest := hex.EncodeToString(sum[:])
			layout["blobs/sha256/"+digest] = &fstest.MapFile{Data: index}
			layout["index.json"] = &fstest.MapFile{Data: bytes.ReplaceAll(top, []byte(none), []byte(digest))}
		}
		if o, err := openFiles(layout, false); err == nil {
			checkOpened(t, o)
		}
	})
}

// checkOpened asks for all that an opened layout or archive has, and expects of each document
// that it is what its digest names.
func checkOpened(t *testing.T, o *Opened) {
	t.Helper()
	ctx := context.Background()
	for _, d := range o.Entries {
		if data, err := o.Manifest(ctx, d.Digest); err == nil {
			if got, _, _ := v1.SHA256(bytes.NewReader(data)); got != d.Digest || len(data) > MaxManifest {
				t.Errorf("%s has digest %s", d.Digest, got)
			}
		}
		if _, err := o.Size(d.Digest); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("size of %s: %v", d.Digest, err)
		}
	}
	img, err := ForPlatform(ctx, o, o.Entries, v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("what is missing is no corrupt layout: %v", err)
		}
		return
	}
	digest, err := img.Digest()
	raw, rawErr := img.RawManifest()
	if err := errors.Join(err, rawErr); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := v1.SHA256(bytes.NewReader(raw)); got != digest {
		t.Errorf("the image %s has digest %s", digest, got)
	}
	m, err := img.Manifest()
	if err != nil {
		return
	}
	if config, err := img.RawConfigFile(); err == nil {
		if got, _, _ := v1.SHA256(bytes.NewReader(config)); got != m.Config.Digest {
			t.Errorf("the config %s has digest %s", m.Config.Digest, got)
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return
	}
	for i, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			continue
		}
		data, err := io.ReadAll(r)
		r.Close()
		if got, _, _ := v1.SHA256(bytes.NewReader(data)); err == nil && got != m.Layers[i].Digest {
			t.Errorf("the layer %s has digest %s", m.Layers[i].Digest, got)
		}
	}
}
