package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// ErrPassword says that a key is encrypted and that the password does not open it.
var ErrPassword = errors.New("the password does not open the key")

// ParsePrivateKey reads a private key in PEM: one that cosign wrote, encrypted, or a
// plain one in PKCS #8 or SEC 1 form. It must be ECDSA P-256 or Ed25519. The password
// is asked for if the key is encrypted. No error contains any part of either.
func ParsePrivateKey(data []byte, password func() ([]byte, error)) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("is no PEM file")
	}
	refused := "is no PKCS #8 key"
	parse := x509.ParsePKCS8PrivateKey
	switch block.Type {
	case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		word, err := password()
		if err != nil {
			return nil, err
		}
		if block.Bytes, err = encrypted.Decrypt(block.Bytes, word); err != nil {
			return nil, ErrPassword
		}
		refused = "what is encrypted " + refused
	case "PRIVATE KEY":
	case "EC PRIVATE KEY":
		refused = "is no SEC 1 key"
		parse = func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) }
	default:
		return nil, fmt.Errorf("has a %s, not a private key that cosign or PKCS #8 knows", block.Type)
	}
	key, err := parse(block.Bytes)
	if err != nil {
		return nil, errors.New(refused)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("has a key of type %T, wants ECDSA P-256 or Ed25519", key)
	}
	return signer, usable(signer.Public())
}

// ParsePublicKey reads a public key in PEM, ECDSA P-256 or Ed25519.
func ParsePublicKey(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("is no PEM file")
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("has a %s, not a PUBLIC KEY", block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return key, usable(key)
}

func usable(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
		return fmt.Errorf("has an ECDSA key on %s, wants P-256", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("has a key of type %T, wants ECDSA P-256 or Ed25519", key)
}
