package certificate

import "errors"

// The tags of DER that certificates and keys use.
const (
	tagInteger     = 0x02
	tagBitString   = 0x03
	tagOctetString = 0x04
	tagOID         = 0x06
	tagUTF8        = 0x0c
	tagUTCTime     = 0x17
	tagTime        = 0x18
	tagSequence    = 0x30
	tagSet         = 0x31
	tagContext     = 0xa0 // plus the number
)

var errDER = errors.New("it is not valid DER")

// A reader takes elements from the front of DER-encoded bytes. The first error
// stays; the caller looks at it once, at the end.
type reader struct {
	rest []byte
	err  error
}

// next returns the next element: its tag, its content, and all of its bytes.
func (r *reader) next() (tag byte, content, whole []byte) {
	b := r.rest
	if r.err != nil || len(b) < 2 {
		r.err = errDER
		return 0, nil, nil
	}
	n, head := int(b[1]), 2
	if n >= 0x80 {
		digits := n & 0x7f
		if digits < 1 || digits > 3 || len(b) < 2+digits {
			r.err = errDER
			return 0, nil, nil
		}
		n, head = 0, 2+digits
		for _, d := range b[2:head] {
			n = n<<8 | int(d)
		}
	}
	if len(b) < head+n {
		r.err = errDER
		return 0, nil, nil
	}
	r.rest = b[head+n:]
	return b[0], b[head : head+n], b[:head+n]
}

// take returns the content of the next element, which must have the tag.
func (r *reader) take(want byte) []byte {
	tag, content, _ := r.next()
	if tag != want {
		r.err = errDER
		return nil
	}
	return content
}

// into returns a reader of the next element's content.
func (r *reader) into(want byte) *reader {
	content := r.take(want)
	return &reader{rest: content, err: r.err}
}

// skipIf drops the next element if it has the tag.
func (r *reader) skipIf(tag byte) {
	if len(r.rest) > 0 && r.rest[0] == tag {
		r.next()
	}
}

// element encodes one element.
func element(tag byte, contents ...[]byte) []byte {
	n := 0
	for _, c := range contents {
		n += len(c)
	}
	b := []byte{tag}
	switch {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	for _, c := range contents {
		b = append(b, c...)
	}
	return b
}

// bits encodes a bit string of whole bytes.
func bits(b []byte) []byte { return element(tagBitString, []byte{0}, b) }

// Object identifiers, encoded.
var (
	oidRSA         = element(tagOID, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01})
	oidEC          = element(tagOID, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01})
	oidP256        = element(tagOID, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})
	oidP384        = element(tagOID, []byte{0x2b, 0x81, 0x04, 0x00, 0x22})
	oidP521        = element(tagOID, []byte{0x2b, 0x81, 0x04, 0x00, 0x23})
	oidEd25519     = element(tagOID, []byte{0x2b, 0x65, 0x70})
	oidECDSASHA256 = element(tagOID, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02})
	oidCommonName  = element(tagOID, []byte{0x55, 0x04, 0x03})
	oidKeyUsage    = element(tagOID, []byte{0x55, 0x1d, 0x0f})
	oidSAN         = element(tagOID, []byte{0x55, 0x1d, 0x11})
	oidConstraints = element(tagOID, []byte{0x55, 0x1d, 0x13})
	oidExtKeyUsage = element(tagOID, []byte{0x55, 0x1d, 0x25})
	oidServerAuth  = element(tagOID, []byte{0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01})
)
