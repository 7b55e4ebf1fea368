package certificate_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

// The mistake it guards: a health check that makes the relay order a certificate, or that
// never looks at one, because it has another opinion than autocert on which one is good.
func TestCached(t *testing.T) {
	const host = "derp.example.com"
	now := time.Now() // autocert's
	ca := (*authority)(nil).issue(t, "CA")
	key, rsaKey, other := newKey(t, "P-256"), newKey(t, "RSA"), newKey(t, "P-384")
	valid := func(key crypto.Signer, name string, from, days int) string {
		return chainOf(ca.signAs(t, &x509.Certificate{
			SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: now.AddDate(0, 0, from), NotAfter: now.AddDate(0, 0, from+days),
		}, key), ca.cert)
	}
	good := valid(key, host, -1, 90)
	_, sec1, _ := strings.Cut(form(t, "SEC1", key), "-----END EC PARAMETERS-----\n")
	for _, test := range []struct {
		name, file, content string
		want                bool
	}{
		{"good", host, sec1 + good, true},
		{"PKCS8", host, pkcs8(t, key) + good, true},
		{"nothing", "other", "", false},
		{"empty", host, "", false},
		{"expired", host, pkcs8(t, key) + valid(key, host, -91, 90), false},
		{"not yet valid", host, pkcs8(t, key) + valid(key, host, 1, 90), false},
		{"another name", host, pkcs8(t, key) + valid(key, "other.example.com", -1, 90), false},
		{"another key", host, pkcs8(t, other) + good, false},
		{"RSA in the place of ECDSA", host, pkcs8(t, rsaKey) + valid(rsaKey, host, -1, 90), false},
		{"RSA for old clients", host + "+rsa", pkcs8(t, rsaKey) + valid(rsaKey, host, -1, 90), false},
		{"no key", host, good, false},
		{"a damaged key", host, block("PRIVATE KEY", []byte{1}) + good, false},
		{"no certificate", host, pkcs8(t, key), false},
		{"something behind it", host, pkcs8(t, key) + good + "more", false},
		{"cut short", host, pkcs8(t, key) + good[:len(good)-100], false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, test.file), test.content)
			notAfter, ok := certificate.Cached(dir, host, now)
			if ok != test.want {
				t.Errorf("cached is %v, expected %v", ok, test.want)
			}
			if ok && !notAfter.Equal(now.AddDate(0, 0, 89).Truncate(time.Second)) {
				t.Errorf("valid until %v", notAfter)
			}
			if upper, _ := certificate.Cached(dir, "DERP.example.com.", now); !upper.Equal(notAfter) {
				t.Errorf("with capitals it is another one: %v", upper)
			}
			served, ordered := handshake(dir, host)
			if served != test.want || ordered && test.want {
				t.Errorf("autocert has one is %v, and it orders one is %v; cached is %v", served, ordered, ok)
			}
		})
	}
	if _, ok := certificate.Cached(t.TempDir(), "../x", now); ok {
		t.Error("a name that leads out of the folder")
	}
}

// handshake asks autocert for a certificate, as derper does in each handshake. The CA answers
// nothing.
func handshake(dir, host string) (served, ordered bool) {
	var asked atomic.Bool
	ca := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Store(true)
		w.WriteHeader(http.StatusNotFound)
	}))
	defer ca.Close()
	manager := &autocert.Manager{
		Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(host), Cache: autocert.DirCache(dir),
		Client: &acme.Client{DirectoryURL: ca.URL},
	}
	_, err := manager.GetCertificate(&tls.ClientHelloInfo{
		ServerName: host, SupportedCurves: []tls.CurveID{tls.CurveP256}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	})
	return err == nil, asked.Load()
}
