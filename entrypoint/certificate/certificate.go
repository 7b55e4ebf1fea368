package certificate

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// A Certificate is a pair that derper accepts, and clients too while it is not
// expired.
type Certificate struct {
	Leaf       *x509.Certificate
	SelfSigned bool
	Notes      []string // what some clients may not like about the chain, for the user
	crt, key   []byte   // the files
}

// Same reports whether c and other come from files with the same contents.
func (c Certificate) Same(other Certificate) bool {
	return bytes.Equal(c.crt, other.crt) && bytes.Equal(c.key, other.key)
}

// Pin is the CertName that makes Tailscale clients accept this certificate
// and no other.
func (c Certificate) Pin() string {
	return fmt.Sprintf("sha256-raw:%x", sha256.Sum256(c.Leaf.Raw))
}

// Expired reports whether clients refuse the certificate at this time, because
// it is not valid any more, or not yet.
func (c Certificate) Expired(now time.Time) bool {
	return now.Before(c.Leaf.NotBefore) || !now.Before(c.Leaf.NotAfter)
}

// Warning says that the certificate expires within 30 days or is not valid
// now; it is empty otherwise.
func (c Certificate) Warning(now time.Time) string {
	const day = 24 * time.Hour
	left := c.Leaf.NotAfter.Sub(now)
	days := fmt.Sprintf("%d days", left/day)
	switch left / day {
	case 0:
		days = "less than a day"
	case 1:
		days = "1 day"
	}
	switch {
	case c.Expired(now):
		return c.invalid(now) + "; clients refuse it; " + c.remedy(now)
	case left < 30*day:
		return fmt.Sprintf("expires in %s, on %s; %s", days, date(c.Leaf.NotAfter), c.remedy(now))
	}
	return ""
}

// invalid says why the certificate is not valid now.
func (c Certificate) invalid(now time.Time) string {
	if now.Before(c.Leaf.NotBefore) {
		return "is not valid before " + c.Leaf.NotBefore.UTC().Format(time.RFC3339)
	}
	return "expired on " + date(c.Leaf.NotAfter)
}

func (c Certificate) remedy(now time.Time) string {
	switch {
	case now.Before(c.Leaf.NotBefore):
		return "check the clock"
	case c.SelfSigned:
		return "to get a new one run: docker exec CONTAINER /entrypoint renew, and put the new CertName into the tailnet policy"
	}
	return "replace the pair; the relay then takes the new one by itself"
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02") }

// Replaces reports whether derper may be restarted with c while it serves old.
// The error says why that would keep clients out who can connect now.
func (c Certificate) Replaces(old Certificate, now time.Time) error {
	if c.Expired(now) && !old.Expired(now) {
		return fmt.Errorf("the new certificate %s, the one that is served is valid until %s; %s", c.invalid(now), date(old.Leaf.NotAfter), c.remedy(now))
	}
	return nil
}

// Store writes the files of c to p, whose folder is made, for derper to start
// with when those on the disk became unusable. It writes over files.
func (c Certificate) Store(p Pair) error {
	err := os.MkdirAll(filepath.Dir(p.Key), 0o700)
	if err == nil {
		err = errors.Join(write(p.Key, c.key, 0o600), write(p.Crt, c.crt, 0o644))
	}
	if err != nil {
		return fmt.Errorf("keep a copy of the certificate: %w", err)
	}
	return nil
}
