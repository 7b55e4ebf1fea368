package handshake

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
)

// Signature schemes of TLS 1.3, for all keys that derper can have.
const (
	ecdsaP256 = 0x0403
	ecdsaP384 = 0x0503
	ecdsaP521 = 0x0603
	rsaPSS256 = 0x0804
	rsaPSS384 = 0x0805
	rsaPSS512 = 0x0806
	ed25519ID = 0x0807
)

var signatureSchemes = []uint16{ecdsaP256, rsaPSS256, ed25519ID, ecdsaP384, ecdsaP521, rsaPSS384, rsaPSS512}

// checkSignature checks the CertificateVerify message: that the server has
// the key of the certificate.
func checkSignature(leaf *x509.Certificate, body, transcript []byte) error {
	if len(body) < 4 || len(body) != 4+int(binary.BigEndian.Uint16(body[2:])) {
		return errors.New("the certificate verify message is malformed")
	}
	scheme, sig := binary.BigEndian.Uint16(body), body[4:]
	signed := make([]byte, 0, 64+34+len(transcript))
	for range 64 {
		signed = append(signed, ' ')
	}
	signed = append(signed, "TLS 1.3, server CertificateVerify\x00"...)
	signed = append(signed, transcript...)

	var digest []byte
	hash := crypto.SHA256
	switch scheme {
	case ecdsaP256, rsaPSS256:
		sum := sha256.Sum256(signed)
		digest = sum[:]
	case ecdsaP384, rsaPSS384:
		sum := sha512.Sum384(signed)
		digest, hash = sum[:], crypto.SHA384
	case ecdsaP521, rsaPSS512:
		sum := sha512.Sum512(signed)
		digest, hash = sum[:], crypto.SHA512
	}
	wrong := errors.New("the server does not have the certificate's key")
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if scheme != ecdsaP256 && scheme != ecdsaP384 && scheme != ecdsaP521 || !ecdsa.VerifyASN1(key, digest, sig) {
			return wrong
		}
	case *rsa.PublicKey:
		if scheme != rsaPSS256 && scheme != rsaPSS384 && scheme != rsaPSS512 {
			return wrong
		}
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		if rsa.VerifyPSS(key, hash, digest, sig, options) != nil {
			return wrong
		}
	case ed25519.PublicKey:
		if scheme != ed25519ID || !ed25519.Verify(key, signed, sig) {
			return wrong
		}
	default:
		return fmt.Errorf("the certificate's key is a %T", key)
	}
	return nil
}
