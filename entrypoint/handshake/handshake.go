// Package handshake is a TLS 1.3 client for one purpose: to ask a relay on
// this machine which certificate it serves, and to send it a few requests.
//
// It exists because crypto/tls alone would make the program larger than its
// 4 MB. It offers one version, one group, one cipher suite (TLS 1.3, X25519,
// AES-128-GCM), all of which Go's server has. It checks the server's Finished
// message, so that both sides have seen the same handshake, but not the
// server's signature: on this machine there is nobody in between, and the
// verifiers of all kinds of keys would be larger than the rest. So it is not
// for use over a network. It has no sessions, no client certificates and no
// key updates; the caller decides whether the certificate is the right one.
package handshake

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net"
)

// Types of handshake messages.
const (
	typeClientHello       = 1
	typeServerHello       = 2
	typeNewSessionTicket  = 4
	typeEncryptedExts     = 8
	typeCertificate       = 11
	typeCertificateVerify = 15
	typeFinished          = 20
)

// Types of records.
const (
	recordChangeCipher = 20
	recordAlert        = 21
	recordHandshake    = 22
	recordData         = 23
)

// A Conn is an established TLS 1.3 connection.
type Conn struct {
	net.Conn
	Leaf []byte // the server's certificate, DER

	in, out    *halfConn
	transcript hash.Hash
	messages   []byte // handshake bytes not yet read
	data       []byte // application bytes not yet read
}

