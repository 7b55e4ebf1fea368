// Package certificate looks after the pair of files that derper serves in
// manual mode: CERT_DIR/NAME.crt and NAME.key.
//
// derper reads them once, at start. It makes a self-signed pair for an IP
// address, but ends when a DNS name has none; and for an IP address it writes
// over a certificate whose key is missing, and over a key whose certificate
// is. This package makes the missing pairs, stops the overwriting, and proves
// a pair before derper is restarted with it. It changes files that exist only
// when asked to renew a self-signed pair, and keeps the old ones then.
package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Pair names the two files of a host. The paths are absolute.
type Pair struct {
	Host     string
	Crt, Key string
}

// At returns the pair that derper looks for. derper drops all but letters,
// digits, dash and dot from the name, hence the colons of an IPv6 address.
func At(dir, host string) Pair {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return -1
	}, host)
	if abs, err := filepath.Abs(dir); err == nil { // it fails where the working directory is gone
		dir = abs
	}
	return Pair{Host: host, Crt: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}

// ErrMissing says that neither file of the pair exists.
var ErrMissing = errors.New("no certificate and no key")

// Load reads the pair and proves it, as derper does at its start: the key
// belongs to the certificate, which is for the host. It says nothing about
// time, see [Certificate.Expired]. The error is ErrMissing when neither file
// exists; any other one is for the user, names the files and what to do.
func (p Pair) Load() (Certificate, error) {
	crt, crtErr := readFile(p.Crt)
	key, keyErr := readFile(p.Key)
	noCrt, noKey := errors.Is(crtErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist)
	switch {
	case noCrt && noKey:
		return Certificate{}, ErrMissing
	case crtErr != nil && !noCrt:
		return Certificate{}, fmt.Errorf("certificate cannot be read: %w", crtErr)
	case keyErr != nil && !noKey:
		return Certificate{}, fmt.Errorf("key cannot be read: %w", keyErr)
	case noKey:
		return Certificate{}, fmt.Errorf("%s has no key: put it at %s, or move the certificate away to get a new pair", p.Crt, p.Key)
	case noCrt:
		return Certificate{}, fmt.Errorf("%s has no certificate: put it at %s, or move the key away to get a new pair", p.Key, p.Crt)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return Certificate{}, p.explain(crt, key, err)
	}
	if err := everyday.SupportsCertificate(&pair); err != nil {
		return Certificate{}, fmt.Errorf("%s: no TLS client accepts a certificate with this kind of key; get one with an RSA, ECDSA (P-256) or Ed25519 key: %w", p.Crt, err)
	}
	if err := VerifyHostname(pair.Leaf, p.Host); err != nil {
		return Certificate{}, fmt.Errorf("%s: %w; set HOSTNAME to a name in it, or get one for this name", p.Crt, err)
	}
	return Certificate{
		Leaf:       pair.Leaf,
		SelfSigned: selfIssued(pair.Leaf),
		Notes:      p.notes(crt, pair),
		crt:        crt,
		key:        key,
	}, nil
}

// everyday is a client with all that is in use. derper would load a key of
// another kind, and then fail each handshake.
var everyday = &tls.ClientHelloInfo{
	SupportedVersions: []uint16{tls.VersionTLS13},
	SignatureSchemes: []tls.SignatureScheme{
		tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512, tls.Ed25519,
		tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512,
	},
}

// VerifyHostname checks that leaf is for the host, as [x509.Certificate] does;
// the error says for which names it is.
func VerifyHostname(leaf *x509.Certificate, host string) error {
	if leaf.VerifyHostname(host) == nil {
		return nil
	}
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	const most = 5
	switch more := len(names) - most; {
	case len(names) == 0:
		names = []string{"no name (it has no subject alternative name)"}
	case more > 0:
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("the certificate is for %s, not for %s", strings.Join(names, ", "), host)
}

// Writable reports whether files can be made in dir, which is made if it does
// not exist.
func Writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".writable*")
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}
