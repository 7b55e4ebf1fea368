package certificate_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

// An authority signs certificates, its own by itself or by another one.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(map[string]elliptic.Curve{
			"P-224": elliptic.P224(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521(),
		}[kind], rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign issues a certificate for the key; by a nil authority, it is self-signed.
func (a *authority) sign(t testing.TB, name string, isCA bool, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now, NotAfter: now.AddDate(0, 3, 0),
		IsCA: isCA, BasicConstraintsValid: true,
	}
	if !isCA {
		template.DNSNames = []string{name}
	}
	return a.signAs(t, template, key)
}

func (a *authority) signAs(t testing.TB, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	parent, by := template, key
	if a != nil {
		parent, by = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *authority) issue(t testing.TB, name string) *authority {
	key := newKey(t, "P-256")
	return &authority{a.sign(t, name, true, key), key}
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func chainOf(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		b.WriteString(block("CERTIFICATE", c.Raw))
	}
	return b.String()
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

// form writes a key; empty if there is no such form of it.
func form(t testing.TB, name string, key crypto.Signer) string {
	t.Helper()
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if name == "PKCS1" {
			return block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k))
		}
	case *ecdsa.PrivateKey:
		if name == "SEC1" { // as openssl ecparam -genkey writes it
			der, err := x509.MarshalECPrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			return block("EC PARAMETERS", []byte{6, 1, 0}) + block("EC PRIVATE KEY", der)
		}
	}
	if name == "PKCS8" {
		return pkcs8(t, key)
	}
	return ""
}

// with is a pair of these contents.
func with(t testing.TB, host, crt, key string) certificate.Pair {
	t.Helper()
	p := certificate.At(t.TempDir(), host)
	write(t, p.Crt, crt)
	write(t, p.Key, key)
	return p
}

// says expects an error that has all the words, in which %c is the certificate and %k the
// key.
func says(t testing.TB, p certificate.Pair, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, words := range words {
		words = strings.NewReplacer("%c", p.Crt, "%k", p.Key).Replace(words)
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
}

// The mistake it guards: a pair that derper takes and this package refuses, and one of two
// halves that derper ends on, for any form in which keys come.
func TestLoadKeyForms(t *testing.T) {
	ca := (*authority)(nil).issue(t, "CA")
	kinds := []string{"RSA", "P-256", "P-384", "P-521", "Ed25519"}
	others := map[string]crypto.Signer{}
	for _, kind := range kinds {
		others[kind] = newKey(t, kind)
	}
	for _, kind := range kinds {
		key := newKey(t, kind)
		crt := "a comment\n" + chainOf(ca.sign(t, "derp.example.com", false, key), ca.cert)
		for _, as := range []string{"PKCS1", "SEC1", "PKCS8"} {
			text := form(t, as, key)
			if text == "" {
				continue
			}
			t.Run(kind+"/"+as, func(t *testing.T) {
				p := with(t, "derp.example.com", crt, text)
				if _, err := tls.LoadX509KeyPair(p.Crt, p.Key); err != nil {
					t.Fatalf("derper would refuse it: %v", err)
				}
				cert, err := p.Load()
				if err != nil || cert.SelfSigned || len(cert.Notes) > 0 || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.Leaf.PublicKey) {
					t.Errorf("%v, self-signed %v, notes %q", err, cert.SelfSigned, cert.Notes)
				}
				for other, key := range others {
					for _, as := range []string{"PKCS1", "SEC1", "PKCS8"} {
						if text := form(t, as, key); text != "" {
							write(t, p.Key, text)
							_, err := p.Load()
							says(t, p, err, "%k is not the key of %c; replace both")
							if _, err := tls.LoadX509KeyPair(p.Crt, p.Key); err == nil {
								t.Errorf("derper takes it with an %s key of another one", other)
							}
						}
					}
				}
			})
		}
	}
}

