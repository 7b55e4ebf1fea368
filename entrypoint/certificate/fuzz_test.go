package certificate_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

// FuzzLoad guards against a crash on what a file happens to hold, a pair that derper would end
// on, and an error that does not name the file. The files are as they are given, or the lowest
// bits of form put either into a PEM block first.
//
// Files are written and read each time, and keys compared: that keeps it below 10,000
// executions a second where temporary files are on a disk.
func FuzzLoad(f *testing.F) {
	const host = "derp.example.com"
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	crt := (*authority)(nil).sign(f, host, false, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(crt.Raw, der, byte(3))
	f.Add(der, crt.Raw, byte(1))
	f.Add([]byte(chainOf(crt)), []byte(pkcs8(f, key)), byte(0))
	f.Add([]byte(pkcs8(f, key)), []byte(chainOf(crt)), byte(0))
	f.Add([]byte("\ufeff"+chainOf(crt)), []byte("0"), byte(0))
	p := certificate.At(f.TempDir(), host)
	f.Fuzz(func(t *testing.T, crt, key []byte, form byte) {
		if form&1 != 0 {
			crt = []byte(block("CERTIFICATE", crt))
		}
		if form&2 != 0 {
			key = []byte(block("PRIVATE KEY", key))
		}
		write(t, p.Crt, string(crt))
		write(t, p.Key, string(key))
		cert, err := p.Load()
		if err != nil {
			if !strings.Contains(err.Error(), p.Crt) && !strings.Contains(err.Error(), p.Key) {
				t.Errorf("which file? %v", err)
			}
			return
		}
		if _, err := tls.X509KeyPair(crt, key); err != nil {
			t.Errorf("derper refuses it: %v", err)
		}
		if err := cert.Leaf.VerifyHostname(host); err != nil {
			t.Errorf("clients refuse it: %v", err)
		}
	})
}

// FuzzCached guards against a crash on what is in the folder of derper's own certificates, and
// one that is taken for a certificate that lasts when it does not. Files keep it as slow as
// FuzzLoad.
func FuzzCached(f *testing.F) {
	const host = "derp.example.com"
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	crt := (*authority)(nil).sign(f, host, false, key)
	f.Add(pkcs8(f, key) + chainOf(crt))
	f.Add(chainOf(crt, crt) + pkcs8(f, key))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		write(t, filepath.Join(dir, host), text)
		if notAfter, ok := certificate.Cached(dir, host, now); ok && notAfter.Before(now) {
			t.Errorf("is good until %s", notAfter)
		}
	})
}
