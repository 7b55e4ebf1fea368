package certificate

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// explain says for people why [tls.X509KeyPair] refuses the files.
func (p Pair) explain(crt, key []byte, refusal error) error {
	crtFail := func(reason string) error {
		return fmt.Errorf("%s: %s; it must hold the certificate in PEM form, then its chain", p.Crt, reason)
	}
	keyFail := func(reason string) error {
		return fmt.Errorf("%s: %s; it must hold one unencrypted RSA, ECDSA or Ed25519 key in PEM form", p.Key, reason)
	}
	inCrt, inKey := blocks(crt), blocks(key)
	chain, private := certificates(inCrt), firstKey(inKey)
	switch {
	case len(chain) == 0 && private == nil && firstKey(inCrt) != nil && len(certificates(inKey)) > 0:
		return fmt.Errorf("%s holds the key and %s the certificate: exchange the two", p.Crt, p.Key)
	case len(chain) == 0:
		return crtFail("there is no PEM certificate in it: " + noCertificate(p.Crt, crt, inCrt))
	case private == nil:
		return keyFail("there is no PEM key in it: " + noKey(p.Key, key, inKey))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return crtFail(fmt.Sprintf("its first certificate is damaged (%v)", err))
	}
	signer, err := parseKey(private.Bytes)
	if err != nil {
		return keyFail(otherKey(p.Key, private, err))
	}
	belongs := func(c *x509.Certificate) bool { return pairs(signer, c) }
	switch {
	case belongs(leaf): // tls knows a reason that this does not
		return fmt.Errorf("%s and %s: %w; replace both", p.Crt, p.Key, refusal)
	case find(chain, belongs) > 0:
		return p.order()
	case hidden(crt) != "": // perhaps it is the one that is missed
		return crtFail(hidden(crt))
	}
	return fmt.Errorf("%s is not the key of %s; replace both with files that belong together", p.Key, p.Crt)
}

func (p Pair) order() error {
	return fmt.Errorf("%s: the certificate for %s is in it, but not first; put the certificate for %[2]s first, then its chain", p.Crt, p.Host)
}

// blocks returns all PEM blocks, as tls finds them.
func blocks(b []byte) (found []*pem.Block) {
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return found
		}
		found, b = append(found, block), rest
	}
}

func certificates(all []*pem.Block) (chain [][]byte) {
	for _, b := range all {
		if b.Type == "CERTIFICATE" {
			chain = append(chain, b.Bytes)
		}
	}
	return chain
}

// firstKey returns the block that tls takes for the key, or nil.
func firstKey(all []*pem.Block) *pem.Block {
	for _, b := range all {
		if b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY") {
			return b
		}
	}
	return nil
}

// find returns the index of the first certificate that is meant, or -1.
func find(chain [][]byte, is func(*x509.Certificate) bool) int {
	for i, der := range chain {
		if c, err := x509.ParseCertificate(der); err == nil && is(c) {
			return i
		}
	}
	return -1
}

// noCertificate says what there is instead.
func noCertificate(path string, b []byte, all []*pem.Block) string {
	if len(all) == 0 {
		return what(path, b, false)
	}
	switch kind := all[0].Type; {
	case firstKey(all) != nil:
		return "it holds a private key"
	case strings.HasSuffix(kind, "CERTIFICATE REQUEST"):
		return "it holds a request for a certificate; put there what the CA made of it"
	case kind == "PKCS7":
		return fmt.Sprintf("it holds PKCS#7; convert it: openssl pkcs7 -print_certs -in %s -out NEW", path)
	case strings.HasSuffix(kind, " CERTIFICATE"):
		return fmt.Sprintf("it holds one in a form of OpenSSL's own; convert it: openssl x509 -in %s -out NEW", path)
	default:
		return fmt.Sprintf("it holds %q", strings.ToLower(kind))
	}
}

// noKey says what there is instead. It shows nothing of the file.
func noKey(path string, b []byte, all []*pem.Block) string {
	switch {
	case len(all) == 0:
		return what(path, b, true)
	case len(certificates(all)) > 0:
		return "it holds a certificate"
	case strings.HasSuffix(all[0].Type, "PUBLIC KEY"):
		return "it holds a public key"
	}
	return "it holds something else"
}

// parseKey reads a key in any of the forms that tls and autocert try.
func parseKey(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("the key is damaged or of an unknown form (%w)", err)
	}
	if signer, ok := k.(crypto.Signer); ok {
		return signer, nil
	}
	return nil, errors.New("the key is of a kind that TLS does not use")
}

// pairs reports whether the key belongs to the certificate.
func pairs(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// otherKey says why derper cannot use the key of a block.
func otherKey(path string, b *pem.Block, err error) string {
	switch {
	case b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "":
		return fmt.Sprintf("the key is encrypted, and there is nobody to ask for its passphrase; write it without one: openssl pkey -in %s -out NEW", path)
	case b.Type == "OPENSSH PRIVATE KEY":
		return fmt.Sprintf("the key is in OpenSSH's own form; convert a copy: ssh-keygen -p -m PKCS8 -N '' -f %s", path)
	}
	return err.Error()
}
