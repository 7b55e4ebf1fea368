package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The mistake it guards: a self-made certificate that real TLS software, which
// this package does without, refuses.
func TestCreateAgainstStandardLibrary(t *testing.T) {
	now := time.Now()
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example.com"
	for _, host := range []string{"derp.example.com", "10.0.0.1", "2001:db8::1", "::1", "a_b.example", long} {
		t.Run(host, func(t *testing.T) {
			p := At(filepath.Join(t.TempDir(), "made", "certs"), host)
			if _, err := p.Load(); !errors.Is(err, ErrMissing) {
				t.Fatalf("before: %v", err)
			}
			if err := p.Create(now); err != nil {
				t.Fatal(err)
			}
			pair, err := tls.LoadX509KeyPair(p.Crt, p.Key)
			if err != nil {
				t.Fatalf("derper would refuse it: %v", err)
			}
			cert, err := x509.ParseCertificate(pair.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := cert.VerifyHostname(host); err != nil {
				t.Error(err)
			}
			if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
				t.Error(err)
			}
			roots := x509.NewCertPool()
			roots.AddCert(cert)
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
				t.Errorf("as its own root: %v", err)
			}
			if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || cert.Version != 3 {
				t.Errorf("CA %v, key usage %v, version %d", cert.IsCA, cert.KeyUsage, cert.Version)
			}
			if days := cert.NotAfter.Sub(now).Hours() / 24; days < 364 || days > 367 {
				t.Errorf("valid for %v days", days)
			}
			got, err := p.Load()
			if err != nil || !got.SelfSigned || !bytes.Equal(got.Leaf.Raw, cert.Raw) || !got.Leaf.NotAfter.Equal(cert.NotAfter) {
				t.Errorf("read back: %v, %+v", err, got)
			}
			for path, mode := range map[string]os.FileMode{p.Key: 0o600, p.Crt: 0o644} {
				if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&^mode != 0 {
					t.Errorf("%s: %v, %v", path, fi.Mode(), err)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(p.Crt), "*")); len(left) != 2 {
				t.Errorf("left behind: %v", left)
			}
			before, _ := os.ReadFile(p.Crt)
			if err := p.Create(now); !errors.Is(err, os.ErrExist) {
				t.Errorf("a second time: %v", err)
			}
			if after, _ := os.ReadFile(p.Crt); !bytes.Equal(before, after) {
				t.Error("a certificate was written over")
			}
		})
	}
}

// The mistake it guards: file names that differ from derper's.
func TestAt(t *testing.T) {
	for host, want := range map[string]string{
		"derp.example.com": "derp.example.com", "10.0.0.1": "10.0.0.1", "2001:db8::1": "2001db81", "::1": "1", "a_b": "ab",
	} {
		if p := At("d", host); p.Crt != "d/"+want+".crt" || p.Key != "d/"+want+".key" {
			t.Errorf("%s: %s and %s", host, p.Crt, p.Key)
		}
	}
}

