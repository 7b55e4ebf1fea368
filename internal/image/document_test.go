package image

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestParse guards that a document has one reading: what Go reads of it is what everybody
// reads.
// The mistake it guards: encoding/json takes the last of two keys, and "Digest" for
// "digest", where others take the first, or nothing.
func TestParse(t *testing.T) {
	_, images, index := sampleImages(t, "1")
	raw := func(document interface{ RawManifest() ([]byte, error) }) string {
		data, err := document.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	config, err := images[0].RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		document, key string
		parse         func([]byte) error
	}{
		"index":    {raw(index), "digest", func(data []byte) error { _, err := ParseIndex(data); return err }},
		"manifest": {raw(images[0]), "digest", func(data []byte) error { _, err := ParseManifest(data); return err }},
		"config":   {string(config), "architecture", func(data []byte) error { _, err := ParseConfig(data); return err }},
	} {
		key := `"` + test.key + `":`
		if !strings.Contains(test.document, key) {
			t.Fatalf("no %s in the %s", key, what)
		}
		edit := func(to string) string { return strings.Replace(test.document, key, to, 1) }
		upper := `"` + strings.ToUpper(test.key[:1]) + test.key[1:] + `":`
		for name, data := range map[string]string{
			"a key twice":                         edit(key + `"x",` + key),
			"a key twice, in two cases":           edit(upper + `"x",` + key),
			"a key in another case":               edit(upper),
			"a key twice, escaped":                edit(`"\u00` + "6" + string("0123456789abcdef"[test.key[0]&15]) + test.key[1:] + `":"x",` + key),
			"an unknown key twice":                edit(`"x":{"y":1,"y":2},` + key),
			"no UTF-8":                            edit("\"x\":\"\xff\"," + key),
			"half a surrogate":                    edit(`"x":"\ud800",` + key),
			"a byte order mark":                   "\ufeff" + test.document,
			"UTF-16":                              "\xff\xfe" + test.document,
			"a comment":                           edit("/* */" + key),
			"something behind it":                 test.document + "x",
			"a second document":                   test.document + test.document,
			"a zero byte behind it":               test.document + "\x00",
			"cut off":                             test.document[:len(test.document)-1],
			"nothing":                             "",
			"nested without end":                  strings.Repeat("[", 100_000),
			"a number where there is a text":      edit(key + `1,"x":`),
			"a list where there should be a text": edit(key + `[],"x":`),
		} {
			if err := test.parse([]byte(data)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s with %s: %v", what, name, err)
			}
		}
		for name, data := range map[string]string{
			"as it is":               test.document,
			"with spaces around":     "\n " + test.document + "\r\n\t",
			"with an unknown key":    edit(`"evil":1,` + key),
			"with an unknown in two": edit(`"evil":1,"Evil":2,` + key),
		} {
			if err := test.parse([]byte(data)); err != nil {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
	}
	// Names that an author chose may be any.
	m, err := ParseManifest([]byte(`{"schemaVersion":2,"annotations":{"Digest":"1","digest":"2"}}`))
	if err != nil || m.Annotations["Digest"] != "1" {
		t.Errorf("%v, %v", m, err)
	}
}

// TestMediaType guards that nobody takes for an image what another takes for an index.
func TestMediaType(t *testing.T) {
	const index, img = types.OCIImageIndex, types.OCIManifestSchema1
	for _, test := range []struct {
		document string
		known    types.MediaType
		want     types.MediaType // "" for an error
	}{
		{`{"manifests":[]}`, "", index},
		{`{"manifests":[]}`, index, index},
		{`{"layers":[],"config":{}}`, "", img},
		{`{"layers":[],"config":{}}`, types.DockerManifestSchema2, types.DockerManifestSchema2},
		{`{"mediaType":"` + string(index) + `","manifests":[]}`, "", index},
		{`{"mediaType":"` + string(index) + `","manifests":[]}`, "application/json", index},
		{`{"mediaType":"` + string(index) + `","manifests":[]}`, types.DockerManifestList, ""},
		{`{"mediaType":"` + string(index) + `","manifests":[]}`, img, ""},
		{`{"mediaType":"` + string(img) + `","layers":[]}`, index, ""},
		{`{"mediaType":"` + string(img) + `","manifests":[]}`, img, ""},
		{`{"mediaType":"` + string(index) + `","manifests":[],"layers":[]}`, index, ""},
		{`{"manifests":[],"config":{}}`, img, ""},
		{`{"manifests":[],"config":{}}`, index, ""},
		{`{"manifests":[],"layers":null}`, index, ""},
		{`{"manifests":[],"fsLayers":[]}`, index, ""},
		{`{"layers":[]}`, index, ""},
		{`{"manifests":[]}`, img, ""},
		{`{"mediaType":"x","mediaType":"` + string(index) + `"}`, index, ""},
		{`{"MediaType":"` + string(index) + `","manifests":[]}`, index, ""},
		{`{}`, "", "an unknown document"},
		{`[]`, "", ""},
		{`null`, index, index}, // which then has no entry
	} {
		got, err := MediaType([]byte(test.document), test.known)
		if got != test.want || (err != nil) != (test.want == "") || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s, known as %s: %q, %v; want %q", test.document, test.known, got, err, test.want)
		}
	}
}

// TestAttests guards what is an attestation and what is not.
// The mistake it guards: an entry that calls itself one is left out, and is what pullers of
// a platform get.
func TestAttests(t *testing.T) {
	img := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: v1.Hash{Algorithm: "sha256", Hex: "1"}, Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}
	for name, test := range map[string]struct {
		change func(d *v1.Descriptor)
		want   bool
	}{
		"right":                  {func(d *v1.Descriptor) {}, true},
		"for a platform":         {func(d *v1.Descriptor) { d.Platform = img.Platform }, false},
		"for no platform":        {func(d *v1.Descriptor) { d.Platform = nil }, false},
		"for an empty platform":  {func(d *v1.Descriptor) { d.Platform = &v1.Platform{} }, false},
		"for an architecture":    {func(d *v1.Descriptor) { d.Platform.Architecture = "amd64" }, false},
		"for a system":           {func(d *v1.Descriptor) { d.Platform.OS = "linux" }, false},
		"for a variant":          {func(d *v1.Descriptor) { d.Platform.Variant = "v8" }, false},
		"for a version":          {func(d *v1.Descriptor) { d.Platform.OSVersion = "1" }, false},
		"for features of system": {func(d *v1.Descriptor) { d.Platform.OSFeatures = []string{"x"} }, false},
		"for features":           {func(d *v1.Descriptor) { d.Platform.Features = []string{"x"} }, false},
		"an index":               {func(d *v1.Descriptor) { d.MediaType = types.OCIImageIndex }, false},
		"of Docker":              {func(d *v1.Descriptor) { d.MediaType = types.DockerManifestSchema2 }, false},
		"something else":         {func(d *v1.Descriptor) { d.MediaType = "x" }, false},
		"with data":              {func(d *v1.Descriptor) { d.Data = []byte("x") }, false},
		"with urls":              {func(d *v1.Descriptor) { d.URLs = []string{"x"} }, false},
		"of no image":            {func(d *v1.Descriptor) { d.Annotations[referenceDigest] = "sha256:2" }, false},
		"of nothing":             {func(d *v1.Descriptor) { delete(d.Annotations, referenceDigest) }, false},
		"of itself":              {func(d *v1.Descriptor) { d.Annotations[referenceDigest] = d.Digest.String() }, false},
		"of another type":        {func(d *v1.Descriptor) { d.Annotations[referenceType] = "x" }, false},
	} {
		d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: v1.Hash{Algorithm: "sha256", Hex: "3"}, Platform: noPlatform(),
			Annotations: map[string]string{referenceType: attestationManifest, referenceDigest: img.Digest.String()}}
		test.change(&d)
		if about, got := Attests(d, []v1.Descriptor{img, d}); got != test.want || got && about != img.Digest.String() {
			t.Errorf("%s: %v, of %s", name, got, about)
		}
	}
}

// TestRawIndex guards that an index is the same, whether its images are at hand or only
// their digests.
func TestRawIndex(t *testing.T) {
	in := inputs()
	_, images, _ := sampleImages(t, "1")
	attestations := []v1.Image{attestation(t, "1"), attestation(t, "2")}
	index, err := Index(in, in.Platforms, images, attestations...)
	if err != nil {
		t.Fatal(err)
	}
	want, err := index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseIndex(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := RawIndex(in, in.Platforms, m.Manifests[:2], m.Manifests[2:])
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v\n%s\nnot\n%s", err, got, want)
	}
}

// attestation is an attestation manifest, with nothing in it.
func attestation(t *testing.T, name string) v1.Image {
	t.Helper()
	return &made{manifest: []byte(`{"schemaVersion":2,"mediaType":"` + string(types.OCIManifestSchema1) + `","artifactType":"` + AttestationType +
		`","config":{"mediaType":"application/vnd.oci.empty.v1+json"},"annotations":{"name":"` + name + `"}}`)}
}
