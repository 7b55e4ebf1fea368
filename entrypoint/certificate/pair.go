// Package certificate looks after the pair of files that derper serves in
// manual mode: CERT_DIR/NAME.crt and NAME.key.
//
// derper reads them once, at start. It makes a self-signed pair for an IP
// address, but ends when a DNS name has none; and for an IP address it writes
// over a certificate whose key is missing, and over a key whose certificate
// is. This package makes the missing pairs and stops the overwriting. It never
// changes a file that exists.
package certificate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Pair names the two files of a host.
type Pair struct {
	Host      string
	Crt, Key  string
	directory string
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
	return Pair{
		Host:      host,
		Crt:       filepath.Join(dir, name+".crt"),
		Key:       filepath.Join(dir, name+".key"),
		directory: dir,
	}
}

// ErrMissing says that neither file of the pair exists.
var ErrMissing = errors.New("no certificate and no key")

// A Certificate is a pair that derper accepts.
type Certificate struct {
	Leaf       *Leaf
	SelfSigned bool
	files      [sha256.Size]byte // of both files' contents
}

// Same reports whether c and other come from files with the same contents.
func (c Certificate) Same(other Certificate) bool { return c.files == other.files }

// Pin is the CertName that makes Tailscale clients accept this certificate
// and no other.
func (c Certificate) Pin() string {
	sum := sha256.Sum256(c.Leaf.Raw)
	return "sha256-raw:" + hex.EncodeToString(sum[:])
}

// Load reads the pair and checks what derper checks: that the two belong
// together and are for the host. The error is ErrMissing when neither exists.
func (p Pair) Load() (Certificate, error) {
	crt, crtErr := os.ReadFile(p.Crt)
	key, keyErr := os.ReadFile(p.Key)
	noCrt, noKey := errors.Is(crtErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist)
	switch {
	case noCrt && noKey:
		return Certificate{}, ErrMissing
	case noKey:
		return Certificate{}, fmt.Errorf("%s has no key: put it at %s, or move the certificate away to get a new pair", p.Crt, p.Key)
	case noCrt:
		return Certificate{}, fmt.Errorf("%s has no certificate: put it at %s, or move the key away to get a new pair", p.Key, p.Crt)
	case crtErr != nil:
		return Certificate{}, fmt.Errorf("certificate cannot be read: %w; let uid %d read it", crtErr, os.Getuid())
	case keyErr != nil:
		return Certificate{}, fmt.Errorf("key cannot be read: %w; let uid %d read it", keyErr, os.Getuid())
	}
	leaf, err := firstLeaf(crt)
	if err != nil {
		return Certificate{}, fmt.Errorf("%s: %w; it must hold the certificate in PEM form, then its chain", p.Crt, err)
	}
	belongs, err := firstKey(key)
	if err != nil {
		return Certificate{}, fmt.Errorf("%s: %w; it must hold one unencrypted RSA, ECDSA or Ed25519 key in PEM form", p.Key, err)
	}
	if !belongs(leaf.publicKey) {
		return Certificate{}, fmt.Errorf("%s is not the key of %s; replace both with files that belong together", p.Key, p.Crt)
	}
	if err := leaf.VerifyHostname(p.Host); err != nil {
		return Certificate{}, fmt.Errorf("%s: %w; set HOSTNAME to a name in it, or get one for this name", p.Crt, err)
	}
	sum := sha256.Sum256(bytes.Join([][]byte{crt, key}, []byte{0}))
	return Certificate{Leaf: leaf, SelfSigned: leaf.SelfIssued, files: sum}, nil
}

// Warning says that the certificate expires soon or is not valid now; it is
// empty otherwise.
func (c Certificate) Warning(now time.Time) string {
	day := c.Leaf.NotAfter.UTC().Format("2006-01-02")
	left := c.Leaf.NotAfter.Sub(now)
	switch {
	case now.Before(c.Leaf.NotBefore):
		return "is not valid before " + c.Leaf.NotBefore.UTC().Format(time.RFC3339) + "; clients refuse it; check the clock"
	case left <= 0:
		return "expired on " + day + "; clients refuse it; " + c.renewal()
	case left < 30*24*time.Hour:
		return fmt.Sprintf("expires in %d days, on %s; %s", int(left.Hours()/24), day, c.renewal())
	}
	return ""
}

func (c Certificate) renewal() string {
	if c.SelfSigned {
		return "to get a new one, move the pair away, restart, and put the new CertName into the tailnet policy"
	}
	return "replace the pair; the relay then takes the new one by itself"
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

// IsIP reports whether the pair is for an IP address.
func (p Pair) IsIP() bool { return net.ParseIP(p.Host) != nil }