func sign(t *testing.T, template *x509.Certificate, key crypto.Signer) []byte {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}}
	template.SerialNumber = big.NewInt(7)
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), ca)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// The mistake it guards: a pair that derper takes and this package refuses, or
// the other way round, for any form in which keys come.
func TestLoadKeyForms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	otherRSA, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	keys := map[string][2]crypto.Signer{"rsa": {rsaKey, otherRSA}, "ed25519": {edKey, nil}}
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()} {
		a, _ := ecdsa.GenerateKey(curve, rand.Reader)
		b, _ := ecdsa.GenerateKey(curve, rand.Reader)
		keys[name] = [2]crypto.Signer{a, b}
	}
	for name, pair := range keys {
		crt := sign(t, &x509.Certificate{
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			DNSNames: []string{"*.example.com"}, Subject: pkix.Name{CommonName: "x"},
		}, pair[0])
		for form, encode := range map[string]func(crypto.Signer) []byte{
			"pkcs8": func(k crypto.Signer) []byte {
				der, _ := x509.MarshalPKCS8PrivateKey(k)
				return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
			},
			"own": func(k crypto.Signer) []byte {
				switch k := k.(type) {
				case *rsa.PrivateKey:
					return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})
				case *ecdsa.PrivateKey:
					der, _ := x509.MarshalECPrivateKey(k)
					// as openssl ecparam -genkey writes it
					params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 1, 0}})
					return append(params, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)
				}
				return nil
			},
		} {
			key := encode(pair[0])
			if key == nil {
				continue
			}
			t.Run(name+"/"+form, func(t *testing.T) {
				p := At(t.TempDir(), "derp.example.com")
				os.WriteFile(p.Crt, append([]byte("a comment\n"), crt...), 0o600)
				os.WriteFile(p.Key, key, 0o600)
				if _, err := tls.LoadX509KeyPair(p.Crt, p.Key); err != nil {
					t.Fatalf("derper would refuse it: %v", err)
				}
				cert, err := p.Load()
				if err != nil || cert.SelfSigned {
					t.Errorf("%v, self-signed %v", err, cert.SelfSigned)
				}
				if pair[1] == nil {
					return
				}
				os.WriteFile(p.Key, encode(pair[1]), 0o600)
				if _, err := p.Load(); err == nil || !strings.Contains(err.Error(), "is not the key of") {
					t.Errorf("the key of another certificate: %v", err)
				}
			})
		}
	}
}

// The mistake it guards: another opinion than crypto/x509, and so derper, on
// which host a certificate is for.
func TestVerifyHostname(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	block, _ := pem.Decode(sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "common.example.com"},
		DNSNames:    []string{"a.example.com", "*.wild.example.com", "UPPER.example.com"},
		IPAddresses: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("2001:db8::1")},
		NotBefore:   time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2051, 1, 2, 3, 4, 5, 0, time.UTC),
	}, key))
	want, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseLeaf(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !got.NotBefore.Equal(want.NotBefore) || !got.NotAfter.Equal(want.NotAfter) {
		t.Errorf("valid from %v to %v", got.NotBefore, got.NotAfter)
	}
	for _, host := range []string{
		"a.example.com", "A.example.com", "b.example.com", "x.wild.example.com", "x.y.wild.example.com", "wild.example.com",
		"upper.example.com", "common.example.com", "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:DB8:0::1", "::1", ".wild.example.com",
	} {
		if w, g := want.VerifyHostname(host), got.VerifyHostname(host); (w == nil) != (g == nil) {
			t.Errorf("%s: crypto/x509 says %v, we say %v", host, w, g)
		}
	}
	for n := range block.Bytes { // cut short anywhere, it is an error and no panic
		if _, err := ParseLeaf(block.Bytes[:n]); err == nil {
			t.Fatalf("the first %d bytes are taken for a certificate", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	p := At(f.TempDir(), "a.example")
	if err := p.Create(time.Now()); err != nil {
		f.Fatal(err)
	}
	crt, _ := os.ReadFile(p.Crt)
	key, _ := os.ReadFile(p.Key)
	for _, b := range [][]byte{crt, key} {
		block, _ := pem.Decode(b)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if leaf, err := ParseLeaf(b); err == nil {
			leaf.VerifyHostname("a.example")
			publicBits(leaf.publicKey)
		}
		for _, kind := range []string{"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"} {
			if belongs, err := firstKey(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})); err == nil {
				belongs(b)
			}
		}
	})
}

func TestWarning(t *testing.T) {
	end := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	c := Certificate{Leaf: &Leaf{NotBefore: end.AddDate(-1, 0, 0), NotAfter: end}}
	for days, want := range map[int]string{
		31: "", 30: "", 29: "expires in 29 days, on 2027-03-01; replace the pair", 0: "expired on 2027-03-01", -5: "expired on", 400: "is not valid before",
	} {
		got := c.Warning(end.AddDate(0, 0, -days))
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%d days before the end: %q, want %q", days, got, want)
		}
	}
	c.SelfSigned = true
	if got := c.Warning(end.AddDate(0, 0, -5)); !strings.Contains(got, "put the new CertName into the tailnet policy") {
		t.Errorf("self-signed: %q", got)
	}
}
