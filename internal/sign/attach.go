package sign

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/registry"
)

// BundleType is the media type of a Sigstore bundle, and the artifact type of what is
// attached to a digest.
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Attached says what became of a repository.
type Attached struct {
	Repository string `json:"repository"`
	// Attached and Present count bundles: those attached now, and those that were
	// there and hold.
	Attached int `json:"attached"`
	Present  int `json:"present"`
	// Removed counts older OpenVEX documents that were removed, Kept those that the registry
	// does not remove, so that scanners may read them.
	Removed int `json:"removed,omitempty"`
	Kept    int `json:"kept,omitempty"`
}

// ErrNotThere says that a repository does not have an image.
var ErrNotThere = errors.New("is not in the repository")

// Attach signs statements and attaches them to the digests that they are about in each
// repository, which must have the first subject of the first one. What is there already,
// signed by the same key or identity and word for word the same, is not signed again; a
// bundle that one repository has and another has not is copied. A run after one that was
// interrupted does what that left.
//
// An OpenVEX document takes the place of the older ones that the same key or identity
// signed: they are removed once it is attached, where the registry allows that. If one that is
// there is newer, or says the same, that one stays, and is copied.
func Attach(ctx context.Context, statements []attest.Statement, signer *Signer, repositories []*registry.Repository, step func(done, total int)) ([]Attached, error) {
	index := statements[0].Subjects[0].Descriptor.Digest
	for _, r := range repositories {
		if has, err := r.Has(ctx, index); err != nil {
			return nil, err
		} else if !has {
			return nil, fmt.Errorf("%s: %s: %w", r, index, ErrNotThere)
		}
	}
	return AttachElsewhere(ctx, statements, signer, repositories, step)
}

// AttachElsewhere is Attach in repositories that need not have what the statements are about:
// registries accept what refers to a digest that they do not have.
// Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests-with-subject.
func AttachElsewhere(ctx context.Context, statements []attest.Statement, signer *Signer, repositories []*registry.Repository, step func(done, total int)) ([]Attached, error) {
	total, done := 0, 0
	advance := func(count *int) {
		*count++
		done++
		step(done, total)
	}
	results := make([]Attached, len(repositories))
	known := make([]map[v1.Hash][]*registry.Artifact, len(repositories)) // bundles by what they are about
	for i, r := range repositories {
		results[i].Repository, known[i] = r.String(), map[v1.Hash][]*registry.Artifact{}
		for _, s := range statements {
			total += len(s.Subjects)
			for _, subject := range s.Subjects {
				digest := subject.Descriptor.Digest
				if _, ok := known[i][digest]; ok {
					continue
				}
				var err error
				if known[i][digest], err = bundles(ctx, r, digest); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, statement := range statements {
		if replaces(statement) {
			statement.Payload = current(statement, signer.Trust, known)
		}
		var bundle []byte
		type place struct {
			repository int
			subject    v1.Descriptor
		}
		var lacks []place
		for _, subject := range statement.Subjects {
			about := subject.Descriptor
			for i := range repositories {
				if found := holds(signer.Trust, known[i][about.Digest], about.Digest, statement.Payload); found != nil {
					bundle = found
					advance(&results[i].Present)
				} else {
					lacks = append(lacks, place{i, about})
				}
			}
		}
		for _, p := range lacks {
			var err error
			if bundle == nil {
				if bundle, err = signer.Sign(ctx, statement.Payload); err != nil {
					return results, err
				}
				// What nobody would read, or trust, is not attached.
				if len(bundle) > largestBundle {
					return results, fmt.Errorf("%s: the bundle has %d bytes, and %d are read", statement.Type, len(bundle), largestBundle)
				}
				if _, err := signer.Trust.Verify(bundle, p.subject.Digest); err != nil && !errors.Is(err, ErrOtherDigest) {
					return results, fmt.Errorf("what was signed does not count: %w", err)
				}
			}
			artifact, err := newArtifact(p.subject, statement.Type, bundle)
			if err != nil {
				return results, err
			}
			if _, err := repositories[p.repository].Attach(ctx, artifact); err != nil {
				return results, fmt.Errorf("%s: %w", statement.Type, err)
			}
			advance(&results[p.repository].Attached)
		}
		if !replaces(statement) {
			continue
		}
		for i, r := range repositories {
			for _, subject := range statement.Subjects {
				about := subject.Descriptor.Digest
				removed, kept, err := removeOld(ctx, r, statement, signer.Trust, about, known[i][about])
				results[i].Removed += removed
				results[i].Kept += kept
				if err != nil {
					return results, fmt.Errorf("%s: %w", statement.Type, err)
				}
			}
		}
	}
	return results, nil
}

// holds finds, among bundles, one of a statement that is still good.
func holds(trust *Trust, bundles []*registry.Artifact, about v1.Hash, payload []byte) []byte {
	for _, b := range bundles {
		if v, err := trust.Verify(b.Layers[0], about); err == nil && bytes.Equal(v.Statement, payload) {
			return b.Layers[0]
		}
	}
	return nil
}

// newArtifact is a bundle in an image's form, about a subject. It is what cosign
// attaches, but for the time.
// Source: https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md.
func newArtifact(subject v1.Descriptor, predicate string, bundle []byte) (v1.Image, error) {
	annotations := map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": predicate,
	}
	if predicate == attest.VEX {
		annotations[predicateType] = predicate
	}
	return attest.Artifact(v1.Manifest{ArtifactType: BundleType, Subject: &subject, Annotations: annotations}, attest.Part{Type: BundleType, Blob: attest.Bytes(bundle)})
}

// What is read of the bundles that refer to one digest. Whoever may push to a repository
// may attach any number of any size.
const (
	mostBundles   = 64
	largestBundle = 1 << 20 // bytes; the largest of ours, with an SBOM, has a quarter of it
)

// ErrTooMuch says that more is attached to a digest than is read.
var ErrTooMuch = errors.New("has more attached than is read")

// Bundles lists the Sigstore bundles that refer to a digest in a repository, sorted by
// the digest of their manifest. They are recognised as cosign does. There may be up to 64,
// of up to 1 MiB each; the error is ErrTooMuch if there are more, or larger ones.
func Bundles(ctx context.Context, r *registry.Repository, subject v1.Hash) (data [][]byte, err error) {
	list, err := bundles(ctx, r, subject)
	for _, a := range list {
		data = append(data, a.Layers[0])
	}
	return data, err
}

// bundles are those of Bundles, each the one layer of an artifact.
func bundles(ctx context.Context, r *registry.Repository, subject v1.Hash) ([]*registry.Artifact, error) {
	count := 0
	var excess error
	list, err := r.Artifacts(ctx, subject, func(m *v1.Manifest) bool {
		if len(m.Layers) != 1 || !strings.HasPrefix(string(m.Layers[0].MediaType), "application/vnd.dev.sigstore.bundle") {
			return false
		}
		l := m.Layers[0]
		switch count++; {
		case l.Size > largestBundle:
			excess = fmt.Errorf("%s@%s %w: bundle %s has %d bytes, more than %d", r, subject, ErrTooMuch, l.Digest, l.Size, largestBundle)
		case count > mostBundles:
			excess = fmt.Errorf("%s@%s %w: more than %d bundles", r, subject, ErrTooMuch, mostBundles)
		}
		return excess == nil
	})
	if err := cmp.Or(err, excess); err != nil {
		return nil, err
	}
	return list, nil
}