// The mistake it guards: "failed to find any PEM data", which says nothing to one who
// has a file in another form; and an error that shows a key.
func TestLoadOtherForms(t *testing.T) {
	const host = "derp.example.com"
	key := newKey(t, "P-256")
	ca := (*authority)(nil).issue(t, "CA")
	leaf := ca.sign(t, host, false, key)
	crt, private := chainOf(leaf, ca.cert), pkcs8(t, key)
	keyDER, _ := pem.Decode([]byte(private))
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	utf16 := "\xff\xfe"
	for _, r := range crt {
		utf16 += string(r) + "\x00"
	}
	base64 := strings.Split(private, "\n")[1]
	for _, test := range []struct {
		name, crt, key string
		words          []string
	}{
		{"blank", " \n", private, []string{"%c: there is no PEM certificate in it: it is empty; it must hold"}},
		{"DER", string(leaf.Raw), private, []string{"%c: ", "a certificate in DER form; convert it: openssl x509 -inform DER -in %c -out NEW"}},
		{"PKCS#12", "0\x82\x0a\x10\x02\x01\x03\x30\x82\x09", private, []string{"it is PKCS#12 (.p12, .pfx); convert it: openssl pkcs12 -nodes -in %c"}},
		{"a key in DER", crt, string(keyDER.Bytes), []string{"%k: there is no PEM key in it: it is a key in DER form; convert it: openssl pkey -inform DER -in %k"}},
		{"other DER", "0\x03\x02\x01\x01", private, []string{"it is binary, in DER form perhaps"}},
		{"PKCS#7", block("PKCS7", leaf.Raw), private, []string{"it holds PKCS#7; convert it: openssl pkcs7 -print_certs -in %c"}},
		{"trusted", block("TRUSTED CERTIFICATE", leaf.Raw), private, []string{"convert it: openssl x509 -in %c"}},
		{"a request", block("CERTIFICATE REQUEST", leaf.Raw), private, []string{"it holds a request for a certificate; put there what the CA made of it"}},
		{"a public key", block("PUBLIC KEY", leaf.Raw), private, []string{`it holds "public key"`}},
		{"UTF-16", utf16, private, []string{"byte order mark of UTF-16, which PowerShell's > writes"}},
		{"byte order mark", "\ufeff" + chainOf(leaf), private, []string{"%c: ", "begins with a byte order mark, which hides the first line"}},
		{"byte order mark and a chain", "\ufeff" + crt, private, []string{"%c: it begins with a byte order mark, which hides the first line"}},
		{"byte order mark before the key", crt, "\ufeff" + private, []string{"%k: ", "begins with a byte order mark"}},
		{"HTML", "\n<!DOCTYPE html><html>not found", private, []string{"it is a web page (HTML)"}},
		{"other text", "not found\n", private, []string{`it begins with "not found"`}},
		{"base64", strings.Join(strings.Split(crt, "\n")[1:3], "\n"), private, []string{"it is base64 without the lines -----BEGIN and -----END"}},
		{"noise", "\x01\x02\x00\xff", private, []string{"it is neither text nor DER"}},
		{"indented", " " + chainOf(leaf), private, []string{"there are spaces before -----BEGIN; take them out"}},
		{"a variable", "CRT=" + chainOf(leaf), private, []string{"there is something before -----BEGIN on its line"}},
		{"one line", strings.ReplaceAll(crt, "\n", `\n`), private, []string{`its line breaks are written as \n`}},
		{"damaged inside", strings.Replace(chainOf(leaf), "\nM", "\n!", 1), private, []string{"1 of 1 PEM blocks in it are damaged"}},
		{"damaged certificate", block("CERTIFICATE", leaf.Raw[:100]), private, []string{"%c: its first certificate is damaged"}},
		{"the issuer first", chainOf(ca.cert, leaf), private, []string{"%c: the certificate for derp.example.com is in it, but not first; put the certificate for derp.example.com first"}},
		{"an encrypted key", crt, block("ENCRYPTED PRIVATE KEY", keyDER.Bytes[:40]), []string{"%k: the key is encrypted", "openssl pkey -in %k -out NEW"}},
		{"an encrypted RSA key", crt, "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", []string{"%k: the key is encrypted"}},
		{"OpenSSH", crt, block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), []string{"%k: the key is in OpenSSH's own form; convert a copy: ssh-keygen -p -m PKCS8 -N '' -f %k"}},
		{"a damaged key", crt, block("PRIVATE KEY", keyDER.Bytes[:40]), []string{"%k: the key is damaged or of an unknown form", "one unencrypted RSA, ECDSA or Ed25519 key"}},
		{"a key for other things", crt, pkcs8(t, x25519), []string{"%k: the key is of a kind that TLS does not use"}},
		{"the public half", crt, block("PUBLIC KEY", []byte{1}), []string{"%k: there is no PEM key in it: it holds a public key"}},
		{"parameters alone", crt, block("EC PARAMETERS", []byte{1}), []string{"%k: there is no PEM key in it: it holds something else"}},
		{"a word as key", crt, "hunter 2", []string{"%k: there is no PEM key in it: it is other text"}},
		{"a key without its lines", base64, base64, []string{"%c: ", "it is base64"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := with(t, host, test.crt, test.key)
			_, err := p.Load()
			says(t, p, err, test.words...)
			if _, err := tls.LoadX509KeyPair(p.Crt, p.Key); err == nil {
				t.Error("derper takes it")
			}
			for _, secret := range []string{"PRIVATE", base64[:8], "hunter"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q shows what is in a file", err)
				}
			}
		})
	}
}

