package attest_test

import (
	"encoding/json"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
)

// TestEmbedded reads what stands beside the images in an index in the way that docker
// buildx does, and guards against statements that name another image, or that differ
// from the signed ones.
// Source: https://github.com/docker/buildx/blob/master/util/imagetools/loader.go.
func TestEmbedded(t *testing.T) {
	b := attesttest.Build(t, nil)
	set := attesttest.Set(t, b)
	if err := validate.Index(b.Index); err != nil {
		t.Error(err)
	}
	list, err := b.Index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	n := len(b.Lock.Inputs.Platforms)
	if len(list.Manifests) != 2*n {
		t.Fatalf("the index has %d entries, wants %d images and as many attestations", len(list.Manifests), n)
	}
	for i, d := range list.Manifests[n:] {
		subject := set.Subjects[1+i].Descriptor.Digest
		if got := d.Annotations["vnd.docker.reference.digest"]; got != subject.String() || d.Platform.String() != "unknown/unknown" {
			t.Errorf("attestation %d is of %s for %s, wants %s for unknown/unknown", i, got, d.Platform, subject)
		}
		a, err := b.Index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		sbom, provenance := predicateOf(t, a, attest.SPDX, subject), predicateOf(t, a, attest.SLSA, subject)
		var signed any
		if err := json.Unmarshal(set.SBOMs[1+i], &signed); err != nil {
			t.Fatal(err)
		}
		if name := sbom["name"]; name != signed.(map[string]any)["name"] || len(sbom["files"].([]any)) != len(signed.(map[string]any)["files"].([]any)) {
			t.Errorf("the SBOM %v in the index is not the one that is signed", name)
		}
		builder := provenance["runDetails"].(map[string]any)["builder"].(map[string]any)["id"]
		if builder != attest.Builder(b.Lock.Inputs) {
			t.Errorf("the provenance names the builder %v: it would not be the same for everybody", builder)
		}
	}
}

// predicateOf is the predicate of an attestation's statement about an image.
func predicateOf(t *testing.T, attestation v1.Image, typ string, about v1.Hash) map[string]any {
	t.Helper()
	m, err := attestation.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Layers {
		if d.Annotations["in-toto.io/predicate-type"] != typ || d.MediaType != "application/vnd.in-toto+json" {
			continue
		}
		l, err := attestation.LayerByDigest(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Subject       []struct{ Digest map[string]string }
			PredicateType string
			Predicate     map[string]any
		}
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		if s.PredicateType != typ || len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != about.Hex {
			t.Errorf("statement of type %s about %v, wants %s about %s", s.PredicateType, s.Subject, typ, about)
		}
		return s.Predicate
	}
	t.Fatalf("no statement of type %s", typ)
	return nil
}
