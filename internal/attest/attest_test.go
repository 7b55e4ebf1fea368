package attest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// The digests of what is stated about a small image that never changes. They may change
// with the image's format, its config, the plan, or what the statements say, and
// then all provenance and SBOMs do; anything else that changes them breaks the promise that the same lock
// gives the same bytes.
func TestGolden(t *testing.T) {
	for range 2 {
		set := attesttest.Set(t, attesttest.Build(t, nil))
		got := []string{digest(set.Provenance)}
		for _, doc := range set.SBOMs {
			got = append(got, digest(doc))
		}
		want := []string{
			"369aeaa7136f1af2df0559b82108248c13f0d74f7f6e85fb3ac83180c2db5b08",
			"14f17f1e10910666f9d70433c546a668955c52a637be53cbc3c39ef88b0fafb2",
			"9b8d325ecc3c32b5c7072367b0937b771c8e606d5a14bf071471ba4c4d884607",
			"48cdb98865b33e90ca14bc6c8b57bbf264aee63ea3ab154ef7c54f1b5b786c17",
		}
		if !slices.Equal(got, want) {
			t.Errorf("provenance and SBOMs of the index and two platforms are\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// parseSBOM reads a document as other programs do, and checks that it is a valid one.
func parseSBOM(t testing.TB, data []byte) *spdx.Document {
	t.Helper()
	doc, err := spdxjson.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	// What the library does not look at. Source: SPDX 2.3, clauses 6 to 11.
	ids := map[common.ElementID]bool{}
	once := func(id common.ElementID) {
		if ids[id] {
			t.Errorf("element %s is there twice", id)
		}
		ids[id] = true
		if strings.Trim(string(id), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" {
			t.Errorf("element %q: SPDX allows no such identifier", id)
		}
	}
	for _, p := range doc.Packages {
		once(p.PackageSPDXIdentifier)
		if p.FilesAnalyzed != (p.PackageVerificationCode != nil) {
			t.Errorf("package %s: files analyzed: %v, verification code: %v", p.PackageName, p.FilesAnalyzed, p.PackageVerificationCode)
		}
	}
	for _, f := range doc.Files {
		once(f.FileSPDXIdentifier)
		if len(f.Checksums) != 2 || f.Checksums[0].Algorithm != common.SHA1 || f.Checksums[1].Algorithm != common.SHA256 {
			t.Errorf("file %s: checksums %v", f.FileName, f.Checksums)
		}
	}
	if doc.SPDXVersion != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" {
		t.Errorf("%s under %s", doc.SPDXVersion, doc.DataLicense)
	}
	return doc
}

// licences are the declared licences of a document's packages by name.
func licences(doc *spdx.Document) map[string]string {
	found := map[string]string{}
	for _, p := range doc.Packages {
		found[p.PackageName] = p.PackageLicenseDeclared
	}
	return found
}

func TestSBOM(t *testing.T) {
	set := attesttest.Set(t, attesttest.Build(t, nil))
	doc := parseSBOM(t, set.SBOMs[2])
	hex := set.Subjects[2].Descriptor.Digest.Hex
	if want := "https://github.com/xavieralpha/derper/spdx/sha256/" + hex; doc.DocumentNamespace != want {
		t.Errorf("namespace %s, not %s", doc.DocumentNamespace, want)
	}
	if doc.CreationInfo.Created != "2026-01-02T03:04:05Z" {
		t.Errorf("created %s, not at the time of the release's commit", doc.CreationInfo.Created)
	}
	want := map[string]string{
		"derper":                        "BSD-3-Clause",
		"tailscale.com":                 "BSD-3-Clause AND MIT",
		"example.com/Dep":               "MIT",
		"example.com/other":             "NOASSERTION", // nobody knows that licence
		"stdlib":                        "BSD-3-Clause",
		"github.com/xavieralpha/derper": "BSD-3-Clause",
		lock.RootsModule:                "BSD-3-Clause",
	}
	if got := licences(doc); !reflect.DeepEqual(got, want) {
		t.Errorf("licences %v, not %v", got, want)
	}
	var purls []string
	for _, p := range doc.Packages {
		for _, r := range p.PackageExternalReferences {
			purls = append(purls, r.Locator+" "+r.ExternalRefComment)
		}
	}
	wantPURLs := []string{
		"pkg:oci/derper@sha256%3A" + hex + "?arch=arm%2Fv7&os=linux ",
		"pkg:golang/example.com/dep@v1.0.0%2Bincompatible " + attesttest.H1("dep"),
		"pkg:golang/example.com/other@v0.1.0 " + attesttest.H1("other"),
		"pkg:golang/github.com/xavieralpha/derper ",
		"pkg:golang/golang.org/x/crypto/x509roots/fallback@v0.0.0-20260101000000-0123456789ab " + attesttest.H1("roots"),
		"pkg:golang/stdlib@1.99.1 ",
		"pkg:golang/tailscale.com@v1.2.3 " + attesttest.H1("tailscale"),
	}
	if !slices.Equal(purls, wantPURLs) {
		t.Errorf("package URLs\n%s\nnot\n%s", strings.Join(purls, "\n"), strings.Join(wantPURLs, "\n"))
	}
	got := relations(doc, "./usr/local/bin/derper")
	wantRelations := []string{"DEPENDS_ON example.com/Dep", "DEPENDS_ON stdlib", "GENERATED_FROM tailscale.com"}
	if !slices.Equal(got, wantRelations) {
		t.Errorf("derper: %v, not %v", got, wantRelations)
	}
	if got := relations(doc, "./etc/ssl/certs/ca-certificates.crt"); !slices.Equal(got, []string{"GENERATED_FROM " + lock.RootsModule}) {
		t.Errorf("CA bundle: %v", got)
	}
}

// relations are what a file is related to, sorted.
func relations(doc *spdx.Document, name string) []string {
	names := map[common.ElementID]string{}
	for _, p := range doc.Packages {
		names[p.PackageSPDXIdentifier] = p.PackageName
	}
	var from common.ElementID
	for _, f := range doc.Files {
		if f.FileName == name {
			from = f.FileSPDXIdentifier
		}
	}
	var list []string
	for _, r := range doc.Relationships {
		if r.RefA.ElementRefID == from {
			list = append(list, r.Relationship+" "+names[r.RefB.ElementRefID])
		}
	}
	slices.Sort(list)
	return list
}

func TestIndexSBOM(t *testing.T) {
	set := attesttest.Set(t, attesttest.Build(t, nil))
	doc := parseSBOM(t, set.SBOMs[0])
	if len(doc.Packages) != 3 || len(doc.ExternalDocumentReferences) != 2 {
		t.Fatalf("%d packages and %d documents, not 3 and 2", len(doc.Packages), len(doc.ExternalDocumentReferences))
	}
	for i, s := range set.Subjects {
		if got := doc.Packages[i].PackageChecksums[0].Value; got != s.Descriptor.Digest.Hex {
			t.Errorf("package %d is %s, not %s", i, got, s.Descriptor.Digest)
		}
	}
	other := parseSBOM(t, set.SBOMs[1])
	if ref := doc.ExternalDocumentReferences[0]; ref.URI != other.DocumentNamespace {
		t.Errorf("document %s, not %s", ref.URI, other.DocumentNamespace)
	}
}

// The SBOM of the real image names every file of the image by its hash, and every
// module that go version -m names for each program.
func TestRealSBOM(t *testing.T) {
	const root = "../.."
	ctx := context.Background()
	l, err := lock.Read(filepath.Join(root, lock.File))
	if err != nil {
		t.Fatal(err)
	}
	img, closeCache, err := releasetest.Image(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	defer closeCache()
	platforms := []lock.Platform{"linux/" + lock.Platform(runtime.GOARCH)}
	attestation := attesttest.Attestation(t, l.Inputs, platforms[0], img)
	index, err := image.Index(l.Inputs, platforms, []v1.Image{img}, attestation)
	if err != nil {
		t.Fatal(err)
	}
	set := attesttest.Set(t, attest.Build{Lock: l, Index: index})
	doc := parseSBOM(t, set.SBOMs[1])
	for name, licence := range licences(doc) {
		if licence == attest.NoAssertion {
			t.Errorf("%s: licence not known", name)
		}
	}
	packages := map[string]string{} // h1 sum by module@version
	for _, p := range doc.Packages {
		packages[p.PackageName+"@"+p.PackageVersion] = p.PackageExternalReferences[0].ExternalRefComment
	}
	sums := map[string]string{}
	for _, f := range doc.Files {
		sums[f.FileName] = f.Checksums[1].Value
	}
	closeCache()
	dir := t.TempDir()
	if err := releasetest.Programs(ctx, root, dir); err != nil {
		t.Fatal(err)
	}
	named := 0
	for file, name := range map[string]string{"./usr/local/bin/derper": "derper", "./usr/local/bin/tailscaled": "tailscaled", "./entrypoint": "entrypoint"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if sums[file] != digest(data) {
			t.Errorf("%s: SHA-256 %s, not %s", file, sums[file], digest(data))
		}
		out, err := exec.Command("go", "version", "-m", filepath.Join(dir, name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		related := relations(doc, file)
		for line := range strings.Lines(string(out)) {
			f := strings.Split(strings.Trim(line, "\t\n"), "\t")
			if f[0] == "dep" {
				named++
				if sum, ok := packages[f[1]+"@"+f[2]]; !ok || sum != f[3] {
					t.Errorf("%s: %s@%s %s is not in the SBOM, or as %q", name, f[1], f[2], f[3], sum)
				}
				if !slices.Contains(related, "DEPENDS_ON "+f[1]) {
					t.Errorf("%s does not depend on %s", file, f[1])
				}
			}
			if f[0] == "mod" && !slices.Contains(related, "GENERATED_FROM "+f[1]) {
				t.Errorf("%s is not generated from %s", file, f[1])
			}
		}
	}
	if named < 50 || len(sums) < 50 {
		t.Errorf("only %d modules and %d files: the test looks at something else", named, len(sums))
	}
	t.Logf("%d modules named by go version -m, %d packages, %d files", named, len(doc.Packages), len(doc.Files))
}

func TestProvenance(t *testing.T) {
	b := attesttest.Build(t, nil)
	set := attesttest.Set(t, b)
	p, err := attest.ParseProvenance(set.Provenance)
	if err != nil {
		t.Fatal(err)
	}
	var in lock.Inputs
	data, err := json.Marshal(p.BuildDefinition.ExternalParameters.Lock)
	if err == nil {
		err = json.Unmarshal(data, &in)
	}
	if err != nil || !reflect.DeepEqual(in, b.Lock.Inputs.Image()) {
		t.Errorf("the lock comes back as %+v, %v", in, err)
	}
	var s attest.InToto
	if err := json.Unmarshal(set.Provenance, &s); err != nil {
		t.Fatal(err)
	}
	for i, subject := range set.Subjects {
		if s.Subject[i].Digest["sha256"] != subject.Descriptor.Digest.Hex {
			t.Errorf("subject %d is %v, not %s", i, s.Subject[i], subject.Descriptor.Digest)
		}
	}
	if s.Subject[2].Name != "derper:1.2.3-r0 linux/arm/v7" {
		t.Errorf("subject is named %q", s.Subject[2].Name)
	}
	// The flags are those that -trimpath keeps out of the programs.
	text := string(set.Provenance)
	for _, want := range []string{
		"-ldflags=-s -w -X tailscale.com/version.shortStamp=1.2.3", `"GOARM=7"`, `"-trimpath"`, `"host":"linux/amd64"`,
		`"uri":"git+https://github.com/tailscale/tailscale@refs/tags/v1.2.3","digest":{"gitCommit":"` + b.Lock.Inputs.Tailscale.Commit,
		"pkg:golang/golang.org/toolchain@v0.0.1-go1.99.1.darwin-arm64", "pkg:golang/example.com/other@v0.1.0",
		fmt.Sprintf(`{"dirHash":"%x"}`, sha256.Sum256([]byte("other"))),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the provenance has no %s", want)
		}
	}
	// What is in the index must not move with a comment in this project's code.
	for _, digest := range []string{"action:", "internal/", `"key"`, "sha256:"} {
		if strings.Contains(text, digest) {
			t.Errorf("the provenance has %s: it moves with the code that made it", digest)
		}
	}
	if strings.Contains(text, "invocationId") || strings.Contains(text, `"name":"derper","uri"`) {
		t.Error("the provenance says more than it was told")
	}
	b.Run = attest.Run{Builder: "https://example.com/workflow", Source: "https://example.com/fork", Commit: strings.Repeat("ab", 20), Invocation: "https://example.com/run/1"}
	text = string(attesttest.Set(t, b).Provenance)
	for _, want := range []string{
		`"id":"https://example.com/workflow"`, `"invocationId":"https://example.com/run/1"`,
		`"uri":"git+https://example.com/fork","digest":{"gitCommit":"` + b.Run.Commit,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the provenance of a run has no %s", want)
		}
	}
	if _, err := attest.ParseProvenance([]byte(`{"predicateType":"https://slsa.dev/provenance/v1","predicate":{"buildDefinition":{"buildType":"https://example.com"}}}`)); err == nil {
		t.Error("another build's provenance is taken for ours")
	}
}

// Nothing is stated about an image that the lock does not stand for.
func TestMakeRefuses(t *testing.T) {
	only := func(layer string, replace func(image.File) image.File) func(string, []image.File) []image.File {
		return func(name string, files []image.File) []image.File {
			if name != layer {
				return files
			}
			list := slices.Clone(files)
			list[len(list)-1] = replace(list[len(list)-1])
			return list
		}
	}
	tests := map[string]struct {
		change func(string, []image.File) []image.File
		want   string
	}{
		"another Go": {only(plan.Derper, func(f image.File) image.File { return attesttest.Program(f.Name, "go1.98.0", "x", "") }),
			"usr/local/bin/derper is compiled with go1.98.0, the lock has go1.99.1"},
		"another source": {only(plan.Derper, func(f image.File) image.File {
			return attesttest.Program(f.Name, "go1.99.1", "x", "mod\ttailscale.com\tv1.2.3\t"+attesttest.H1("evil")+"\n")
		}), "usr/local/bin/derper is compiled from v1.2.3 " + attesttest.H1("evil")},
		"no build information": {only(plan.Entrypoint, func(f image.File) image.File { return image.Text(f.Name, "\x7fELF") }),
			"entrypoint: says nothing of what it is made of"},
	}
	for name, test := range tests {
		_, err := attest.Make(context.Background(), attesttest.Build(t, test.change))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, wants %q", name, err, test.want)
		}
	}
	// An image of another commit, whose programs happen to be the same.
	b := attesttest.Build(t, nil)
	b.Lock.Inputs.Tailscale.Commit = strings.Repeat("f", 40)
	if _, err := attest.Make(context.Background(), b); err == nil || !strings.Contains(err.Error(), "the index has org.opencontainers.image.revision 0123") {
		t.Errorf("another commit: %v", err)
	}
	// Images of other layers than a build's, or than their own config's.
	b = attesttest.Build(t, nil)
	img, err := b.Index.Image(mustSubjects(t, b.Index)[1].Descriptor.Digest)
	if err != nil {
		t.Fatal(err)
	}
	more, err := mutate.AppendLayers(img, static.NewLayer(nil, types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs = config.RootFS.DiffIDs[:3]
	fewer, err := mutate.ConfigFile(img, config)
	if err != nil {
		t.Fatal(err)
	}
	for want, img := range map[string]v1.Image{"has 5 layers, not 4": more, "has 4 layers, its config names 3": fewer} {
		if b.Index, err = image.Index(b.Lock.Inputs, b.Lock.Inputs.Platforms[:1], []v1.Image{img}); err != nil {
			t.Fatal(err)
		}
		if _, err := attest.Make(t.Context(), b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, wants %q", err, want)
		}
	}
	// An index that states other things beside its images than what they are, or nothing.
	b = attesttest.Build(t, nil)
	var images, attestations []v1.Image
	for i, s := range mustSubjects(t, b.Index)[1:] {
		img, err := b.Index.Image(s.Descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
		other := b.Lock.Inputs
		other.Source = "https://example.com/fork"
		attestations = append(attestations, attesttest.Attestation(t, other, b.Lock.Inputs.Platforms[i], img))
	}
	for want, attestations := range map[string][]v1.Image{"linux/amd64: the index has the attestation sha256:": attestations, "linux/amd64: the index has the attestation none": nil} {
		var err error
		if b.Index, err = image.Index(b.Lock.Inputs, b.Lock.Inputs.Platforms, images, attestations...); err != nil {
			t.Fatal(err)
		}
		if _, err := attest.Make(t.Context(), b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, wants %q", err, want)
		}
	}
	// An image that differs from what the lock records.
	b = attesttest.Build(t, nil)
	outputs, err := attest.Outputs(context.Background(), b.Lock.Inputs, b.Index, mustSubjects(t, b.Index)[1])
	if err != nil {
		t.Fatal(err)
	}
	outputs.Layers[2].DiffID = "sha256:other"
	b.Lock.Outputs = map[string]*lock.Output{lock.Default: {Platforms: []lock.PlatformOutput{outputs}}}
	_, err = attest.Make(context.Background(), b)
	var difference *lock.Difference
	if !errors.As(err, &difference) || difference.What != "linux/amd64: content of layer derper" {
		t.Errorf("an image with another layer than the lock's: %v", err)
	}
}

// The mistake it guards: what is said of an image, and signed, is of one that no lock has
// on record. An index of some of the recorded images is another index.
func TestRecorded(t *testing.T) {
	b := attesttest.Build(t, nil)
	digest, err := b.Index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := attest.Recorded(b.Lock, b.Index); !errors.Is(err, lock.ErrNoOutputs) {
		t.Errorf("a lock without outputs: %v", err)
	}
	b.Lock.Outputs = map[string]*lock.Output{"another": {Index: digest.String()}}
	if err := attest.Recorded(b.Lock, b.Index); !errors.Is(err, lock.ErrNoOutputs) {
		t.Errorf("a lock with another variant's outputs: %v", err)
	}
	b.Lock.Outputs = map[string]*lock.Output{lock.Default: {Index: digest.String()}}
	if err := attest.Recorded(b.Lock, b.Index); err != nil {
		t.Errorf("what the lock records: %v", err)
	}
	some := mutate.RemoveManifests(b.Index, func(d v1.Descriptor) bool { return d.Platform != nil && d.Platform.Architecture == "arm" })
	var difference *lock.Difference
	if err := attest.Recorded(b.Lock, some); !errors.As(err, &difference) || difference.What != "index" || difference.Locked != digest.String() {
		t.Errorf("an index without one of its images: %v", err)
	}
}

// TestVariant guards that an image is compared with what the lock has of its own variant, that
// the documents name a variant a person could confuse with another, and that the
// provenance has nothing of the lock's other variants.
func TestVariant(t *testing.T) {
	other := attesttest.Other()
	b := attesttest.BuildOf(t, other)
	set := attesttest.Set(t, b)
	if set.Variant().Name != other.Name {
		t.Errorf("it is of %s", set.Variant().Name)
	}
	if name := "derper 1.2.3-r0 other linux/amd64"; !strings.Contains(string(set.SBOMs[1]), `"name": "`+name+`"`) {
		t.Errorf("the SBOM has no name %q: %.300s", name, set.SBOMs[1])
	}
	p, err := attest.ParseProvenance(set.Provenance)
	if err != nil {
		t.Fatal(err)
	}
	if list := p.BuildDefinition.ExternalParameters.Lock.Variants; len(list) != 1 || list[0].Name != other.Name {
		t.Errorf("it is made of the variants %+v", list)
	}
	digest, err := b.Index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	b.Lock.Outputs = map[string]*lock.Output{lock.Default: {Index: digest.String()}, other.Name: {Index: "another"}}
	if err := attest.Recorded(b.Lock, b.Index); !errors.As(err, new(*lock.Difference)) {
		t.Errorf("what the lock records of another variant: %v", err)
	}
	b.Lock.Outputs[other.Name].Index = digest.String()
	if err := attest.Recorded(b.Lock, b.Index); err != nil {
		t.Errorf("what the lock records: %v", err)
	}
	if b.Lock, err = b.Lock.Of(lock.Default); err != nil {
		t.Fatal(err)
	}
	if err := attest.Recorded(b.Lock, b.Index); err == nil || !strings.Contains(err.Error(), `no variant "other": it has default`) {
		t.Errorf("a variant that the lock does not have: %v", err)
	}
}

func mustSubjects(t testing.TB, index v1.ImageIndex) []attest.Subject {
	t.Helper()
	s, err := attest.Subjects(index)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIdentify(t *testing.T) {
	for text, want := range map[string][]string{
		attesttest.BSD: {"BSD-3-Clause"},
		attesttest.MIT: {"MIT"},
		attesttest.MIT + "\n---\n\n" + attesttest.BSD:                  {"BSD-3-Clause", "MIT"},
		"All rights reserved.\n":                                       nil,
		strings.Repeat("prose and more prose\n", 200) + attesttest.MIT: nil,
	} {
		if got := attest.Identify([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%.40q…: %v, not %v", text, got, want)
		}
	}
}
