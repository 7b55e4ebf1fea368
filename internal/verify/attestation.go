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
	foundManifest
	about      string // the digest of the image's manifest
	statements []foundStatement
}

// foundStatement is an in-toto statement of an attestation.
type foundStatement struct {
	name    string // of its predicate's type
	content []byte
}

// readAttestation reads an attestation of an image with all its statements.
func readAttestation(img v1.Image) (a *foundAttestation, err error) {
	a = &foundAttestation{}
	if a.foundManifest, err = readManifest(img, maxStated, "statements"); err != nil {
		return nil, err
	}
	for _, l := range a.layers {
		s := foundStatement{name: diff.Printable(l.Annotations["in-toto.io/predicate-type"])}
		r, err := l.open()
		if err == nil {
			s.content, err = image.ReadDocument(r, l.Digest)
			r.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("attestation %s: %w", a.digest, err)
		}
		a.statements = append(a.statements, s)
	}
	return a, nil
}

// attestationName is the name of the check of an attestation.
const attestationName = "SBOM and provenance"

// compareAttestations compares what an index states about the image with a digest with what
// the rebuilt image gives. Where the images differ, what is stated of them does, too.
func (f *found) compareAttestations(want *foundAttestation, digest string, follows bool) (checks []Check) {
	times := count(f.images, func(img *foundImage) bool { return img.digest == digest }) // that the index has it
	for _, a := range f.attestations {
		if a.about != digest {
			continue
		}
		c := compared(LevelAttestation, attestationName, want.digest, a.digest)
		switch {
		case len(checks) >= times:
			c.Result, c.Note = Fail, "the index has an attestation of the image once more"
		case c.Result == Pass:
		case follows:
			c.Follows = true
		case a.subject() != "" && a.subject() != a.about:
			c.Note, c.Details = "the statements are about another digest than the image's", []string{"about " + diff.Printable(a.subject())}
		default:
			c.Note, c.Details = want.differs(a)
		}
		checks = append(checks, c)
	}
	if len(checks) == 0 {
		c := compared(LevelAttestation, attestationName, want.digest, "")
		c.Note = "the index has no attestation of the image"
		checks = append(checks, c)
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
	for i := range max(len(want.statements), len(got.statements)) {
		w, g := at(want.statements, i), at(got.statements, i)
		if w.name != g.name {
			details = append(details, fmt.Sprintf("statement %d: image %s, rebuilt %s", i+1, cmp.Or(g.name, "none"), cmp.Or(w.name, "none")))
			continue
		}
		c := compareDocuments(LevelAttestation, w.name, w.content, g.content, nil)
		for _, d := range c.Details {
			details = append(details, w.name+": "+d)
		}
		if c.failed() && len(c.Details) == 0 {
			details = append(details, w.name+": "+c.Note)
		}
	}
	if len(details) == 0 {
		c := compareDocuments(LevelAttestation, "attestation", want.manifest, got.manifest, nil)
		return c.Note, c.Details
	}
	return first(details), few(details)
}
