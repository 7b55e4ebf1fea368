package verify

import (
	"cmp"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// foundAttestation is what an index has beside an image: its SBOM and provenance.
type foundAttestation struct {
	about      string // the digest of the image's manifest
	digest     string
	manifest   []byte
	statements []foundStatement
}

// foundStatement is an in-toto statement of an attestation.
type foundStatement struct {
	name    string // of its predicate's type
	content []byte
}

// readAttestation reads an attestation of an image with all its statements.
func readAttestation(img v1.Image) (*foundAttestation, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	a := &foundAttestation{}
	if a.manifest, err = img.RawManifest(); err != nil {
		return nil, err
	}
	a.digest = digestOf(a.manifest)
	if len(m.Layers) > maxStated {
		return nil, fmt.Errorf("attestation %s: has %d statements, more than %d: %w", a.digest, len(m.Layers), maxStated, image.ErrForeign)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for n, l := range layers {
		content, err := readStatement(l, m.Layers[n].Digest)
		if err != nil {
			return nil, fmt.Errorf("attestation %s: %w", a.digest, err)
		}
		a.statements = append(a.statements, foundStatement{diff.Printable(m.Layers[n].Annotations["in-toto.io/predicate-type"]), content})
	}
	return a, nil
}

func readStatement(l v1.Layer, digest v1.Hash) ([]byte, error) {
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return image.ReadDocument(r, digest)
}

// compareAttestations compares what an index states about the image with a digest with what
// the rebuilt image gives. Where the images differ, what is stated of them does, too.
func (f *found) compareAttestations(want *foundAttestation, digest string, follows bool) (checks []Check) {
	const name = "SBOM and provenance"
	times := 0 // that the index has the image
	for _, img := range f.images {
		if img.digest == digest {
			times++
		}
	}
	for _, a := range f.attestations {
		if a.about != digest {
			continue
		}
		check := Check{Level: LevelAttestation, Name: name, Result: Pass, Rebuilt: want.digest, Image: a.digest}
		switch {
		case len(checks) >= times:
			check.Result, check.Note = Fail, "the index has an attestation of the image once more"
		case want.digest == a.digest:
		case follows:
			check.Result, check.Follows = Fail, true
		case a.subject() != "" && a.subject() != a.about:
			check.Result, check.Note = Fail, "the statements are about another digest than the image's"
			check.Details = []string{"about " + diff.Printable(a.subject())}
		default:
			check.Result = Fail
			check.Note, check.Details = want.differs(a)
		}
		checks = append(checks, check)
	}
	if len(checks) == 0 {
		checks = []Check{{Level: LevelAttestation, Name: name, Result: Fail, Rebuilt: want.digest, Note: "the index has no attestation of the image"}}
	}
	return checks
}

// subject is the digest that the first statement is about, "" if it names none.
func (a *foundAttestation) subject() string {
	var s struct {
		Subject []struct{ Digest map[string]string }
	}
	if len(a.statements) == 0 || json.Unmarshal(a.statements[0].content, &s) != nil || len(s.Subject) == 0 || s.Subject[0].Digest["sha256"] == "" {
		return ""
	}
	return "sha256:" + s.Subject[0].Digest["sha256"]
}

// differs says what an attestation states otherwise: the statements first, then what
// names them.
func (want *foundAttestation) differs(got *foundAttestation) (note string, details []string) {
	nothing := func(string) bool { return false }
	for i := range max(len(want.statements), len(got.statements)) {
		w, g := at(want.statements, i), at(got.statements, i)
		if w.name != g.name {
			details = append(details, fmt.Sprintf("statement %d: image %s, rebuilt %s", i+1, cmp.Or(g.name, "none"), cmp.Or(w.name, "none")))
			continue
		}
		c := compareDocuments(LevelAttestation, w.name, w.content, g.content, nothing)
		switch {
		case c.Result == Pass:
		case len(c.Details) > 0:
			for _, d := range c.Details {
				details = append(details, w.name+": "+d)
			}
		default:
			details = append(details, w.name+": the same values, written in another way; "+cmp.Or(c.Note, "none"))
		}
	}
	if len(details) == 0 {
		details = compareDocuments(LevelAttestation, "attestation", want.manifest, got.manifest, nothing).Details
	}
	if len(details) == 0 {
		return "the same values, written in another way (order, spaces or repeated keys)", nil
	}
	return first(details), few(details)
}
