package certificate_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

func load(t *testing.T, p certificate.Pair) certificate.Certificate {
	t.Helper()
	cert, err := p.Load()
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// names lists the folder of a pair.
func names(t *testing.T, p certificate.Pair) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(p.Crt))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// The mistake it guards: a self-made certificate that a TLS client refuses.
func TestCreate(t *testing.T) {
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example.com"
	for _, host := range []string{"derp.example.com", "10.0.0.1", "2001:db8::1", "::1", "a_b.example", long} {
		t.Run(host, func(t *testing.T) {
			p := certificate.At(filepath.Join(t.TempDir(), "made", "certs"), host)
			if _, err := p.Load(); !errors.Is(err, certificate.ErrMissing) {
				t.Fatalf("before: %v", err)
			}
			if err := p.Create(now); err != nil {
				t.Fatal(err)
			}
			if _, err := tls.LoadX509KeyPair(p.Crt, p.Key); err != nil {
				t.Fatalf("derper would refuse it: %v", err)
			}
			got := load(t, p)
			cert := got.Leaf
			if !got.SelfSigned || len(got.Notes) > 0 {
				t.Errorf("self-signed %v, notes %q", got.SelfSigned, got.Notes)
			}
			roots := x509.NewCertPool()
			roots.AddCert(cert)
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now}); err != nil {
				t.Errorf("as its own root: %v", err)
			}
			if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
				t.Error(err)
			}
			if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || cert.Version != 3 || cert.SerialNumber.Sign() <= 0 {
				t.Errorf("CA %v, key usage %v, version %d, serial number %v", cert.IsCA, cert.KeyUsage, cert.Version, cert.SerialNumber)
			}
			if (cert.Subject.CommonName == host) != (len(host) <= 64) {
				t.Errorf("common name %q", cert.Subject.CommonName)
			}
			if days := cert.NotAfter.Sub(now).Hours() / 24; days != 365 || !cert.NotBefore.Equal(now.Add(-time.Minute)) {
				t.Errorf("valid from %v for %v days", cert.NotBefore, days)
			}
			if left := names(t, p); len(left) != 2 {
				t.Errorf("left behind: %v", left)
			}
			if err := p.Create(now); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a second time: %v", err)
			}
			if !load(t, p).Same(got) {
				t.Error("a pair was written over")
			}
		})
	}
}

// The mistake it guards: a renewal after which the relay has no certificate, or the user
// nothing to go back to.
func TestRenew(t *testing.T) {
	for _, host := range []string{"derp.example.com", "2001:db8::1"} {
		p := made(t, host)
		for round := range 2 { // the second one writes over the old files
			before, crt, key := load(t, p), read(t, p.Crt), read(t, p.Key)
			later := now.AddDate(round+2, 0, 0) // it has expired
			kept, err := p.Renew(later)
			if err != nil {
				t.Fatal(err)
			}
			after := load(t, p)
			if after.Same(before) || after.Pin() == before.Pin() || !after.SelfSigned || after.Expired(later) || !before.Expired(later) {
				t.Errorf("it is no new pair: valid until %v", after.Leaf.NotAfter)
			}
			if !slices.Equal(kept, []string{p.Crt + ".old", p.Key + ".old"}) || read(t, kept[0]) != crt || read(t, kept[1]) != key {
				t.Errorf("kept is %v", kept)
			}
			if all := names(t, p); len(all) != 4 {
				t.Errorf("files are %v", all)
			}
			for _, name := range []string{p.Key, p.Key + ".old"} {
				if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", name, info.Mode(), err)
				}
			}
		}
	}
}

// The mistake it guards: a CA's certificate that is replaced by one that clients refuse, and
// files of a pair that nobody understands which are lost.
func TestRenewRefuses(t *testing.T) {
	const host = "derp.example.com"
	key := newKey(t, "P-256")
	ca := (*authority)(nil).issue(t, "Some CA")
	p := with(t, host, chainOf(ca.sign(t, host, false, key), ca.cert), pkcs8(t, key))
	before := load(t, p)
	_, err := p.Renew(now)
	says(t, p, err, `%c is not self-signed but issued by "CN=Some CA": get a new one there, and replace it and %k`)
	if !load(t, p).Same(before) || len(names(t, p)) != 2 {
		t.Errorf("changed: %v", names(t, p))
	}

	write(t, p.Key, pkcs8(t, newKey(t, "P-256")))
	_, err = p.Renew(now)
	says(t, p, err, "%k is not the key of %c")

	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if _, err := certificate.At(dir, host).Renew(now); !errors.Is(err, certificate.ErrMissing) {
			t.Errorf("without a pair: %v", err)
		}
	}
}

