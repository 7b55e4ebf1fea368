package stun

import (
	"bytes"
	"net/netip"
	"testing"

	upstream "tailscale.com/net/stun"
)

// FuzzResponse guards against a response that is read past its end, or as one to another
// request: the transaction ID is the packet's, and what was read is read again when Tailscale
// writes it.
func FuzzResponse(f *testing.F) {
	for _, from := range []string{"10.0.0.1:5", "[2001:db8::1]:65535"} {
		f.Add(upstream.Response(upstream.TxID{1, 2, 3}, netip.MustParseAddrPort(from)))
	}
	f.Add(Request(TxID{1, 2, 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, from, err := Response(b)
		if err != nil {
			return
		}
		if !from.IsValid() {
			t.Fatal("no error and no address")
		}
		if !bytes.Equal(id[:], b[8:20]) {
			t.Errorf("the transaction is %x, the packet's is %x", id, b[8:20])
		}
		if gotID, got, err := Response(upstream.Response(upstream.TxID(id), from)); err != nil || gotID != id || got != from {
			t.Errorf("%x, %s is read again as %x, %s, %v", id, from, gotID, got, err)
		}
	})
}