// The mistake it guards: a relay that starts with a key with which no handshake succeeds.
func TestLoadUnusableKey(t *testing.T) {
	key := newKey(t, "P-224")
	p := with(t, "derp.example.com", chainOf((*authority)(nil).sign(t, "derp.example.com", false, key)), pkcs8(t, key))
	_, err := p.Load()
	says(t, p, err, "%c: no TLS client accepts a certificate with this kind of key")
}

// The mistake it guards: an error that does not tell for which names the certificate is.
func TestLoadOtherName(t *testing.T) {
	ca, key := (*authority)(nil).issue(t, "CA"), newKey(t, "P-256")
	many := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "derp.example.com"}, NotAfter: now}
	for i := range 9 {
		many.DNSNames = append(many.DNSNames, fmt.Sprintf("%d.example.com", i))
	}
	nameless := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "derp.example.com"}, NotAfter: now}
	for want, template := range map[string]*x509.Certificate{
		"the certificate is for 0.example.com, 1.example.com, 2.example.com, 3.example.com, 4.example.com, 4 more, not for derp.example.com": many,
		"the certificate is for no name (it has no subject alternative name), not for derp.example.com; set HOSTNAME to a name in it":        nameless,
	} {
		p := with(t, "derp.example.com", chainOf(ca.signAs(t, template, key)), pkcs8(t, key))
		_, err := p.Load()
		says(t, p, err, "%c: "+want)
	}
}

// The mistake it guards: a chain that the browser of the one who tries it can complete, and
// a Tailscale client cannot; and a warning about a good one.
func TestNotes(t *testing.T) {
	const host = "derp.example.com"
	key := newKey(t, "P-256")
	root := (*authority)(nil).issue(t, "Root")
	middle := root.issue(t, "Middle")
	last := middle.issue(t, "Last")
	namesake := (*authority)(nil).issue(t, "Last")
	leaf, self := last.sign(t, host, false, key), (*authority)(nil).sign(t, host, false, key)
	for _, test := range []struct{ name, crt, want string }{
		{"without its root", chainOf(leaf, last.cert, middle.cert), ""},
		{"with its root", chainOf(leaf, last.cert, middle.cert, root.cert), ""},
		{"openssl's comments", "Bag Attributes\n    friendlyName: x\nsubject=CN = x\n" + chainOf(leaf, last.cert, middle.cert), ""},
		{"self-signed", chainOf(self), ""},
		{"alone", chainOf(leaf), `without the one of its issuer, "CN=Last"; most clients refuse it: use the full chain (of certbot fullchain.pem`},
		{"in the wrong order", chainOf(leaf, middle.cert, last.cert), `in the wrong order: certificate 2 must be the one of the issuer "CN=Last"`},
		{"the root first", chainOf(leaf, last.cert, root.cert, middle.cert), `certificate 3 must be the one of the issuer "CN=Middle"`},
		{"the leaf twice", chainOf(leaf, leaf), `certificate 2 is not the one of the issuer "CN=Last", which is not in the file`},
		{"a gap", chainOf(leaf, last.cert, root.cert), `certificate 3 is not the one of the issuer "CN=Middle"`},
		{"another issuer of the same name", chainOf(leaf, namesake.cert), `certificate 2 is not the one of the issuer`},
		{"more than the root", chainOf(leaf, last.cert, middle.cert, root.cert, self), `certificate 5 comes after the root, "CN=Root"`},
		{"self-signed, with another one", chainOf(self, root.cert), "self-signed, but others follow"},
		{"a damaged one", chainOf(leaf) + block("CERTIFICATE", last.cert.Raw[:50]), "certificate 2 is damaged"},
		{"cut short", chainOf(leaf, last.cert) + chainOf(middle.cert)[:90], "it is cut short"},
		{"an indented one", chainOf(leaf, last.cert) + " " + chainOf(middle.cert), "there are spaces before -----BEGIN"},
		{"HTML before it", "<html>moved</html>\n" + chainOf(self), "a web page (HTML) comes before the first certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := with(t, host, test.crt, pkcs8(t, key))
			cert, err := p.Load()
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case test.want == "" && len(cert.Notes) > 0:
				t.Errorf("a note: %q", cert.Notes)
			case test.want != "" && (len(cert.Notes) != 1 || !strings.Contains(cert.Notes[0], test.want) || !strings.HasPrefix(cert.Notes[0], p.Crt+": ")):
				t.Errorf("notes are %q, expected %q", cert.Notes, test.want)
			}
		})
	}
}
