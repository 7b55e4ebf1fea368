package sign

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	reference "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	openvex "github.com/openvex/go-vex/pkg/vex"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/vex"
)

// known is a statement with what a scan of the first of August and some days more found: IDs
// of advisories about a module, which affect the image.
func known(t *testing.T, b attest.Build, days int, repositories []*registry.Repository, ids ...string) attest.Statement {
	t.Helper()
	scan := &vex.Scan{Program: "derper", Modified: time.Date(2026, 8, 1+days, 0, 0, 0, 0, time.UTC)}
	for _, id := range ids {
		scan.Findings = append(scan.Findings, vex.Finding{ID: id, Module: "example.com/dep", Version: "v1.0.0", Fixed: "v1.1.0", Level: vex.Called})
	}
	subjects, err := attest.Subjects(b.Index)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range repositories {
		names = append(names, r.String())
	}
	s, err := vex.NewReport(b.Lock.Inputs, scan).Statement(subjects, names)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asTrivy finds the OpenVEX document of an image as Trivy 0.74 does with --vex oci: the first
// in the order of the registry's list. nil if there is none.
// Source: github.com/aquasecurity/trivy, pkg/vex/oci/oci.go, pkg/oci/artifact.go.
func asTrivy(t *testing.T, r *registry.Repository, digest v1.Hash) *openvex.VEX {
	t.Helper()
	repository, err := reference.NewRepository(r.String())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(repository.Digest(digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list.Manifests {
		if d.ArtifactType != BundleType || !strings.HasPrefix(d.Annotations["in-toto.io/predicate-type"], openvex.TypeURI) {
			continue
		}
		img, err := remote.Image(repository.Digest(d.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := img.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, Trivy reads one: %v", len(layers), err)
		}
		rc, err := layers[0].Compressed()
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		var bundle struct {
			Envelope struct {
				Payload     []byte
				PayloadType string
			} `json:"dsseEnvelope"`
		}
		if err := json.NewDecoder(rc).Decode(&bundle); err != nil || bundle.Envelope.PayloadType != "application/vnd.in-toto+json" {
			t.Fatalf("payload type %q: %v", bundle.Envelope.PayloadType, err)
		}
		var statement struct{ Predicate json.RawMessage }
		if err := json.Unmarshal(bundle.Envelope.Payload, &statement); err != nil {
			t.Fatal(err)
		}
		doc, err := openvex.Parse(statement.Predicate)
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	return nil
}

// TestVEX guards against a scanner that goes on to read what was known of an image last month,
// or reads nothing; and against signing anew what is said already.
func TestVEX(t *testing.T) {
	b := attesttest.Build(t, nil)
	first, _ := pushed(t, registrytest.Distribution(t, registrytest.Options{}), "derper", b.Index)
	second, _ := pushed(t, registrytest.Memory(t, registrytest.Options{NoReferrers: true}), "me/derper", b.Index)
	both := []*registry.Repository{first, second}
	signer, other := newSigner(t, newKey(t)), newSigner(t, newKey(t))
	subjects, err := attest.Subjects(b.Index)
	if err != nil {
		t.Fatal(err)
	}
	attach(t, attesttest.Set(t, b), signer, both...)
	read := func(r *registry.Repository, s attest.Subject) string {
		t.Helper()
		doc := asTrivy(t, r, s.Descriptor.Digest)
		if doc == nil {
			return "none"
		}
		text := doc.Timestamp.Format(time.DateOnly)
		product := "pkg:oci/" + r.String()[strings.LastIndex(r.String(), "/")+1:] + "@" + strings.Replace(s.Descriptor.Digest.String(), ":", "%3A", 1) +
			"?repository_url=" + strings.NewReplacer("/", "%2F", ":", "%3A").Replace(r.String())
		for _, id := range []string{"GO-1", "GO-2"} {
			for _, m := range doc.Matches(id, product, []string{"pkg:golang/example.com/dep@v1.0.0"}) {
				text += " " + id + " " + string(m.Status)
			}
		}
		return text
	}
	if got := read(first, subjects[0]); got != "none" {
		t.Errorf("before: %s", got)
	}
	const one, two = "2026-08-02 GO-1 affected", "2026-08-04 GO-1 affected GO-2 affected"
	for _, step := range []struct {
		name              string
		days              int
		ids               []string
		to                []*registry.Repository
		attached, removed int // in each of them
		want              string
	}{
		{"the first", 1, []string{"GO-1"}, both[:1], 3, 0, one},
		{"the same again", 1, []string{"GO-1"}, both[:1], 0, 0, one},
		{"of a newer database, which says the same", 2, []string{"GO-1"}, both[:1], 0, 0, one},
		{"with one advisory more", 3, []string{"GO-1", "GO-2"}, both[:1], 3, 3, two},
		{"of an older database", 1, []string{"GO-1"}, both[:1], 0, 0, two},
		{"with one advisory less", 4, []string{"GO-2"}, both[:1], 3, 3, "2026-08-05 GO-2 affected"},
		{"in one repository more", 4, []string{"GO-2"}, both, 3, 3, "2026-08-05 GO-2 affected"},
	} {
		s := known(t, b, step.days, step.to, step.ids...)
		results, err := Attach(t.Context(), []attest.Statement{s}, signer, step.to, func(int, int) {})
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		for i, r := range step.to {
			removed := step.removed
			if i > 0 {
				removed = 0 // nothing was there
			}
			if got := results[i]; got.Attached != step.attached || got.Present != 3-step.attached || got.Removed != removed || got.Kept != 0 {
				t.Errorf("%s: %+v", step.name, got)
			}
			for _, s := range subjects {
				if got := read(r, s); got != step.want {
					t.Errorf("%s: %s has %q for %q, want %q", step.name, r, got, s.Platform, step.want)
				}
			}
		}
	}
	// Another signer's stay beside it, and so does all that is no such document.
	results, err := Attach(t.Context(), []attest.Statement{known(t, b, 5, both, "GO-1")}, other, both, func(int, int) {})
	if err != nil || results[0].Attached != 3 || results[0].Removed != 0 {
		t.Errorf("another signer: %+v, %v", results, err)
	}
	for _, r := range both {
		if _, err := Check(t.Context(), r, b.Index, signer.Trust); err != nil {
			t.Error(err)
		}
		list, err := bundles(t.Context(), r, subjects[1].Descriptor.Digest)
		if err != nil || len(list) != 5 {
			t.Errorf("%s: %d bundles, want signature, SBOM, provenance and two documents: %v", r, len(list), err)
		}
	}
}

// TestVEXOfTwoIndexes guards against an index that gets the document of another one, because they
// have an image in common: nobody finds it there.
func TestVEXOfTwoIndexes(t *testing.T) {
	b := attesttest.Build(t, nil)
	r, _ := pushed(t, registrytest.Memory(t, registrytest.Options{}), "derper", b.Index)
	signer, to := newSigner(t, newKey(t)), []*registry.Repository{r}
	all, err := attest.Subjects(b.Index)
	if err != nil {
		t.Fatal(err)
	}
	other := all[0]
	other.Descriptor.Digest.Hex = strings.Repeat("0", 64)
	report := vex.NewReport(b.Lock.Inputs, &vex.Scan{Program: "derper", Modified: time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)})
	later := known(t, b, 7, to, "GO-1")
	second, err := report.Statement([]attest.Subject{other, all[1]}, []string{r.String()})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []attest.Statement{later, second} {
		if _, err := AttachElsewhere(t.Context(), []attest.Statement{s}, signer, to, func(int, int) {}); err != nil {
			t.Fatal(err)
		}
	}
	data, err := Bundles(t.Context(), r, other.Descriptor.Digest)
	if err != nil || len(data) != 1 {
		t.Fatalf("%d bundles: %v", len(data), err)
	}
	if _, err := signer.Trust.Verify(data[0], other.Descriptor.Digest); err != nil {
		t.Errorf("the other index: %v", err)
	}
}

// TestVEXKept guards against a registry that keeps an older document, and stops all that
// comes after, or passes for one that has removed it.
func TestVEXKept(t *testing.T) {
	b := attesttest.Build(t, nil)
	memory := registrytest.Memory(t, registrytest.Options{})
	proxy := registrytest.NewProxy(t, memory)
	w, _ := pushed(t, proxy.Registry, "derper", b.Index)
	signer := newSigner(t, newKey(t))
	to := []*registry.Repository{w}
	proxy.Refuse(registrytest.Unauthorized, func(q registrytest.Request) bool { return q.Method == http.MethodDelete })
	for i, want := range []Attached{{Attached: 3}, {Attached: 3, Kept: 3}, {Present: 3, Kept: 3}} {
		ids := []string{"GO-1", "GO-2"}[:min(i+1, 2)]
		results, err := Attach(t.Context(), []attest.Statement{known(t, b, i, to, ids...)}, signer, to, func(int, int) {})
		want.Repository = w.String()
		if err != nil || results[0] != want {
			t.Errorf("run %d: %+v, want %+v: %v", i, results, want, err)
		}
	}
	proxy.Refuse("", nil)
	results, err := Attach(t.Context(), []attest.Statement{known(t, b, 2, to, "GO-1", "GO-2")}, signer, to, func(int, int) {})
	if err != nil || results[0].Removed != 3 || results[0].Attached != 0 {
		t.Errorf("once it removes: %+v, %v", results, err)
	}
	data, err := Bundles(t.Context(), w, known(t, b, 0, to).Subjects[0].Descriptor.Digest)
	if err != nil || len(data) != 1 {
		t.Errorf("%d documents: %v", len(data), err)
	}
}
