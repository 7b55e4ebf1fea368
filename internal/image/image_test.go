package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/lock"
)

var mtime = time.Date(2026, 8, 19, 19, 7, 43, 0, time.UTC)

func inputs() lock.Inputs {
	in, _ := lock.Defaults().Of(lock.Default)
	in.Tailscale = lock.Tailscale{
		Version: "v1.102.3",
		Commit:  "53a0d659afa51835dd7a9283873cca44261454f8",
		Time:    mtime,
	}
	in.Go = lock.Go{Version: "go1.26.8"}
	in.Roots = lock.Module{Version: "v0.1.0"}
	in.Platforms = []lock.Platform{"linux/amd64", "linux/arm/v7"}
	in.Revision = 1
	return in
}

// noise is n bytes of content that compresses a little, always the same.
func noise(n int) string {
	const words = "derp relay node region probe stun magic key peer route "
	var b strings.Builder
	sum := sha256.Sum256([]byte("seed"))
	for b.Len() < n {
		sum = sha256.Sum256(sum[:])
		for _, c := range sum[:16] {
			i := int(c) % (len(words) - 8)
			b.WriteString(words[i : i+8])
		}
		b.Write(sum[16:])
	}
	return b.String()[:n]
}

// sampleFiles are the files of two layers. Everything that a layer can have is in
// them: a program of several blocks of the encoder, an empty file, a name that
// does not fit USTAR, a sticky folder, a folder with a mode of its own.
func sampleFiles(version string) map[string][]File {
	program := Text("usr/local/bin/program", version+noise(300_000))
	program.Mode = 0o755
	return map[string][]File{
		"base": {
			Text("etc/hosts", "127.0.0.1 localhost\n"),
			Text("etc/empty", ""),
			Text("usr/share/licenses/"+strings.Repeat("very-long-", 30)+"/LICENSE", "as you like\n"),
			Dir("tmp", 0o777|fs.ModeSticky),
			Dir("root", 0o700),
		},
		"program": {program},
	}
}

// layer writes files as a layer into memory.
func layer(t testing.TB, name string, files []File) *Layer {
	t.Helper()
	var blob bytes.Buffer
	diffID, err := WriteLayer(&blob, files, mtime)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(blob.Bytes())
	return &Layer{
		Layer: lock.Layer{Name: name, DiffID: diffID, Digest: "sha256:" + hex.EncodeToString(sum[:]), Bytes: int64(blob.Len())},
		Open:  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob.Bytes())), nil },
	}
}

// sampleImages makes an image for each platform, and their index. The version goes
// into the content of the second layer.
func sampleImages(t testing.TB, version string) ([]*Layer, []v1.Image, v1.ImageIndex) {
	t.Helper()
	if samples[version] == nil {
		files := sampleFiles(version)
		samples[version] = []Layer{*layer(t, "base", files["base"]), *layer(t, "program", files["program"])}
	}
	var layers []*Layer
	for _, l := range samples[version] {
		layers = append(layers, &l)
	}
	images, index := assemble(t, inputs(), layers)
	return layers, images, index
}

// samples keeps the layers of sampleImages, which take a while to compress.
var samples = map[string][]Layer{}

