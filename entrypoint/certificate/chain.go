package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// notes says what clients may refuse although derper serves it. Which roots
// the clients have is unknown here, and to load this system's takes memory.
func (p Pair) notes(crt []byte, pair tls.Certificate) (notes []string) {
	note := func(format string, args ...any) {
		notes = append(notes, p.Crt+": "+fmt.Sprintf(format, args...))
	}
	if h := hidden(crt); h != "" {
		note("%s", h)
	}
	before, _, _ := bytes.Cut(crt, begin)
	if isHTML(before) {
		note("a web page (HTML) comes before the first certificate; take it out")
	}
	last, others := pair.Leaf, pair.Certificate[1:]
	switch {
	case selfIssued(last) && len(others) > 0:
		note("the certificate is self-signed, but others follow it; clients that know it by its CertName accept it alone, so take them out")
		return notes
	case !selfIssued(last) && len(others) == 0:
		note("the certificate comes without the one of its issuer, %s; most clients refuse it: use the full chain (of certbot fullchain.pem, not cert.pem)", issuer(last))
		return notes
	}
	for i, der := range others {
		n := i + 2 // as people count, with the leaf
		c, err := x509.ParseCertificate(der)
		if err != nil {
			note("certificate %d is damaged (%v); most clients refuse the chain", n, err)
			return notes
		}
		if issued(c, last) {
			last = c
			continue
		}
		by := func(c *x509.Certificate) bool { return issued(c, last) }
		switch {
		case selfIssued(last):
			note("certificate %d comes after the root, %s; take it out", n, issuer(last))
		case find(others[i:], by) >= 0:
			note("the chain is in the wrong order: certificate %d must be the one of the issuer %s; sort it, each certificate followed by that of its issuer", n, issuer(last))
		default:
			note("certificate %d is not the one of the issuer %s, which is not in the file; use the full chain, as the CA gave it", n, issuer(last))
		}
		return notes // what follows is a matter of luck
	}
	return notes
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// issued reports whether child was signed with parent's key.
func issued(parent, child *x509.Certificate) bool {
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return false
	}
	err := child.CheckSignatureFrom(parent)
	var old x509.InsecureAlgorithmError // may do on the way to a root
	return err == nil || errors.As(err, &old)
}

func issuer(c *x509.Certificate) string {
	return fmt.Sprintf("%q", c.Issuer.String())
}
