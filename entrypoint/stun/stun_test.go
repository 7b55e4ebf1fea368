package stun

import (
	"bytes"
	"net/netip"
	"testing"

	upstream "tailscale.com/net/stun"
)

// The mistake it guards: packets in another form than Tailscale's own, which
// derper drops without a word.
func TestAgainstUpstream(t *testing.T) {
	id := upstream.NewTxID()
	if got, want := Request(TxID(id)), upstream.Request(id); !bytes.Equal(got, want) {
		t.Errorf("the request is %x, want %x", got, want)
	}
	for _, text := range []string{"127.0.0.1:1234", "[2001:db8::1]:65535", "[::ffff:10.0.0.1]:1"} {
		addr := netip.MustParseAddrPort(text)
		b := upstream.Response(id, addr)
		gotID, from, err := Response(b)
		want := netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		if err != nil || gotID != TxID(id) || from != want {
			t.Errorf("%s: %v, %v, %v", text, gotID, from, err)
		}
		for n := range b {
			if _, _, err := Response(b[:n]); err == nil {
				t.Errorf("%s: the first %d bytes are taken for a response", text, n)
			}
		}
	}
	if _, _, err := Response(Request(TxID(id))); err == nil {
		t.Error("a request is taken for a response")
	}
}