func assemble(t testing.TB, in lock.Inputs, layers []*Layer) ([]v1.Image, v1.ImageIndex) {
	t.Helper()
	var images []v1.Image
	for _, p := range in.Platforms {
		img, err := New(in, p, layers)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	index, err := Index(in, in.Platforms, images)
	if err != nil {
		t.Fatal(err)
	}
	return images, index
}

// The same inputs give the same digests, for everybody and for ever: who has an
// image can make it again and compare.
//
// They may change when what this package writes changes on purpose; every image made after
// that has another digest than the same release had before, so the change is worth a line
// in its message. A new version of a dependency or of Go is no reason: find out what it
// changed.
func TestGolden(t *testing.T) {
	layers, _, _ := sampleImages(t, "1")
	in := inputs()
	golden(t, in, layers, map[string]string{
		"index":                  "sha256:2cd451e4b72441bdbfc87c1fb94761eb473482e451e1f5e505e2720557e96a8e",
		"linux/amd64: config":    "sha256:cdecd22dab956dff38419b3ecfcd59bd76dad690eaf719ce0fb7c739a7c2af9e",
		"linux/amd64: manifest":  "sha256:16606addd32863087b5fc72c86432cdff379d42bae9db9f689c95b13dbc4c2e3",
		"linux/arm/v7: config":   "sha256:0aa5c26399c03427f82e83ac513af2d382ad84c1ee7b8dd5374aac360e510dde",
		"linux/arm/v7: manifest": "sha256:f29b9d3bb95bc4e40c03055c69331a7c6dfac1e1dca0a3c95cb9ed65cde90eae",
	})
}

// golden compares what is made of layers, and the layers, with digests.
func golden(t *testing.T, in lock.Inputs, layers []*Layer, want map[string]string) {
	t.Helper()
	maps.Copy(want, map[string]string{
		"base: DiffID":    "sha256:feaf6dd89f4b704f409d8b1597c019e591b3f7374a03e4be94a1566e3bdb68c1",
		"base: digest":    "sha256:8d9075965092b6813475adf49728a523568e40b6e5b60c61b8bb0e4b66d53e75",
		"program: DiffID": "sha256:e234c814faca41f11b4b254041ef1e1b2a0a96112b7dc4954c9c3fcafd1598df",
		"program: digest": "sha256:9a18cf365b7baa7c0824c0464bbddd824e03f647650097b39e53322827cc6168",
	})
	images, index := assemble(t, in, layers)
	got := map[string]string{}
	for _, l := range layers {
		got[l.Name+": DiffID"] = l.Layer.DiffID
		got[l.Name+": digest"] = l.Layer.Digest
	}
	for i, p := range inputs().Platforms {
		config, err := images[i].ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := images[i].Digest()
		if err != nil {
			t.Fatal(err)
		}
		got[string(p)+": config"] = config.String()
		got[string(p)+": manifest"] = manifest.String()
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	got["index"] = digest.String()
	for what, digest := range got {
		if want[what] != digest {
			t.Errorf("%q: %q,", what, digest)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d digests, not %d", len(got), len(want))
	}
}

func TestValid(t *testing.T) {
	_, images, index := sampleImages(t, "1")
	for i, img := range images {
		if err := validate.Image(img); err != nil {
			t.Errorf("%s: %v", inputs().Platforms[i], err)
		}
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
}

func TestMediaTypes(t *testing.T) {
	_, images, index := sampleImages(t, "1")
	if got, err := index.MediaType(); got != types.OCIImageIndex || err != nil {
		t.Errorf("index: %s, %v", got, err)
	}
	for _, img := range images {
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if m.MediaType != types.OCIManifestSchema1 || m.Config.MediaType != types.OCIConfigJSON {
			t.Errorf("manifest: %s, config: %s", m.MediaType, m.Config.MediaType)
		}
		for _, l := range m.Layers {
			if l.MediaType != types.OCILayer {
				t.Errorf("layer: %s", l.MediaType)
			}
		}
	}
}

// What docker inspect, skopeo inspect and a pull for a platform go by.
func TestMetadata(t *testing.T) {
	_, images, index := sampleImages(t, "1")
	want := map[string]string{
		"org.opencontainers.image.title":     "derper",
		"org.opencontainers.image.licenses":  "BSD-3-Clause",
		"org.opencontainers.image.version":   "1.102.3-r1",
		"org.opencontainers.image.revision":  "53a0d659afa51835dd7a9283873cca44261454f8",
		"org.opencontainers.image.created":   "2026-08-19T19:07:43Z",
		"org.opencontainers.image.source":    "https://github.com/xavieralpha/derper",
		"io.github.xavieralpha.derper.go":    "go1.26.8",
		"io.github.xavieralpha.derper.roots": "v0.1.0",

		"org.opencontainers.image.documentation": "https://github.com/xavieralpha/derper#readme",
		"io.github.xavieralpha.derper.tailscale": "v1.102.3",
		"io.github.xavieralpha.derper.format":    "3",
		"io.github.xavieralpha.derper.programs":  `[{"package":"tailscale.com/cmd/derper"},{"package":"tailscale.com/cmd/tailscaled"}]`,
		"io.github.xavieralpha.derper.variant":   `{"name":"default","programs":["tailscaled","derper"]}`,
	}
	check := func(where string, got map[string]string) {
		t.Helper()
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s: %s is %q, not %q", where, key, got[key], value)
			}
		}
		if got["org.opencontainers.image.description"] == "" {
			t.Errorf("%s: no description", where)
		}
	}
	top, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	check("index", top.Annotations)
	for i, platform := range []v1.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm", Variant: "v7"},
	} {
		if got := top.Manifests[i].Platform; got == nil || !got.Equals(platform) {
			t.Errorf("entry %d of the index is for %v, not %v", i, got, platform)
		}
		manifest, err := images[i].Manifest()
		if err != nil {
			t.Fatal(err)
		}
		check("manifest", manifest.Annotations)
		config, err := images[i].ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		check("labels", config.Config.Labels)
		if got := config.Platform(); !got.Equals(platform) {
			t.Errorf("config is for %v, not %v", got, platform)
		}
		if !config.Created.Equal(mtime) || len(config.History) != 2 || !config.History[0].Created.Equal(mtime) {
			t.Errorf("created %v, history %v", config.Created, config.History)
		}
		if got := config.Config.Entrypoint; len(got) != 1 || got[0] != "/entrypoint" || config.Config.User != "" || config.Config.WorkingDir != "/root" {
			t.Errorf("starts %q as %q in %s", got, config.Config.User, config.Config.WorkingDir)
		}
		for _, port := range []string{"80/tcp", "443/tcp", "3478/udp"} {
			if _, ok := config.Config.ExposedPorts[port]; !ok {
				t.Errorf("port %s is not exposed", port)
			}
		}
	}
}

// TestConfig guards two parts of the config, byte for byte, wherever the image goes. The
// environment has nothing that the program must know: a container that is made anew keeps
// it, whatever the new image says. The health check has a field that go-containerregistry's
// type lacks; the mistake it guards is a config that went through that type.
func TestConfig(t *testing.T) {
	_, images, index := sampleImages(t, "1")
	dir := t.TempDir()
	layout, archive := filepath.Join(dir, "layout"), filepath.Join(dir, "image.tar")
	if _, err := WriteLayout(layout, "test", index, false); err != nil {
		t.Fatal(err)
	}
	if err := WriteTarball(archive, "derper:1.102.3", images[0]); err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := ImageOf(t.Context(), opened(t, layout), list.Manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	raw := func(img v1.Image) []byte {
		t.Helper()
		data, err := img.RawConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for where, data := range map[string][]byte{"made": raw(images[0]), "in a layout": raw(stored), "in a docker archive": opened(t, archive).Saved.Config} {
		for _, want := range []string{
			`"Healthcheck":{"Test":["CMD","/entrypoint","healthcheck"],"Interval":30000000000,"Timeout":5000000000,"StartPeriod":30000000000,"StartInterval":1000000000,"Retries":3}`,
			`"Env":["PATH=/usr/local/bin"]`,
		} {
			if bytes.Count(data, []byte(want)) != 1 {
				t.Errorf("%s: the config does not say %s:\n%s", where, want, data)
			}
		}
	}
	// A config that is read and written again is the same.
	var file ConfigFile
	if err := json.Unmarshal(raw(images[0]), &file); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(file); err != nil || !bytes.Equal(again, raw(images[0])) {
		t.Errorf("read and written again, %v:\n%s\nwas\n%s", err, again, raw(images[0]))
	}
}

func TestLayerOpensBothWays(t *testing.T) {
	l := layer(t, "x", sampleFiles("1")["base"])
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, r); err != nil {
		t.Fatal(err)
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != l.Layer.DiffID {
		t.Errorf("unpacked it is %s, not its DiffID %s", got, l.Layer.DiffID)
	}
	l.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("text")), nil }
	if _, err := l.Uncompressed(); err == nil {
		t.Error("text was unpacked")
	}
}
