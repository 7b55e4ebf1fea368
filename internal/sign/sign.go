// Package sign signs what package attest states, attaches it to images in registries, and
// verifies it.
//
// Statements are signed in DSSE envelopes in Sigstore bundles, with a key or keyless, and
// attached to the digest that they are about as OCI 1.1 referrers: the form in which
// cosign 3 looks for them first. What is trusted is said by the caller, a key or an
// identity, and never taken from what is verified.
//
// Specification: https://docs.sigstore.dev/about/bundle.
package sign

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/xavieralpha/derper/internal/redact"
)

// payloadType is that of an in-toto statement in a DSSE envelope.
const payloadType = "application/vnd.in-toto+json"

// A Signer signs statements. What it signs twice, it signs once.
type Signer struct {
	// Trust verifies what it signs.
	Trust *Trust

	keys    sign.Keypair
	options sign.BundleOptions
	secrets *redact.Secrets              // that no error may have
	done    map[[sha256.Size]byte][]byte // bundles by the hash of their statement
}

// NewSigner signs with a key of [ParsePrivateKey]. Nothing is sent anywhere, so the
// signatures are in no transparency log.
func NewSigner(key crypto.Signer) (*Signer, error) {
	trust, err := TrustKey(key.Public())
	if err != nil {
		return nil, err
	}
	details, err := signature.GetDefaultAlgorithmDetails(key.Public())
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &Signer{
		Trust: trust, keys: &keypair{key, details, der}, secrets: new(redact.Secrets),
		options: sign.BundleOptions{TrustedRoot: trust.material}, done: map[[sha256.Size]byte][]byte{},
	}, nil
}

// Sign signs a statement, verifies the signature and returns it as a Sigstore bundle,
// v0.3, in JSON.
func (s *Signer) Sign(ctx context.Context, statement []byte) ([]byte, error) {
	id := sha256.Sum256(statement)
	if done := s.done[id]; done != nil {
		return done, nil
	}
	options := s.options
	options.Context = ctx
	bundle, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: payloadType}, s.keys, options)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", s.secrets.Error(err))
	}
	data, err := protojson.Marshal(bundle)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	s.done[id] = data
	return data, nil
}

// keypair is a key in Sigstore's terms.
type keypair struct {
	key     crypto.Signer
	details signature.AlgorithmDetails
	der     []byte // of the public key
}

func (k *keypair) GetHashAlgorithm() protocommon.HashAlgorithm { return k.details.GetProtoHashType() }

func (k *keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return k.details.GetSignatureAlgorithm()
}

// GetHint names the key as cosign does.
func (k *keypair) GetHint() []byte {
	sum := sha256.Sum256(k.der)
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

func (k *keypair) GetKeyAlgorithm() string {
	if k.details.GetKeyType() == signature.ED25519 {
		return "ED25519"
	}
	return "ECDSA"
}

func (k *keypair) GetPublicKey() crypto.PublicKey { return k.key.Public() }

func (k *keypair) GetPublicKeyPem() (string, error) {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der})), nil
}

// SignData signs data, which Ed25519 takes whole and ECDSA as a digest.
func (k *keypair) SignData(_ context.Context, data []byte) ([]byte, []byte, error) {
	hash := k.details.GetHashType()
	if hash != 0 {
		h := hash.New()
		h.Write(data)
		data = h.Sum(nil)
	}
	sig, err := k.key.Sign(rand.Reader, data, hash)
	if err != nil {
		return nil, nil, errors.New("the key does not sign")
	}
	return sig, data, nil
}
