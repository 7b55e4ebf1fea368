package relaytest

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stun"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// A Broken relay is broken in one thing.
type Broken struct {
	What  string
	Relay *Relay
	// Host is the name or address that it is to be asked under, "" for any name.
	Host string
	// Fails is the check that fails, and no other, for a reason with these words.
	Fails, Reason string
}

// drops returns a frame function that loses the frames that lost picks.
func drops(lost func(derp.FrameType, []byte) bool) func(derp.FrameType, []byte) []byte {
	return func(t derp.FrameType, b []byte) []byte {
		if lost(t, b) {
			return nil
		}
		return b
	}
}

// Status answers with a status.
func Status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// All are the relays that are broken, each once.
func All(t testing.TB) []Broken {
	var packets atomic.Int64
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
	}
	page := func(path string, h http.HandlerFunc) *Relay {
		return &Relay{Pages: map[string]http.HandlerFunc{path: h}}
	}
	is4 := func(a netip.AddrPort) bool { return a.Addr().Unmap().Is4() }

	return []Broken{
		{What: "no listener on IPv4", Relay: &Relay{Listen: [2]bool{true, false}}, Fails: "tcp/ipv4", Reason: "refused"},
		{What: "no listener on IPv6", Relay: &Relay{Listen: [2]bool{false, true}}, Fails: "tcp/ipv6", Reason: "refused"},

		{What: "STUN silent on IPv4", Fails: "stun/ipv4", Reason: "no answer",
			Relay: &Relay{STUN: func(tx stun.TxID, from netip.AddrPort) []byte {
				if is4(from) {
					return nil
				}
				return stun.Response(tx, from)
			}}},
		{What: "STUN with another transaction id", Host: "127.0.0.1", Fails: "stun/ipv4", Reason: "transaction id",
			Relay: &Relay{STUN: func(tx stun.TxID, from netip.AddrPort) []byte {
				tx[3] ^= 1
				return stun.Response(tx, from)
			}}},
		{What: "STUN garbage", Host: "127.0.0.1", Fails: "stun/ipv4", Reason: "not a STUN packet",
			Relay: &Relay{STUN: func(stun.TxID, netip.AddrPort) []byte { return []byte("hello") }}},
		{What: "STUN lies about the address", Fails: "stun/ipv4-mapped", Reason: "relay says we are 127.0.0.2",
			Relay: &Relay{STUN: func(tx stun.TxID, from netip.AddrPort) []byte {
				if is4(from) {
					from = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), from.Port())
				}
				return stun.Response(tx, from)
			}}},
		{What: "STUN lies about the port", Host: "127.0.0.1", Fails: "stun/ipv4-mapped", Reason: "but we sent from",
			Relay: &Relay{STUN: func(tx stun.TxID, from netip.AddrPort) []byte {
				return stun.Response(tx, netip.AddrPortFrom(from.Addr(), from.Port()^1))
			}}},
		{What: "STUN silent on IPv6", Host: "::1", Fails: "stun/ipv6", Reason: "no answer",
			Relay: &Relay{STUN: func(stun.TxID, netip.AddrPort) []byte { return nil }}},
		{What: "STUN lies about the IPv6 address", Fails: "stun/ipv6-mapped", Reason: "relay says we are [2001:db8::1]",
			Relay: &Relay{STUN: func(tx stun.TxID, from netip.AddrPort) []byte {
				if !is4(from) {
					from = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), from.Port())
				}
				return stun.Response(tx, from)
			}}},

		{What: "no TLS", Relay: &Relay{Plain: true}, Fails: "tls/handshake", Reason: "not look like a TLS handshake"},
		{What: "certificate of another name", Fails: "tls/certificate", Reason: "valid for other.example",
			Relay: &Relay{Cert: func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }}},
		{What: "pinned certificate with a chain", Host: "127.0.0.1", Fails: "tls/certificate", Reason: "1 more behind it",
			Relay: &Relay{Chain: func(c [][]byte) [][]byte { return append(c, c[0]) }}},
		{What: "expired certificate", Relay: &Relay{Cert: expired}, Fails: "tls/expiry", Reason: "certificate expired on"},
		{What: "expired certificate, pinned", Relay: &Relay{Cert: expired}, Host: "127.0.0.1", Fails: "tls/expiry", Reason: "expired on"},
		{What: "certificate of tomorrow", Fails: "tls/expiry", Reason: "is your clock right?",
			Relay: &Relay{Cert: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
			}}},
		// Connections are counted: tcp/ipv4, tcp/ipv6, tls/handshake, tls/wrong-pin, tls/sni.
		{What: "hangs up on a wrong pin before it is seen", Fails: "tls/wrong-pin", Reason: "pins another certificate got",
			Relay: &Relay{Conn: func(n int64) bool { return n == 4 }}},
		{What: "answers to any name", Relay: &Relay{AnySNI: true}, Fails: "tls/sni", Reason: "not its own"},
		{What: "hangs up on another name", Fails: "tls/sni", Reason: "asked for another name",
			Relay: &Relay{Conn: func(n int64) bool { return n == 5 }}},

		{What: "greets wrongly", Fails: "derp/handshake", Reason: "invalid server greeting",
			Relay: &Relay{
				DERP:  func(_ int64, s *derpserver.Server) *derpserver.Server { return s }, // no meta certificate: the greeting is read
				Frame: func(t derp.FrameType, b []byte) []byte { return bytes.Replace(b, []byte("DERP"), []byte("PERD"), 1) },
			}},
		{What: "never lets a client in", Fails: "derp/handshake", Reason: "nothing came in time",
			Relay: &Relay{Frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FrameServerInfo })}},
		{What: "another server key on reconnect", Fails: "derp/server-key", Reason: "connection 3: server key",
			Relay: &Relay{DERP: func() func(int64, *derpserver.Server) *derpserver.Server {
				other := derpserver.New(key.NewNode(), logger.Discard)
				t.Cleanup(func() { other.Close() })
				return func(n int64, s *derpserver.Server) *derpserver.Server {
					if n == 3 {
						return other
					}
					return s
				}
			}()}},
		{What: "no pong", Fails: "derp/ping", Reason: "no pong",
			Relay: &Relay{Frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FramePong })}},
		{What: "drops packets", Fails: "derp/relay", Reason: "on the way there: nothing came",
			Relay: &Relay{Frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FrameRecvPacket })}},
		{What: "changes packets", Fails: "derp/relay", Reason: "other 1000 came",
			Relay: &Relay{Frame: func(t derp.FrameType, b []byte) []byte {
				if t == derp.FrameRecvPacket {
					b[len(b)-1] ^= 1
				}
				return b
			}}},
		{What: "drops large packets", Fails: "derp/large", Reason: "nothing came",
			Relay: &Relay{Frame: drops(func(_ derp.FrameType, b []byte) bool { return len(b) > 60_000 })}},
		{What: "drops one packet in 300", Fails: "derp/many", Reason: "of 1000 packets came: number",
			Relay: &Relay{Frame: drops(func(t derp.FrameType, _ []byte) bool {
				return t == derp.FrameRecvPacket && packets.Add(1)%300 == 0
			})}},
		{What: "loses the last packets", Fails: "derp/many", Reason: "is lost: nothing came",
			Relay: &Relay{Frame: drops(func(t derp.FrameType, b []byte) bool {
				return t == derp.FrameRecvPacket && len(b) == derp.KeyLen+200 && binary.BigEndian.Uint64(b[derp.KeyLen:]) >= 490
			})}},
		{What: "says nothing of an unknown node", Fails: "derp/unknown", Reason: "no peer-gone",
			Relay: &Relay{Frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FramePeerGone })}},
		{What: "says that an unknown node has left", Fails: "derp/unknown", Reason: "has reason 0, not 1",
			Relay: &Relay{Frame: func(t derp.FrameType, b []byte) []byte {
				if t == derp.FramePeerGone {
					b[derp.KeyLen] = 0
				}
				return b
			}}},
		{What: "no WebSocket", Relay: &Relay{NoWS: true}, Fails: "derp/websocket", Reason: "WebSocket"},

		{What: "no latency probe", Relay: page("/derp/probe", Status(404)), Fails: "http/probe", Reason: "404"},
		{What: "latency probe not for browsers", Relay: page("/derp/probe", Status(200)), Fails: "http/probe", Reason: "browsers need"},
		{What: "204 is 200", Relay: page("/generate_204", Status(200)), Fails: "http/204", Reason: "200"},
		{What: "204 without the challenge", Relay: page("/generate_204", Status(204)), Fails: "http/204", Reason: "captive"},
		{What: "204 on port 80 is 302", Relay: page("80", Status(302)), Fails: "http/204-port-80", Reason: "302"},
		{What: "DERP without upgrade is 200", Fails: "http/upgrade", Reason: "answered 200 OK, not 426",
			Relay: &Relay{NoUpgrade: true}},
		{What: "bootstrap DNS says no", Relay: page("/bootstrap-dns", Status(500)), Fails: "http/bootstrap-dns", Reason: "500"},
		{What: "bootstrap DNS is a page", Fails: "http/bootstrap-dns", Reason: "content type",
			Relay: page("/bootstrap-dns", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })},
		{What: "bootstrap DNS is no JSON", Fails: "http/bootstrap-dns", Reason: "invalid character",
			Relay: page("/bootstrap-dns", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte("{x"))
			})},
		{What: "robots are let in", Relay: page("/robots.txt", Status(200)), Fails: "http/robots", Reason: "keeps no robots out"},
		{What: "no home page of derper's", Relay: &Relay{Home: Status(404)}, Fails: "http/home", Reason: "404"},
		{What: "debug pages are open", Relay: page("/debug/", Status(200)), Fails: "http/debug", Reason: "200 OK, not 403"},
	}
}
