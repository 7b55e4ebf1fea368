package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

// pair [-ed25519|-self] HOST DAYS CRT KEY: makes a certificate that a CA signed, for a key
// of ECDSA or Ed25519, or a self-signed one like the entrypoint's. It is valid for so many
// days from now.
func scriptPair(ts *testscript.TestScript, neg bool, args []string) {
	kind := ""
	if args[0][0] == '-' {
		kind, args = args[0], args[1:]
	}
	days, err := strconv.Atoi(args[1])
	ts.Check(err)
	validity := time.Duration(days) * 24 * time.Hour
	var crt, key []byte
	switch kind {
	case "-self":
		crt, key, err = selfSignedPair(args[0], validity)
	case "-ed25519":
		_, private, keyErr := ed25519.GenerateKey(rand.Reader)
		ts.Check(keyErr)
		crt, key, err = signedPairOf(private, args[0], validity)
	default:
		crt, key, err = signedPair(args[0], validity)
	}
	ts.Check(err)
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[2])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), crt, 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), key, 0o600))
}

// selfSignedPair makes a pair as the entrypoint does, in another year.
func selfSignedPair(host string, validity time.Duration) (crtPEM, keyPEM []byte, err error) {
	dir, err := os.MkdirTemp("", "pair")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	pair := certificate.At(dir, host)
	if err := pair.Create(time.Now().Add(validity).AddDate(-1, 0, 0)); err != nil {
		return nil, nil, err
	}
	if crtPEM, err = os.ReadFile(pair.Crt); err == nil {
		keyPEM, err = os.ReadFile(pair.Key)
	}
	return crtPEM, keyPEM, err
}

// signedPair makes a pair as a CA would.
func signedPair(host string, validity time.Duration) (crtPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return signedPairOf(key, host, validity)
}

// signedPairOf makes one with this key, of a CA that nobody knows.
func signedPairOf(key crypto.Signer, host string, validity time.Duration) (crtPEM, keyPEM []byte, err error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, nil, err
	}
	return ca.signKey(key, host, validity)
}

// An authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err = x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// sign makes a pair for a host.
func (a *authority) sign(host string, validity time.Duration) (crtPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return a.signKey(key, host, validity)
}

func (a *authority) signKey(key crypto.Signer, host string, validity time.Duration) (crtPEM, keyPEM []byte, err error) {
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: host},
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(validity),
	}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), err
}
