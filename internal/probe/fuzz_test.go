package probe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/net/stun"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// FuzzSTUN guards that only an answer to the request counts, and only one with an address.
func FuzzSTUN(f *testing.F) {
	tx := stun.TxID{1, 2, 3}
	for _, from := range []string{"192.0.2.7:5", "[2001:db8::1]:65535", "[::ffff:192.0.2.7]:1"} {
		f.Add(stun.Response(tx, netip.MustParseAddrPort(from)))
	}
	f.Add(stun.Response(stun.TxID{4}, netip.MustParseAddrPort("192.0.2.7:5")))
	f.Add(stun.Request(tx))
	f.Fuzz(func(t *testing.T, answer []byte) {
		mapped, err := binding(tx, answer)
		switch {
		case err != nil && mapped.IsValid():
			t.Errorf("both %v and %v", mapped, err)
		case err != nil:
		case !mapped.IsValid() || mapped.Addr().Is4In6():
			t.Errorf("the address is %v", mapped)
		case !bytes.Equal(answer[8:20], tx[:]):
			t.Errorf("the transaction is %x", answer[8:20])
		}
	})
}

// recorded is a connection to a relay whose answers are all there, and which accepts every
// write. It never waits: with a peer that waits for its deadline, there are two executions a
// second.
type recorded struct {
	io.Reader
	sent int
}

func (c *recorded) Write(b []byte) (int, error)      { c.sent += len(b); return len(b), nil }
func (c *recorded) Close() error                     { return nil }
func (c *recorded) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *recorded) SetDeadline(time.Time) error      { return nil }
func (c *recorded) SetReadDeadline(time.Time) error  { return nil }
func (c *recorded) SetWriteDeadline(time.Time) error { return nil }

// seeded is the same key in each process.
func seeded(f *testing.F, digit string) (k key.NodePrivate) {
	if err := k.UnmarshalText([]byte("privkey:" + strings.Repeat(digit, 64))); err != nil {
		f.Fatal(err)
	}
	return k
}

// FuzzDERP guards against a relay that says what it should not: it lets nobody in without the
// private key of its server key, no packet is larger than any may be, or than what came, and
// the end of the connection is noticed. The greeting is the server's key and its information,
// which is sealed; what follows is said to a client that was let in.
//
// It has less than 10,000 executions a second on a slow machine: each takes three operations of
// X25519, for the client's public key, the box that is sealed and the one that is opened.
func FuzzDERP(f *testing.F) {
	server, client := seeded(f, "1"), seeded(f, "2")
	frame := func(t derp.FrameType, parts ...[]byte) []byte {
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		if err := derp.WriteFrame(w, t, bytes.Join(parts, nil)); err != nil {
			f.Fatal(err)
		}
		w.Flush()
		return b.Bytes()
	}
	info, err := json.Marshal(derp.ServerInfo{Version: 2})
	if err != nil {
		f.Fatal(err)
	}
	peer := seeded(f, "3").Public().AppendTo(nil)
	greeting := frame(derp.FrameServerKey, []byte(derp.Magic), server.Public().AppendTo(nil))
	greeting = append(greeting, frame(derp.FrameServerInfo, server.SealTo(client.Public(), info))...)
	f.Add(greeting, bytes.Join([][]byte{
		frame(derp.FramePing, make([]byte, 8)),
		frame(derp.FrameRecvPacket, peer, []byte("hello")),
		frame(derp.FrameKeepAlive),
		frame(derp.FramePeerPresent, peer, make([]byte, 18), []byte{1}),
		frame(derp.FramePeerGone, peer, []byte{1}),
		frame(derp.FrameHealth, []byte("ill")),
		frame(derp.FrameRestarting, make([]byte, 8)),
	}, nil))
	f.Add(greeting, frame(derp.FrameRecvPacket, peer)[:20])
	f.Add(greeting[:60], []byte{})
	f.Add(frame(derp.FrameServerKey, []byte(derp.Magic), peer), []byte{})
	f.Fuzz(func(t *testing.T, greeting, rest []byte) {
		said := append(bytes.Clone(greeting), rest...)
		nc := &recorded{Reader: bytes.NewReader(said)}
		rw := bufio.NewReadWriter(bufio.NewReader(nc), bufio.NewWriter(nc))
		c, err := derp.NewClient(client, nc, rw, logger.Discard, derp.IsProber(true))
		if err != nil {
			return
		}
		ctx := t.Context()
		p, err := accepted(ctx, client, c, nc, nil)
		if err != nil {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("not let in, and not closed: %v", err)
			}
			return
		}
		defer p.Close()
		// The highest bit of a key does not count. Source: RFC 7748, section 5.
		by := p.ServerPublicKey().AppendTo(nil)
		by[31] &= 0x7f
		if !bytes.Equal(by, server.Public().AppendTo(nil)) {
			t.Errorf("let in by %v, who cannot have sealed that", p.ServerPublicKey())
		}
		for came := 0; ; {
			m, err := Next[derp.ReceivedMessage](ctx, p, nil)
			if err != nil {
				if !errors.Is(err, ErrClosed) {
					t.Errorf("the end is not noticed: %v", err)
				}
				break
			}
			if packet, ok := m.(derp.ReceivedPacket); ok {
				if came += len(packet.Data); came > len(said) || len(packet.Data) > derp.MaxPacketSize {
					t.Errorf("a packet of %d bytes", len(packet.Data))
				}
			}
		}
		if nc.sent > 1024+2*len(said) {
			t.Errorf("%d bytes are sent as an answer to %d", nc.sent, len(said))
		}
	})
}
