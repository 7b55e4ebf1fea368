package verify

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
)

// TestHostileIndex guards that an index passes only if who pulls from it gets what was
// verified, when one of its platforms is asked for.
// The mistake it guards: where only some platforms are rebuilt, the rest of the index was not
// compared, so that it could have another image for the same platform.
func TestHostileIndex(t *testing.T) {
	f := newFixture(t)
	raw, err := f.index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	evil := imagetest.Annotate(t, f.images[0], "evil", "yes")
	evilManifest, err := evil.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	evilDigest, evilSize, err := v1.SHA256(bytes.NewReader(evilManifest))
	if err != nil {
		t.Fatal(err)
	}
	nested, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: evilDigest, Size: evilSize, Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	nestedDigest, nestedSize, err := v1.SHA256(bytes.NewReader(nested))
	if err != nil {
		t.Fatal(err)
	}

	// An entry for the evil image that calls itself an attestation of the good one.
	amd64 := f.output.Platforms[0].Manifest
	entry := func(change func(d *v1.Descriptor)) v1.Descriptor {
		d := v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Digest: evilDigest, Size: evilSize,
			Platform:     &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations:  map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": amd64},
			ArtifactType: image.AttestationType,
		}
		change(&d)
		return d
	}
	platform := func(os, arch, variant string) func(d *v1.Descriptor) {
		return func(d *v1.Descriptor) { d.Platform = &v1.Platform{OS: os, Architecture: arch, Variant: variant} }
	}
	plain := func(os, arch, variant string) func(d *v1.Descriptor) {
		return func(d *v1.Descriptor) {
			platform(os, arch, variant)(d)
			d.Annotations, d.ArtifactType = nil, string(types.OCIConfigJSON)
		}
	}
	first := func(change func(d *v1.Descriptor)) func(m *v1.IndexManifest) {
		return func(m *v1.IndexManifest) { m.Manifests = slices.Insert(m.Manifests, 0, entry(change)) }
	}
	last := func(change func(d *v1.Descriptor)) func(m *v1.IndexManifest) {
		return func(m *v1.IndexManifest) { m.Manifests = append(m.Manifests, entry(change)) }
	}
	edit := func(change func(m *v1.IndexManifest)) []byte {
		m, err := image.ParseIndex(raw)
		if err != nil {
			t.Fatal(err)
		}
		change(m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	// at changes an entry: 0 and 1 are the images for amd64 and arm64, 2 and 3 their attestations.
	at := func(i int, change func(d *v1.Descriptor)) []byte {
		return edit(func(m *v1.IndexManifest) { change(&m.Manifests[i]) })
	}
	swap := func(i, j int) []byte {
		return edit(func(m *v1.IndexManifest) { m.Manifests[i], m.Manifests[j] = m.Manifests[j], m.Manifests[i] })
	}
	replace := func(old, new string) []byte {
		if !bytes.Contains(raw, []byte(old)) {
			t.Fatalf("the index has no %s", old)
		}
		return bytes.Replace(raw, []byte(old), []byte(new), 1)
	}
	digest := `"digest":"` + amd64 + `"`
	wrong := strings.Replace(digest, amd64, evilDigest.String(), 1)
	nestedAs := func(change func(d *v1.Descriptor)) func(d *v1.Descriptor) {
		return func(d *v1.Descriptor) {
			d.MediaType, d.Digest, d.Size = types.OCIImageIndex, nestedDigest, nestedSize
			change(d)
		}
	}

	tests := []struct {
		name  string
		index []byte
		says  string // a difference, or
		err   string // why it is not read
	}{
		{"an attestation for a platform, first", edit(first(platform("linux", "amd64", ""))), "the index has linux/amd64 once more", ""},
		{"an attestation for a platform, last", edit(last(platform("linux", "amd64", ""))), "the index has linux/amd64 once more", ""},
		{"an attestation for no platform at all", edit(first(func(d *v1.Descriptor) { d.Platform = nil })), "go-containerregistry gets " + evilDigest.String(), ""},
		{"an attestation for an empty platform", edit(first(platform("", "", ""))), "the index has ", ""},
		{"an attestation for a variant of unknown", edit(first(platform("unknown", "unknown", "v8"))), "is not an attestation of an image in the index", ""},
		{"an attestation for unknown of linux", edit(first(platform("linux", "unknown", ""))), "is not an attestation of an image in the index", ""},
		{"an attestation with features", edit(last(func(d *v1.Descriptor) { d.Platform.OSFeatures = []string{"x"} })), "is not an attestation of an image in the index", ""},
		{"an attestation of Docker's media type", edit(last(func(d *v1.Descriptor) { d.MediaType = types.DockerManifestSchema2 })), "is not an attestation of an image in the index", ""},
		{"an attestation with urls", edit(last(func(d *v1.Descriptor) { d.URLs = []string{"https://example.com"} })), "is not an attestation of an image in the index", ""},
		{"an attestation of what is not there", edit(last(func(d *v1.Descriptor) { d.Annotations["vnd.docker.reference.digest"] = evilDigest.String() })), "is not an attestation of an image in the index", ""},
		{"an attestation of an attestation", edit(func(m *v1.IndexManifest) {
			last(func(d *v1.Descriptor) { d.Annotations["vnd.docker.reference.digest"] = m.Manifests[2].Digest.String() })(m)
		}), "is not an attestation of an image in the index", ""},
		{"a nested index that calls itself an attestation", edit(first(nestedAs(platform("linux", "amd64", "")))), "containerd gets " + nestedDigest.String(), ""},
		{"a nested index", edit(first(nestedAs(plain("linux", "amd64", "")))), "go-containerregistry gets " + nestedDigest.String(), ""},
		{"a nested index for no platform", edit(first(nestedAs(func(d *v1.Descriptor) { d.Platform = nil }))), "go-containerregistry gets " + nestedDigest.String(), ""},
		{"a nested index behind", edit(last(nestedAs(plain("linux", "arm64", "")))), "neither an image of a platform nor an attestation of one", ""},
		{"another name of the architecture", edit(first(plain("linux", "x86_64", ""))), "the index has linux/x86_64 besides", ""},
		{"another case of the system", edit(first(plain("Linux", "amd64", ""))), "the index has Linux/amd64 besides", ""},
		{"a variant of the architecture", edit(first(plain("linux", "amd64", "v3"))), "the index has linux/amd64/v3 besides", ""},
		{"the first variant of the architecture", edit(first(plain("linux", "amd64", "v1"))), "the index has linux/amd64/v1 besides", ""},
		{"another image of arm64", edit(first(plain("linux", "arm64", "v8"))), "linux/arm64", ""},
		{"the same entry twice", edit(func(m *v1.IndexManifest) { m.Manifests = append(m.Manifests, m.Manifests[0]) }), "the index has linux/amd64 once more", ""},
		{"something else", edit(first(func(d *v1.Descriptor) { d.MediaType = "application/vnd.evil" })), "application/vnd.evil for unknown/unknown", ""},
		{"a version of the system", at(0, func(d *v1.Descriptor) { d.Platform.OSVersion = "6.1" }), `.manifests["linux/amd64"].platform["os.version"]: image "6.1"`, ""},
		{"features of the system", at(0, func(d *v1.Descriptor) { d.Platform.OSFeatures = []string{"evil"} }), `.manifests["linux/amd64"].platform["os.features"]`, ""},
		{"data in place of the manifest", at(0, func(d *v1.Descriptor) { d.Data = evilManifest }), `.manifests["linux/amd64"].data`, ""},
		{"an address for the manifest", at(0, func(d *v1.Descriptor) { d.URLs = []string{"https://example.com/evil"} }), `.manifests["linux/amd64"].urls`, ""},
		{"another type of artifact", at(0, func(d *v1.Descriptor) { d.ArtifactType = "application/vnd.evil" }), `.manifests["linux/amd64"].artifactType: image "application/vnd.evil"`, ""},
		{"an annotation of an entry", at(0, func(d *v1.Descriptor) { d.Annotations = map[string]string{"evil": "yes"} }), `.manifests["linux/amd64"].annotations`, ""},
		{"a size that lies", at(0, func(d *v1.Descriptor) { d.Size++ }), `.manifests["linux/amd64"].size`, ""},
		{"Docker's media type", at(0, func(d *v1.Descriptor) { d.MediaType = types.DockerManifestSchema2 }), "", "its media type is application/vnd.oci.image.manifest.v1+json, its descriptor says application/vnd.docker"},
		{"an annotation of the other entry", at(1, func(d *v1.Descriptor) { d.Annotations = map[string]string{"evil": "yes"} }), `.manifests["linux/arm64"].annotations`, ""},
		{"a variant of the other entry", at(1, platform("linux", "arm64", "v8")), `.manifests["linux/arm64"].platform.variant: image "v8"`, ""},
		{"the other entry's size lies", at(1, func(d *v1.Descriptor) { d.Size++ }), `.manifests["linux/arm64"].size`, ""},
		{"an annotation of the other's attestation", at(3, func(d *v1.Descriptor) { d.Annotations["evil"] = "yes" }), `.manifests["attestation of linux/arm64"].annotations.evil`, ""},
		{"no attestation of the other image", edit(func(m *v1.IndexManifest) { m.Manifests = m.Manifests[:3] }), "the index has no attestation of the image", ""},
		{"two attestations of the other image", edit(func(m *v1.IndexManifest) { m.Manifests = append(m.Manifests, m.Manifests[3]) }), "", ""},
		{"order of the images", swap(0, 1), "the platforms are in another order: linux/arm64, linux/amd64", ""},
		{"order of the attestations", swap(2, 3), "in another order", ""},
		{"an attestation before its image", swap(1, 2), "in another order", ""},
		{"a subject", edit(func(m *v1.IndexManifest) { m.Subject = &m.Manifests[0] }), ".subject", ""},
		{"a type of artifact", edit(func(m *v1.IndexManifest) { m.ArtifactType = "application/vnd.evil" }), ".artifactType", ""},
		{"another schema", edit(func(m *v1.IndexManifest) { m.SchemaVersion = 1 }), ".schemaVersion", ""},
		{"no media type", edit(func(m *v1.IndexManifest) { m.MediaType = "" }), ".mediaType", ""},
		{"an unknown key", replace(`{"schemaVersion"`, `{"evil":1,"schemaVersion"`), ".evil", ""},
		{"other spaces", replace(`{"schemaVersion":`, `{ "schemaVersion":`), "the same values, written in another way", ""},
		{"escaped letters", replace(`"digest"`, `"\u0064igest"`), "the same values, written in another way", ""},
		{"a number written otherwise", replace(`"schemaVersion":2`, `"schemaVersion":2.0`), "", "corrupt"},
		{"an index and an image at once", replace(`{"schemaVersion"`, `{"layers":[],"schemaVersion"`), "", "with keys of both an index and an image"},
		{"an image's media type", replace(string(types.OCIImageIndex), string(types.OCIManifestSchema1)), "", "its media type is application/vnd.oci.image.manifest.v1+json, its descriptor says"},
		{"a key twice, wrong first", replace(digest, wrong+","+digest), "", `duplicate object member name "digest"`},
		{"a key twice, wrong last", replace(digest, digest+","+wrong), "", `duplicate object member name "digest"`},
		{"a key twice, once escaped", replace(digest, strings.Replace(wrong, "digest", `d\u0069gest`, 1)+","+digest), "", "duplicate object member name"},
		{"a key twice, in another case", replace(digest, digest+","+strings.Replace(wrong, "digest", "Digest", 1)), "", "duplicate object member name"},
		{"a key in another case", replace(digest, strings.Replace(digest, "digest", "Digest", 1)), "", "differs in case"},
		{"the list twice", replace(`"manifests":`, `"manifests":[],"manifests":`), "", `duplicate object member name "manifests"`},
		{"a key twice that nobody knows", replace(`{"schemaVersion"`, `{"x":1,"x":2,"schemaVersion"`), "", `duplicate object member name "x"`},
		{"no UTF-8", replace(`"annotations":{`, "\"annotations\":{\"evil\":\"\xff\","), "", "invalid UTF-8"},
		{"a byte order mark", append([]byte("\xef\xbb\xbf"), raw...), "", "invalid character"},
		{"a second document", append(slices.Clone(raw), raw...), "", "corrupt"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := f.layoutOf(t, f.index)
			putBlob(t, dir, evilManifest)
			putBlob(t, dir, nested)
			setIndex(t, dir, test.index)
			v := f.verifier(t)
			v.Platforms = f.platforms[:1] // a run of all compares more
			s := f.run(t, v, dir)
			if test.err != "" {
				wantError(t, s, image.ErrCorrupt, test.err)
				return
			}
			var said strings.Builder
			for _, e := range s.Explanations {
				said.WriteString(e.Text + "\n" + strings.Join(e.Details, "\n") + "\n")
			}
			if s.Verdict != Differs || !strings.Contains(said.String(), test.says) {
				t.Errorf("does not say %q:\n%s", test.says, text(s))
			}
		})
	}
}