// Client shakes hands over conn and asks for serverName, which may be empty.
func Client(conn net.Conn, serverName string) (*Conn, error) {
	c := &Conn{Conn: conn, transcript: sha256.New()}
	if err := c.handshake(serverName); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

func (c *Conn) handshake(serverName string) error {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	hello := clientHello(serverName, key.PublicKey().Bytes())
	c.transcript.Write(hello)
	if err := c.writeRecord(recordHandshake, hello); err != nil {
		return err
	}
	body, err := c.expect(typeServerHello)
	if err != nil {
		return err
	}
	peer, err := parseServerHello(body)
	if err != nil {
		return err
	}
	shared, err := key.ECDH(peer)
	if err != nil {
		return err
	}

	// RFC 8446, section 7.1: the key schedule.
	early, _ := hkdf.Extract(sha256.New, make([]byte, 32), nil)
	empty := sha256.Sum256(nil)
	handshakeSecret, err := hkdf.Extract(sha256.New, shared, expand(early, "derived", empty[:]))
	if err != nil {
		return err
	}
	sum := c.transcript.Sum(nil)
	clientSecret := expand(handshakeSecret, "c hs traffic", sum)
	serverSecret := expand(handshakeSecret, "s hs traffic", sum)
	if len(c.messages) > 0 {
		return errors.New("the server sent data where the keys change")
	}
	c.in, c.out = newHalfConn(serverSecret), newHalfConn(clientSecret)

	if _, err := c.expect(typeEncryptedExts); err != nil {
		return err
	}
	if body, err = c.expect(typeCertificate); err != nil {
		return err
	}
	if c.Leaf, err = parseCertificate(body); err != nil {
		return err
	}
	if _, err := c.expect(typeCertificateVerify); err != nil {
		return err
	}
	sum = c.transcript.Sum(nil)
	if body, err = c.expect(typeFinished); err != nil {
		return err
	}
	if !hmac.Equal(body, finished(serverSecret, sum)) {
		return errors.New("the server's finished message is wrong")
	}

	master, err := hkdf.Extract(sha256.New, make([]byte, 32), expand(handshakeSecret, "derived", empty[:]))
	if err != nil {
		return err
	}
	sum = c.transcript.Sum(nil)
	if err := c.writeRecord(recordHandshake, message(typeFinished, finished(clientSecret, sum))); err != nil {
		return err
	}
	c.in = newHalfConn(expand(master, "s ap traffic", sum))
	c.out = newHalfConn(expand(master, "c ap traffic", sum))
	return nil
}

// expect reads the next handshake message, which must be of the given type,
// and adds it to the transcript.
func (c *Conn) expect(kind byte) ([]byte, error) {
	for {
		if len(c.messages) >= 4 {
			n := 4 + int(c.messages[1])<<16 + int(c.messages[2])<<8 + int(c.messages[3])
			if n > maxMessage {
				return nil, errors.New("the server sent an overlong message")
			}
			if len(c.messages) >= n {
				msg := c.messages[:n:n]
				c.messages = c.messages[n:]
				if msg[0] != kind {
					return nil, fmt.Errorf("the server sent message type %d instead of %d", msg[0], kind)
				}
				c.transcript.Write(msg)
				return msg[4:], nil
			}
		}
		kind, b, err := c.readRecord()
		if err != nil {
			return nil, err
		}
		if kind != recordHandshake {
			return nil, fmt.Errorf("the server sent record type %d within the handshake", kind)
		}
		c.messages = append(c.messages, b...)
	}
}

// maxMessage bounds a handshake message; a certificate chain is the longest.
const maxMessage = 256 << 10

func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// Values of the few parameters that the client offers.
// signatureSchemes are those of all keys that derper can have: ECDSA, RSA-PSS
// and Ed25519.
var signatureSchemes = []uint16{0x0403, 0x0804, 0x0807, 0x0503, 0x0603, 0x0805, 0x0806}

const (
	suiteAES128GCM = 0x1301
	groupX25519    = 0x001d
	version12      = 0x0303
	version13      = 0x0304
)

func clientHello(serverName string, public []byte) []byte {
	u16 := binary.BigEndian.AppendUint16
	prefixed := func(b []byte) []byte { return append(u16(nil, uint16(len(b))), b...) }
	var exts []byte
	extension := func(kind uint16, body []byte) { exts = append(u16(exts, kind), prefixed(body)...) }

	if serverName != "" && net.ParseIP(serverName) == nil { // an IP address is no server name
		extension(0, prefixed(append([]byte{0}, prefixed([]byte(serverName))...)))
	}
	extension(10, prefixed(u16(nil, groupX25519)))
	var schemes []byte
	for _, s := range signatureSchemes {
		schemes = u16(schemes, s)
	}
	extension(13, prefixed(schemes))
	extension(16, prefixed(append([]byte{8}, "http/1.1"...)))
	extension(43, append([]byte{2}, u16(nil, version13)...))
	extension(51, prefixed(append(u16(nil, groupX25519), prefixed(public)...)))

	random := make([]byte, 32)
	rand.Read(random)
	body := u16(nil, version12)
	body = append(body, random...)
	body = append(body, 0) // no session ID: no pretence of TLS 1.2
	body = append(body, prefixed(u16(nil, suiteAES128GCM))...)
	body = append(body, 1, 0) // no compression
	body = append(body, prefixed(exts)...)
	return message(typeClientHello, body)
}

// retryRequest is the random value that marks a HelloRetryRequest.
var retryRequest = sha256.Sum256([]byte("HelloRetryRequest"))

func parseServerHello(b []byte) (*ecdh.PublicKey, error) {
	malformed := errors.New("the server hello is malformed")
	if len(b) < 35 {
		return nil, malformed
	}
	if bytes.Equal(b[2:34], retryRequest[:]) {
		return nil, errors.New("the server does not take X25519")
	}
	rest := b[34:]
	n := int(rest[0])
	if len(rest) < 1+n+2+1+2 {
		return nil, malformed
	}
	rest = rest[1+n:]
	if suite := binary.BigEndian.Uint16(rest); suite != suiteAES128GCM {
		return nil, fmt.Errorf("the server chose cipher suite %#04x", suite)
	}
	rest = rest[5:]
	var version uint16
	var share []byte
	for len(rest) >= 4 {
		kind, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if len(rest) < 4+n {
			return nil, malformed
		}
		body := rest[4 : 4+n]
		rest = rest[4+n:]
		switch {
		case kind == 43 && n == 2:
			version = binary.BigEndian.Uint16(body)
		case kind == 51 && n == 4+32 && binary.BigEndian.Uint16(body) == groupX25519:
			share = body[4:]
		}
	}
	if version != version13 || share == nil {
		return nil, errors.New("the server does not speak TLS 1.3 with X25519")
	}
	return ecdh.X25519().NewPublicKey(share)
}

// parseCertificate returns the first certificate of the message. derper adds
// one of its own after it, which is none that a client checks.
func parseCertificate(b []byte) ([]byte, error) {
	malformed := errors.New("the certificate message is malformed")
	if len(b) < 1+3+3 || b[0] != 0 {
		return nil, malformed
	}
	n := int(b[4])<<16 + int(b[5])<<8 + int(b[6])
	if n == 0 || len(b) < 7+n {
		return nil, malformed
	}
	return b[7 : 7+n], nil
}
