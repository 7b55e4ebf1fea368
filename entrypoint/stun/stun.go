// Package stun makes and reads the two STUN packets of a health check.
//
// derper answers a binding request only if it carries the software name of
// Tailscale and ends in a valid fingerprint; any other one is dropped without
// a word.
package stun

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
)

// A TxID ties a response to its request.
type TxID [12]byte

const (
	cookie         = 0x2112A442
	headerLen      = 20
	attrSoftware   = 0x8022
	attrFinger     = 0x8028
	attrXorMapped  = 0x0020
	attrMapped     = 0x0001
	fingerprintXor = 0x5354554e
	software       = "tailnode" // 8 bytes: needs no padding
)

// Request returns a binding request.
func Request(id TxID) []byte {
	b := make([]byte, 0, headerLen+4+len(software)+8)
	b = binary.BigEndian.AppendUint16(b, 0x0001)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(software)+8))
	b = binary.BigEndian.AppendUint32(b, cookie)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint16(b, attrSoftware)
	b = binary.BigEndian.AppendUint16(b, uint16(len(software)))
	b = append(b, software...)
	sum := crc32.ChecksumIEEE(b) ^ fingerprintXor
	b = binary.BigEndian.AppendUint16(b, attrFinger)
	b = binary.BigEndian.AppendUint16(b, 4)
	return binary.BigEndian.AppendUint32(b, sum)
}

var errNoResponse = errors.New("not a STUN success response")

// Response returns the transaction ID of a success response and the address
// that it says the request came from.
func Response(b []byte) (id TxID, from netip.AddrPort, err error) {
	if len(b) < headerLen || binary.BigEndian.Uint16(b) != 0x0101 || binary.BigEndian.Uint32(b[4:]) != cookie {
		return id, from, errNoResponse
	}
	copy(id[:], b[8:20])
	body := b[headerLen:]
	if n := int(binary.BigEndian.Uint16(b[2:])); n > len(body) {
		return id, from, errNoResponse
	} else {
		body = body[:n]
	}
	for len(body) >= 4 {
		kind, n := binary.BigEndian.Uint16(body), int(binary.BigEndian.Uint16(body[2:]))
		padded := 4 + (n+3)&^3
		if 4+n > len(body) {
			return id, from, errNoResponse
		}
		if kind == attrXorMapped || kind == attrMapped && !from.IsValid() {
			if a, ok := address(body[4:4+n], id, kind == attrXorMapped); ok {
				from = a
			}
		}
		if padded > len(body) {
			break
		}
		body = body[padded:]
	}
	if !from.IsValid() {
		return id, from, errors.New("the STUN response names no address")
	}
	return id, from, nil
}

func address(attr []byte, id TxID, xor bool) (netip.AddrPort, bool) {
	if len(attr) < 4 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(attr[2:])
	raw := append([]byte(nil), attr[4:]...)
	if xor {
		port ^= cookie >> 16
		mask := binary.BigEndian.AppendUint32(nil, cookie)
		mask = append(mask, id[:]...)
		for i := range raw {
			if i < len(mask) {
				raw[i] ^= mask[i]
			}
		}
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), port), ok
}