// The mistake it guards: a renewal that fails at any of its steps and leaves two files that
// do not belong together. A folder under the name of a file makes a step fail for root, too.
func TestRenewFails(t *testing.T) {
	for _, in := range []string{".key.old", ".crt.old", ".key.renew", ".crt.renew"} {
		t.Run(in, func(t *testing.T) {
			p := made(t, "derp.example.com")
			before := load(t, p)
			if err := os.MkdirAll(filepath.Join(filepath.Dir(p.Crt), "derp.example.com"+in, "full"), 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Renew(now); err == nil {
				t.Error("no error")
			}
			if !load(t, p).Same(before) {
				t.Error("the pair changed")
			}
		})
	}
}

// The mistake it guards: two at the same time, of which one's key and the other's certificate
// stay.
func TestRenewTwice(t *testing.T) {
	p := made(t, "derp.example.com")
	dir, err := os.Open(filepath.Dir(p.Crt))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	_, err = p.Renew(now)
	says(t, p, err, "%c is being renewed already")
	dir.Close()
	if _, err := p.Renew(now); err != nil {
		t.Error(err)
	}
}

// The mistake it guards: a renewal that ended with its process, after which the relay does
// not start any more.
func TestRecover(t *testing.T) {
	old, renewed := made(t, "derp.example.com"), made(t, "derp.example.com")
	oldCrt, oldKey, newCrt, newKey := read(t, old.Crt), read(t, old.Key), read(t, renewed.Crt), read(t, renewed.Key)
	for _, test := range []struct {
		name                string
		key, crtNew, keyNew string // what Renew left; the certificate is the old one
		want                certificate.Pair
	}{
		{"nothing", oldKey, "", "", old},
		{"with one file written", oldKey, "", newKey, old},
		{"with a part of the other one", oldKey, newCrt[:20], newKey, old},
		{"with both files written", oldKey, newCrt, newKey, old},
		{"with the key renamed", newKey, newCrt, "", renewed},
	} {
		for _, how := range []string{"at the start", "by another renewal"} {
			t.Run(test.name+" "+how, func(t *testing.T) {
				p := with(t, old.Host, oldCrt, test.key)
				if test.crtNew != "" {
					write(t, p.Crt+".renew", test.crtNew)
				}
				if test.keyNew != "" {
					write(t, p.Key+".renew", test.keyNew)
				}
				if how == "at the start" {
					if err := p.Recover(); err != nil {
						t.Fatal(err)
					}
					if !load(t, p).Same(load(t, test.want)) {
						t.Error("it is another pair")
					}
				} else if kept, err := p.Renew(now); err != nil || read(t, kept[0]) != read(t, test.want.Crt) {
					t.Errorf("kept %v: %v", kept, err)
				}
				if left := strings.Join(names(t, p), " "); strings.Contains(left, ".crt.renew") {
					t.Errorf("left: %s", left)
				}
			})
		}
	}
}

// The mistake it guards: a private copy that others can read, or that is another pair.
func TestStore(t *testing.T) {
	p := made(t, "derp.example.com")
	cert := load(t, p)
	if err := errors.Join(os.Remove(p.Crt), os.Remove(p.Key)); err != nil { // it is from memory
		t.Fatal(err)
	}
	other := made(t, "derp.example.com")
	for _, to := range []certificate.Pair{certificate.At(filepath.Join(t.TempDir(), "new"), p.Host), other} {
		if err := cert.Store(to); err != nil {
			t.Fatal(err)
		}
		if !load(t, to).Same(cert) || len(names(t, to)) != 2 {
			t.Errorf("it is another pair, or there is more: %v", names(t, to))
		}
		for name, mode := range map[string]fs.FileMode{to.Key: 0o600, to.Crt: 0o644} {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if err := cert.Store(certificate.At(file, p.Host)); err == nil {
		t.Error("no error")
	}
}

// The mistake it guards: a warning that comes late, or says to do what does not help.
func TestWarning(t *testing.T) {
	end := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	c := certificate.Certificate{Leaf: &x509.Certificate{NotBefore: end.AddDate(-1, 0, 0), NotAfter: end}}
	for hours, want := range map[int]string{
		31 * 24: "", 30 * 24: "", 29 * 24: "expires in 29 days, on 2027-03-01; replace the pair", 25: "expires in 1 day,", 1: "expires in less than a day, on 2027-03-01",
		0: "expired on 2027-03-01; clients refuse it; replace the pair", -5: "expired on", 400 * 24: "is not valid before 2026-03-01T00:00:00Z; clients refuse it; check the clock",
	} {
		at := end.Add(-time.Duration(hours) * time.Hour)
		got := c.Warning(at)
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%d hours before the end: %q, want %q", hours, got, want)
		}
		if c.Expired(at) != strings.Contains(got, "clients refuse it") {
			t.Errorf("%d hours before the end: expired is %v", hours, c.Expired(at))
		}
	}
	c.SelfSigned = true
	if got := c.Warning(end.AddDate(0, 0, -5)); !strings.Contains(got, "to get a new one run: docker exec CONTAINER /entrypoint renew, and put the new CertName into the tailnet policy") {
		t.Errorf("self-signed: %q", got)
	}
}

// The mistake it guards: a relay that is restarted with a pair that its clients refuse, and
// one that keeps an expired pair forever.
func TestReplaces(t *testing.T) {
	from := func(year int) certificate.Certificate {
		start := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		return certificate.Certificate{Leaf: &x509.Certificate{NotBefore: start, NotAfter: start.AddDate(1, 0, 0)}}
	}
	past, present, future := from(now.Year()-1), from(now.Year()), from(now.Year()+1)
	for _, test := range []struct {
		name     string
		new, old certificate.Certificate
		want     string
	}{
		{"valid for valid", present, present, ""},
		{"valid for expired", present, past, ""},
		{"expired for expired", past, past, ""},
		{"expired for valid", past, present, "the new certificate expired on 2026-01-01, the one that is served is valid until 2027-01-01; replace the pair"},
		{"not yet valid for valid", future, present, "the new certificate is not valid before 2027-01-01T00:00:00Z, the one that is served is valid until 2027-01-01; check the clock"},
		{"not yet valid for expired", future, past, ""},
	} {
		err := test.new.Replaces(test.old, now)
		if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
