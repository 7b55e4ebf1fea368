package handshake

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A halfConn encrypts or decrypts the records of one direction.
type halfConn struct {
	aead cipher.AEAD
	iv   []byte
	seq  uint64
}

func newHalfConn(secret []byte) *halfConn {
	block, err := aes.NewCipher(expandLen(secret, "key", nil, 16))
	if err != nil {
		panic(err) // 16 bytes are always a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return &halfConn{aead: aead, iv: expandLen(secret, "iv", nil, aead.NonceSize())}
}

func (h *halfConn) nonce() []byte {
	nonce := append([]byte(nil), h.iv...)
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], h.seq)
	h.seq++
	for i, b := range seq {
		nonce[len(nonce)-8+i] ^= b
	}
	return nonce
}

// expand is Derive-Secret of RFC 8446 for SHA-256, the hash already taken.
func expand(secret []byte, label string, context []byte) []byte {
	return expandLen(secret, label, context, sha256.Size)
}

func expandLen(secret []byte, label string, context []byte, n int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	info = append(info, byte(len(context)))
	info = append(info, context...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic(err) // n is never too long
	}
	return out
}

func finished(secret, transcript []byte) []byte {
	mac := hmac.New(sha256.New, expand(secret, "finished", nil))
	mac.Write(transcript)
	return mac.Sum(nil)
}

// maxPlain is the longest content of a record.
const maxPlain = 16 << 10

func (c *Conn) writeRecord(kind byte, b []byte) error {
	if len(b) > maxPlain {
		return errors.New("record too long")
	}
	if c.out == nil {
		header := []byte{kind, 3, 1, byte(len(b) >> 8), byte(len(b))}
		_, err := c.Conn.Write(append(header, b...))
		return err
	}
	inner := append(append([]byte(nil), b...), kind)
	n := len(inner) + c.out.aead.Overhead()
	header := []byte{recordData, 3, 3, byte(n >> 8), byte(n)}
	_, err := c.Conn.Write(c.out.aead.Seal(header, c.out.nonce(), inner, header))
	return err
}

// readRecord returns the next record that means something.
func (c *Conn) readRecord() (kind byte, b []byte, err error) {
	for {
		var header [5]byte
		if _, err := io.ReadFull(c.Conn, header[:]); err != nil {
			return 0, nil, err
		}
		n := int(binary.BigEndian.Uint16(header[3:]))
		if header[1] != 3 || n > maxPlain+256 {
			return 0, nil, errors.New("the server does not speak TLS")
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c.Conn, b); err != nil {
			return 0, nil, err
		}
		kind := header[0]
		if kind == recordChangeCipher { // sent for the sake of middle boxes only
			continue
		}
		if kind == recordData {
			if c.in == nil {
				return 0, nil, errors.New("the server sent data before the keys")
			}
			if b, err = c.in.aead.Open(b[:0], c.in.nonce(), b, header[:]); err != nil {
				return 0, nil, errors.New("a record does not decrypt")
			}
			for len(b) > 0 && b[len(b)-1] == 0 {
				b = b[:len(b)-1]
			}
			if len(b) == 0 {
				return 0, nil, errors.New("a record has no type")
			}
			kind, b = b[len(b)-1], b[:len(b)-1]
		} else if c.in != nil && kind != recordAlert {
			return 0, nil, errors.New("the server sent a record in the clear")
		}
		if kind == recordAlert {
			return 0, nil, alert(b)
		}
		return kind, b, nil
	}
}

func alert(b []byte) error {
	if len(b) != 2 {
		return errors.New("the server sent a malformed alert")
	}
	switch b[1] {
	case 0:
		return io.EOF
	case 40:
		return errors.New("the server refused the handshake")
	case 80:
		return errors.New("the server has no certificate for this name (alert 80)")
	case 112:
		return errors.New("the server does not know this name (alert 112)")
	}
	return fmt.Errorf("the server sent alert %d", b[1])
}

// Read reads application data.
func (c *Conn) Read(b []byte) (int, error) {
	for len(c.data) == 0 {
		kind, content, err := c.readRecord()
		if err != nil {
			return 0, err
		}
		switch {
		case kind == recordData:
			c.data = content
		case kind == recordHandshake && len(content) > 0 && content[0] == typeNewSessionTicket:
		default:
			return 0, fmt.Errorf("the server sent record type %d among the data", kind)
		}
	}
	n := copy(b, c.data)
	c.data = c.data[n:]
	return n, nil
}

// Write sends application data.
func (c *Conn) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n := min(len(b)-sent, maxPlain)
		if err := c.writeRecord(recordData, b[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(b), nil
}
