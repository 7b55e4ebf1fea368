package certificate

import (
	"bytes"
	"crypto/ecdh"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// A Leaf is what is read from an X.509 certificate here. crypto/x509 would
// read it too, but is larger than the rest of the program; nothing here decides
// whether a stranger is to be trusted.
type Leaf struct {
	Raw                 []byte
	NotBefore, NotAfter time.Time
	SelfIssued          bool // issuer and subject are the same
	names               []string
	ips                 []net.IP
	publicKey           []byte // SubjectPublicKeyInfo, the content
}

// ParseLeaf reads a certificate in DER form.
func ParseLeaf(raw []byte) (*Leaf, error) {
	outer := &reader{rest: raw}
	tbs := outer.into(tagSequence).into(tagSequence)
	tbs.skipIf(tagContext) // version
	tbs.take(tagInteger)   // serial number
	tbs.take(tagSequence)  // signature algorithm
	issuer := tbs.take(tagSequence)
	validity := tbs.into(tagSequence)
	subject := tbs.take(tagSequence)
	leaf := &Leaf{
		Raw:        raw,
		SelfIssued: bytes.Equal(issuer, subject),
		publicKey:  tbs.take(tagSequence),
	}
	leaf.NotBefore, leaf.NotAfter = validity.time(), validity.time()
	if err := errors.Join(tbs.err, validity.err, outer.err); err != nil || len(outer.rest) > 0 {
		return nil, errDER
	}
	for len(tbs.rest) > 0 && tbs.err == nil {
		tag, content, _ := tbs.next()
		if tag == tagContext+3 {
			leaf.readExtensions(&reader{rest: content})
		}
	}
	return leaf, tbs.err
}

func (l *Leaf) readExtensions(r *reader) {
	list := r.into(tagSequence)
	for len(list.rest) > 0 && list.err == nil {
		ext := list.into(tagSequence)
		_, _, oid := ext.next()
		ext.skipIf(0x01) // critical
		value := ext.take(tagOctetString)
		if ext.err != nil || !bytes.Equal(oid, oidSAN) {
			continue
		}
		names := (&reader{rest: value}).into(tagSequence)
		for len(names.rest) > 0 && names.err == nil {
			switch tag, content, _ := names.next(); tag {
			case 0x82:
				l.names = append(l.names, string(content))
			case 0x87:
				l.ips = append(l.ips, net.IP(content))
			}
		}
	}
}

// time reads a UTCTime or GeneralizedTime.
func (r *reader) time() time.Time {
	tag, content, _ := r.next()
	layout := "20060102150405Z"
	switch tag {
	case tagUTCTime:
		layout = "060102150405Z"
	case tagTime:
	default:
		r.err = errDER
	}
	t, err := time.Parse(layout, string(content))
	if err != nil {
		r.err = errDER
	}
	if tag == tagUTCTime && t.Year() >= 2050 { // RFC 5280: 50 to 99 are the last century
		t = t.AddDate(-100, 0, 0)
	}
	return t
}

// VerifyHostname checks that the certificate is for the host, by the rules of
// crypto/x509: only subject alternative names count, and a wildcard stands for
// one label.
func (l *Leaf) VerifyHostname(host string) error {
	if ip := net.ParseIP(host); ip != nil {
		for _, own := range l.ips {
			if own.Equal(ip) {
				return nil
			}
		}
	} else {
		for _, name := range l.names {
			if matches(strings.ToLower(strings.TrimSuffix(name, ".")), strings.ToLower(host)) {
				return nil
			}
		}
	}
	return fmt.Errorf("the certificate is for %s, not for %s", l.hosts(), host)
}

func matches(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*."); ok {
		label, rest, ok := strings.Cut(host, ".")
		return ok && label != "" && rest == suffix
	}
	return pattern == host
}

func (l *Leaf) hosts() string {
	all := append([]string(nil), l.names...)
	for _, ip := range l.ips {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name (it has no subject alternative name)"
	}
	return strings.Join(all, ", ")
}

// firstLeaf finds the first certificate of a PEM file, as derper does.
func firstLeaf(b []byte) (*Leaf, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return ParseLeaf(block.Bytes)
		}
	}
	return nil, errors.New("there is no PEM certificate in it")
}

var errKey = errors.New("there is no key of a known form in it")

// firstKey finds the first private key of a PEM file and returns a function
// that says whether it belongs to a public key.
func firstKey(b []byte) (belongs func(publicKey []byte) bool, err error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "RSA PRIVATE KEY" && len(block.Headers) == 0:
			return rsaKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY" && len(block.Headers) == 0:
			return ecKey(block.Bytes, nil)
		case block.Type == "PRIVATE KEY":
			outer := (&reader{rest: block.Bytes}).into(tagSequence)
			outer.take(tagInteger)
			algorithm := outer.into(tagSequence)
			key := outer.take(tagOctetString)
			_, _, oid := algorithm.next()
			switch {
			case outer.err != nil || algorithm.err != nil:
				return nil, errDER
			case bytes.Equal(oid, oidRSA):
				return rsaKey(key)
			case bytes.Equal(oid, oidEC):
				return ecKey(key, algorithm.rest)
			case bytes.Equal(oid, oidEd25519):
				// To compute the public key would link another curve; derper
				// notices by itself when the two do not belong together.
				return func(public []byte) bool { return bytes.Contains(public, oidEd25519) }, nil
			}
			return nil, errKey
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, errors.New("the key is encrypted or of an unknown form")
		}
	}
	return nil, errors.New("there is no PEM key in it")
}

// rsaKey compares modulus and exponent.
func rsaKey(der []byte) (func([]byte) bool, error) {
	r := (&reader{rest: der}).into(tagSequence)
	r.take(tagInteger)
	_, _, n := r.next()
	_, _, e := r.next()
	if r.err != nil {
		return nil, errDER
	}
	want := element(tagSequence, n, e)
	return func(public []byte) bool { return bytes.Equal(publicBits(public), want) }, nil
}

// ecKey computes the point. The curve is named in the key, or beside it.
func ecKey(der, curve []byte) (func([]byte) bool, error) {
	r := (&reader{rest: der}).into(tagSequence)
	r.take(tagInteger)
	scalar := r.take(tagOctetString)
	if r.err != nil {
		return nil, errDER
	}
	if len(r.rest) > 0 && r.rest[0] == tagContext {
		curve = r.take(tagContext)
	}
	var c ecdh.Curve
	size := 0
	switch {
	case bytes.Equal(curve, oidP256):
		c, size = ecdh.P256(), 32
	case bytes.Equal(curve, oidP384):
		c, size = ecdh.P384(), 48
	case bytes.Equal(curve, oidP521):
		c, size = ecdh.P521(), 66
	default:
		return nil, errKey
	}
	padded := make([]byte, size)
	if len(scalar) > size {
		scalar = scalar[len(scalar)-size:]
	}
	copy(padded[size-len(scalar):], scalar)
	key, err := c.NewPrivateKey(padded)
	if err != nil {
		return nil, errKey
	}
	want := key.PublicKey().Bytes()
	return func(public []byte) bool { return bytes.Equal(publicBits(public), want) }, nil
}

// publicBits returns the key itself from a SubjectPublicKeyInfo.
func publicBits(spki []byte) []byte {
	r := &reader{rest: spki}
	r.take(tagSequence)
	b := r.take(tagBitString)
	if r.err != nil || len(b) == 0 {
		return nil
	}
	return b[1:]
}