// TestOneReading guards that an image is verified only if everybody reads the same of its
// documents, in a layout as in what docker save writes.
// The mistake it guards: of a duplicate key, the last value is compared with the rebuilt
// image's, and the first one is run.
func TestOneReading(t *testing.T) {
	f := newFixture(t, "linux/amd64")
	raw := func(data []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	manifest, config := raw(f.images[0].RawManifest()), raw(f.images[0].RawConfigFile())
	twice := func(data []byte, key string) []byte {
		return bytes.Replace(data, []byte(`"`+key+`":`), []byte(`"`+key+`":null,"`+key+`":`), 1)
	}
	evilConfig := twice(config, "config")
	ofConfig := bytes.ReplaceAll(manifest, []byte(hostile.Digest(config)), []byte(hostile.Digest(evilConfig)))
	ofConfig = bytes.Replace(ofConfig, []byte(`"size":`+strconv.Itoa(len(config))), []byte(`"size":`+strconv.Itoa(len(evilConfig))), 1)
	for name, evil := range map[string][]byte{"manifest": twice(manifest, "layers"), "config": ofConfig} {
		dir := oneImage(t, f.images[0])
		putBlob(t, dir, evilConfig)
		setIndex(t, dir, evil)
		s := f.verify(t, dir)
		wantError(t, s, image.ErrCorrupt, "duplicate object member name")
		if !strings.Contains(s.Error, name) && name == "config" {
			t.Errorf("does not say that it is the %s: %s", name, s.Error)
		}
	}
	evil := hostile.Tar(t, []hostile.Part{
		{Header: tar.Header{Name: "config.json", Mode: 0o644}, Content: evilConfig},
		{Header: tar.Header{Name: "manifest.json", Mode: 0o644}, Content: []byte(`[{"Config":"config.json","Layers":[]}]`)},
	})
	archive := filepath.Join(t.TempDir(), "evil.tar")
	writeFile(t, archive, evil)
	wantError(t, f.verify(t, archive), image.ErrCorrupt, "duplicate object member name")
}

// TestTwoDescriptions guards the archives of Docker since version 25, which are a layout, too.
// The mistake it guards: manifest.json is verified, and what reads the layout loads another
// image.
func TestTwoDescriptions(t *testing.T) {
	f := newFixture(t)
	archive := func(t *testing.T, layout v1.Image) string {
		dir := oneImage(t, layout)
		m, err := f.images[0].Manifest()
		if err != nil {
			t.Fatal(err)
		}
		layers := []string{}
		for _, l := range m.Layers {
			layers = append(layers, "blobs/sha256/"+l.Digest.Hex)
		}
		data, err := json.Marshal([]map[string]any{{"Config": "blobs/sha256/" + m.Config.Digest.Hex, "Layers": layers}})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "manifest.json"), data)
		config, err := f.images[0].RawConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		putBlob(t, dir, config)
		name := filepath.Join(t.TempDir(), "save.tar")
		writeFile(t, name, tarFolder(t, dir))
		return name
	}
	s := f.verify(t, archive(t, f.images[0]))
	wantVerified(t, s)
	wantSkip(t, s, LevelManifest, "a docker archive has none")
	wantError(t, f.verify(t, archive(t, f.images[1])), image.ErrCorrupt, "index.json and manifest.json: corrupt: they name different images")

	// The layout's own entry may lie, too.
	dir := oneImage(t, f.images[0])
	name := filepath.Join(dir, "index.json")
	top := bytes.Replace(readAllOf(t, name), []byte(`"digest"`), []byte(`"platform":{"os":"linux","architecture":"arm64"},"digest"`), 1)
	writeFile(t, name, top)
	wantFirst(t, f.verify(t, dir), LevelIndex, "the index calls it linux/arm64, and it is an image for linux/amd64")
}

// putBlob adds a blob to a layout.
func putBlob(t *testing.T, dir string, data []byte) {
	t.Helper()
	writeFile(t, filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(hostile.Digest(data), "sha256:")), data)
}

// setIndex makes a layout one of another index.
func setIndex(t *testing.T, dir string, index []byte) {
	t.Helper()
	putBlob(t, dir, index)
	name := filepath.Join(dir, "index.json")
	top, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ParseIndex(top)
	if err != nil {
		t.Fatal(err)
	}
	d := &m.Manifests[0]
	d.Platform = nil
	if d.Digest, d.Size, err = v1.SHA256(bytes.NewReader(index)); err != nil {
		t.Fatal(err)
	}
	if top, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	writeFile(t, name, top)
}
