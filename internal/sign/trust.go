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
)

// Trust is whose signatures count.
type Trust struct {
	material root.TrustedMaterial
	verifier *verify.Verifier
	policy   verify.PolicyOption
	who      string // key sha256:… or identity … of …
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
	return &Trust{material, verifier, verify.WithKey(), keyName(sum[:]), "--key cosign.pub"}, nil
}

// TrustIdentity trusts what an identity has signed with a certificate of the trusted
// root's authority, while the certificate was valid, and logged in its transparency
// log. The identity is what the certificate is for, in GitHub Actions the workflow,
// https://github.com/OWNER/REPOSITORY/.github/workflows/FILE@REF; the issuer is the
// OpenID provider that vouched for it.
func TrustIdentity(trusted root.TrustedMaterial, identity, issuer string) (*Trust, error) {
	if identity == "" || issuer == "" {
		return nil, errors.New("trust: wants both an identity and its issuer")
	}
	id, err := verify.NewShortCertificateIdentity(issuer, "", identity, "")
	if err != nil {
		return nil, fmt.Errorf("trust: identity %s: %w", identity, err)
	}
	verifier, err := verify.NewVerifier(trusted,
		verify.WithSignedCertificateTimestamps(1), verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1))
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return &Trust{trusted, verifier, verify.WithCertificateIdentity(id), identityName(identity, issuer), "--issuer " + issuer + " --identity " + identity}, nil
}

func keyName(sum []byte) string { return "key sha256:" + hex.EncodeToString(sum) }

func identityName(identity, issuer string) string { return "identity " + identity + " of " + issuer }

// String names the key or the identity.
func (t *Trust) String() string { return t.who }

// Flags are the flags with which build verify-signature trusts the same; of a key, its
// name is assumed to be cosign's, cosign.pub.
func (t *Trust) Flags() string { return t.flags }

// ErrOtherDigest says that a statement was signed by whom it should, and is about
// another digest than it is attached to.
var ErrOtherDigest = errors.New("is about another digest")

// Verify verifies a bundle, and that its statement is about the digest.
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
		return nil, &RefusedError{s.PredicateType, t.why(b, err), false}
	}
	result, err := t.verifier.Verify(b, verify.NewPolicy(verify.WithArtifactDigest(about.Algorithm, digest), t.policy))
	if err != nil {
		return nil, &RefusedError{s.PredicateType, "is about another digest than " + about.String(), true}
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

	otherDigest bool
}

func (e *RefusedError) Error() string { return e.Type + " " + e.Why }

// Is reports whether it is an ErrOtherDigest.
func (e *RefusedError) Is(target error) bool { return e.otherDigest && target == ErrOtherDigest }

// why says what is wrong with a signature, from whom it claims to be by.
func (t *Trust) why(b *bundle.Bundle, err error) string {
	claims := "nobody"
	if content, cerr := b.VerificationContent(); cerr == nil {
		if cert := content.Certificate(); cert != nil {
			if summary, serr := certificate.SummarizeCertificate(cert); serr == nil {
				claims = identityName(summary.SubjectAlternativeName, summary.Issuer)
			}
		} else if key := content.PublicKey(); key != nil {
			claims = "another key"
			if sum, herr := base64.StdEncoding.DecodeString(key.Hint()); herr == nil && len(sum) == sha256.Size {
				claims = keyName(sum)
			}
		}
	}
	if claims != t.who {
		return fmt.Sprintf("is signed by %s, not by %s", claims, t.who)
	}
	return fmt.Sprintf("is not what %s signed: %v", t.who, err)
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
