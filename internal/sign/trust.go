package sign

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
)

// Trust is whose signatures count.
type Trust struct {
	material root.TrustedMaterial
	verifier *verify.Verifier
	policy   verify.PolicyOption
	name     string // key sha256:… or identity … of …
	who      string // that, and of whose run it must be where that is another one
	run      run    // of an identity
	flags    string // that make build verify-signature trust the same
}

// TrustKey trusts what a key has signed, logged or not.
func TrustKey(key crypto.PublicKey) (*Trust, error) {
	if err := usable(key); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	// Ed25519 in a DSSE envelope is the pure one, which is what this gives.
	v, err := signature.LoadDefaultVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	forever := root.NewExpiringKey(v, time.Time{}, time.Time{})
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return forever, nil })
	verifier, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	sum := sha256.Sum256(der)
	return &Trust{material: material, verifier: verifier, policy: verify.WithKey(), name: keyName(sum[:]), who: keyName(sum[:]), flags: "--key cosign.pub"}, nil
}

// TrustIdentity trusts what an identity has signed with a certificate of the trusted
// root's authority, while the certificate was valid, and logged in its transparency
// log. In GitHub Actions it must also have signed for a run of its own repository, or of
// the one that it names.
func TrustIdentity(trusted root.TrustedMaterial, id Identity) (*Trust, error) {
	want, err := id.certificate()
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	verifier, err := verify.NewVerifier(trusted,
		verify.WithSignedCertificateTimestamps(1), verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1))
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return &Trust{trusted, verifier, verify.WithCertificateIdentity(want), id.name(), id.String(), run{want.SourceRepositoryURI, want.SourceRepositoryRef}, id.flags()}, nil
}

func keyName(sum []byte) string { return "key sha256:" + hex.EncodeToString(sum) }

// String names the key or the identity.
func (t *Trust) String() string { return t.who }

// Overlaps reports whether one signature may count for both: their key or their identity is
// the same, however the run of the identity is written.
func (t *Trust) Overlaps(other *Trust) bool {
	return t.name == other.name && (t.run.has(other.run) || other.run.has(t.run))
}

// Flags are the flags with which build verify-signature trusts the same; of a key, its
// name is assumed to be cosign's, cosign.pub.
func (t *Trust) Flags() string { return t.flags }

var (
	// ErrOtherDigest says that a statement was signed by whom it should, and is about
	// another digest than it is attached to.
	ErrOtherDigest = errors.New("is about another digest")
	// ErrOtherRun says that a statement was signed in the name of whom it should, for
	// a run of another repository or of another of its branches.
	ErrOtherRun = errors.New("was signed for another run")
)

// Verify verifies a bundle, and that its statement is about the digest. Provenance must
// be of this project's form; if a workflow on GitHub signed it, it must name as its
// builder the workflow whose run the certificate is for.
func (t *Trust) Verify(data []byte, about v1.Hash) (*Verified, error) {
	b := new(bundle.Bundle)
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("is no Sigstore bundle: %w", err)
	}
	envelope := b.GetDsseEnvelope()
	if envelope == nil || envelope.PayloadType != payloadType {
		return nil, errors.New("has no in-toto statement")
	}
	var s struct {
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(envelope.Payload, &s); err != nil {
		return nil, fmt.Errorf("has no in-toto statement: %w", err)
	}
	digest, err := hex.DecodeString(about.Hex)
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", about, err)
	}
	// The signature before the subject: that a statement is about something else
	// means little while it is not known who says so.
	if _, err := t.verifier.Verify(b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), t.policy)); err != nil {
		why, kind := t.why(b, err)
		return nil, &RefusedError{s.PredicateType, why, kind}
	}
	result, err := t.verifier.Verify(b, verify.NewPolicy(verify.WithArtifactDigest(about.Algorithm, digest), t.policy))
	if err != nil {
		return nil, &RefusedError{s.PredicateType, "is about another digest than " + about.String(), ErrOtherDigest}
	}
	if s.PredicateType == attest.SLSA {
		if err := t.provenance(envelope.Payload, result.Signature.Certificate); err != nil {
			return nil, &RefusedError{s.PredicateType, err.Error(), nil}
		}
	}
	v := &Verified{Type: s.PredicateType, Statement: envelope.Payload, Signer: t.who}
	for _, stamp := range result.VerifiedTimestamps {
		v.Time = stamp.Timestamp.UTC()
	}
	return v, nil
}

// A RefusedError says why a statement does not count.
type RefusedError struct {
	// Type is the type of its predicate.
	Type string
	// Why is a phrase about the statement: is signed by …, not by ….
	Why string

	kind error // ErrOtherDigest, ErrOtherRun or nil
}

func (e *RefusedError) Error() string { return e.Type + " " + e.Why }

// Is reports whether it is an ErrOtherDigest or an ErrOtherRun.
func (e *RefusedError) Is(target error) bool { return e.kind == target }

// why says what is wrong with a signature, from whom it claims to be by. The error is
// ErrOtherRun or nil.
func (t *Trust) why(b *bundle.Bundle, err error) (string, error) {
	claims, of := "nobody", t.run
	if content, cerr := b.VerificationContent(); cerr == nil {
		if cert := content.Certificate(); cert != nil {
			if summary, serr := certificate.SummarizeCertificate(cert); serr == nil {
				claims, of = identityOf(summary).name(), runOf(summary)
			}
		} else if key := content.PublicKey(); key != nil {
			claims = "another key"
			if sum, herr := base64.StdEncoding.DecodeString(key.Hint()); herr == nil && len(sum) == sha256.Size {
				claims = keyName(sum)
			}
		}
	}
	switch {
	case claims != t.name:
		return fmt.Sprintf("is signed by %s, not by %s", claims, t.who), nil
	case !t.run.has(of):
		return fmt.Sprintf("was signed by %s for a run of %s, not of %s", claims, of, t.run), ErrOtherRun
	}
	return fmt.Sprintf("is not what %s signed: %v", t.who, err), nil
}

// provenance checks what provenance says of itself; cert is nil for one signed by a key.
//
// The builder is the workflow that was started, which a stranger cannot choose as that
// of another repository. The subject of the certificate is not it: that workflow may
// have been called by the one that was started.
func (t *Trust) provenance(statement []byte, cert *certificate.Summary) error {
	p, err := attest.ParseProvenance(statement)
	if err != nil {
		return fmt.Errorf("is not this project's: %w", err)
	}
	if id := p.RunDetails.Builder.ID; cert != nil && isGitHub(cert.Issuer) && id != cert.BuildConfigURI {
		return fmt.Errorf("names the builder %q, and was signed in a run of %q", id, cert.BuildConfigURI)
	}
	return nil
}

// Verified is a statement whose signature holds.
type Verified struct {
	// Type is the type of its predicate.
	Type string `json:"-"`
	// Statement is the in-toto statement.
	Statement []byte `json:"-"`
	// Signer is the key or the identity that signed it.
	Signer string `json:"signer"`
	// Time is when, according to a transparency log or a timestamp authority; zero
	// with a key.
	Time time.Time `json:"time,omitzero"`
}
