package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Cached reports whether derper has a certificate for the host in dir, with
// CERT_MODE letsencrypt or gcp, so that a handshake for this name makes it
// order none. It is also false for an IP address.
//
// derper asks [golang.org/x/crypto/acme/autocert], whose cacheGet and
// validCert are followed here. It keeps one certificate for clients that take
// ECDSA, which all but ancient ones do, in the file HOST: the key, then the
// chain. Another one with RSA, in HOST+rsa, does not keep it from ordering
// that, so it does not count.
func Cached(dir, host string, now time.Time) (notAfter time.Time, ok bool) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	data, err := os.ReadFile(filepath.Join(dir, filepath.Clean("/"+host)))
	if err != nil {
		return time.Time{}, false
	}
	private, rest := pem.Decode(data)
	if private == nil || !strings.Contains(private.Type, "PRIVATE") {
		return time.Time{}, false
	}
	signer, err := parseKey(private.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	var chain bytes.Buffer
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return time.Time{}, false // something follows that is no PEM
		}
		chain.Write(block.Bytes)
	}
	all, err := x509.ParseCertificates(chain.Bytes())
	if err != nil || len(all) == 0 {
		return time.Time{}, false
	}
	leaf := all[0]
	_, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey)
	if !isECDSA || !pairs(signer, leaf) || now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) || leaf.VerifyHostname(host) != nil {
		return time.Time{}, false
	}
	return leaf.NotAfter, true
}
