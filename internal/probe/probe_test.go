package probe

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/xavieralpha/derper/internal/testing/need"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // relays that are silent take time and no work; -parallel on the command line still counts
	os.Exit(m.Run())
}

// failed returns the names of the failed checks.
func failed(r *Findings) []string {
	var names []string
	for _, c := range r.Checks {
		if c.Result == Fail {
			names = append(names, c.Name)
		}
	}
	return names
}

func text(r *Findings) string {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintln(&b, c)
	}
	fmt.Fprintln(&b, r.Summary())
	return b.String()
}

func TestRelayThatWorks(t *testing.T) {
	all := len(checks())
	for host, skipped := range map[string][]string{
		"relay.example": nil,
		"127.0.0.1":     {"tcp/ipv6", "stun/ipv6", "stun/ipv6-mapped"},
		"::1":           {"tcp/ipv4", "stun/ipv4", "stun/ipv4-mapped"},
	} {
		t.Run(host, func(t *testing.T) {
			if host != "127.0.0.1" {
				need.IPv6(t)
			}
			target := new(relay).start(t, host)
			target.Packets = 10_000
			r := Run(t.Context(), target)
			if !r.OK() || len(r.Checks) != all {
				t.Errorf("not OK:\n%s", text(r))
			}
			for _, c := range r.Checks {
				if (c.Result == Skip) != slices.Contains(skipped, c.Name) {
					t.Errorf("%v", c)
				}
			}
		})
	}
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

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// TestRelayThatIsBroken breaks one thing at a time: the check for it fails, and no other.
func TestRelayThatIsBroken(t *testing.T) {
	var packets atomic.Int64
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
	}
	page := func(path string, h http.HandlerFunc) *relay {
		return &relay{pages: map[string]http.HandlerFunc{path: h}}
	}
	is4 := func(a netip.AddrPort) bool { return a.Addr().Unmap().Is4() }

	tests := []struct {
		what   string
		relay  *relay
		host   string // "" is relay.example
		target func(*Target)
		fails  string
		reason string
	}{
		{what: "name that does not resolve", relay: &relay{}, fails: "address", reason: "lookup relay.example",
			target: func(t *Target) {
				t.Addrs = nil
				t.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
					return nil, errors.New("no name server here")
				}}
			}},
		{what: "no listener on IPv4", relay: &relay{listen: [2]bool{true, false}}, fails: "tcp/ipv4", reason: "refused"},
		{what: "no listener on IPv6", relay: &relay{listen: [2]bool{false, true}}, fails: "tcp/ipv6", reason: "refused"},

		{what: "STUN silent on IPv4", fails: "stun/ipv4", reason: "no answer",
			relay: &relay{stun: func(tx stun.TxID, from netip.AddrPort) []byte {
				if is4(from) {
					return nil
				}
				return stun.Response(tx, from)
			}}},
		{what: "STUN with another transaction id", host: "127.0.0.1", fails: "stun/ipv4", reason: "transaction id",
			relay: &relay{stun: func(tx stun.TxID, from netip.AddrPort) []byte {
				tx[3] ^= 1
				return stun.Response(tx, from)
			}}},
		{what: "STUN garbage", host: "127.0.0.1", fails: "stun/ipv4", reason: "not a STUN packet",
			relay: &relay{stun: func(stun.TxID, netip.AddrPort) []byte { return []byte("hello") }}},
		{what: "STUN lies about the address", fails: "stun/ipv4-mapped", reason: "relay says we are 127.0.0.2",
			relay: &relay{stun: func(tx stun.TxID, from netip.AddrPort) []byte {
				if is4(from) {
					from = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), from.Port())
				}
				return stun.Response(tx, from)
			}}},
		{what: "STUN lies about the port", host: "127.0.0.1", fails: "stun/ipv4-mapped", reason: "but we sent from",
			relay: &relay{stun: func(tx stun.TxID, from netip.AddrPort) []byte {
				return stun.Response(tx, netip.AddrPortFrom(from.Addr(), from.Port()^1))
			}}},
		{what: "STUN silent on IPv6", host: "::1", fails: "stun/ipv6", reason: "no answer",
			relay: &relay{stun: func(stun.TxID, netip.AddrPort) []byte { return nil }}},
		{what: "STUN lies about the IPv6 address", fails: "stun/ipv6-mapped", reason: "relay says we are [2001:db8::1]",
			relay: &relay{stun: func(tx stun.TxID, from netip.AddrPort) []byte {
				if !is4(from) {
					from = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), from.Port())
				}
				return stun.Response(tx, from)
			}}},

		{what: "no TLS", relay: &relay{plain: true}, fails: "tls/handshake", reason: "not look like a TLS handshake"},
		{what: "certificate of another name", fails: "tls/certificate", reason: "valid for other.example",
			relay: &relay{cert: func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }}},
		{what: "certificate of an unknown authority", relay: &relay{}, fails: "tls/certificate", reason: "unknown authority",
			target: func(t *Target) { t.RootCAs = nil }},
		{what: "wrong pin", relay: &relay{}, host: "127.0.0.1", fails: "tls/certificate", reason: "not the pinned one",
			target: func(t *Target) { t.CertName = "sha256-raw:" + strings.Repeat("5a", 32) }},
		{what: "pinned certificate with a chain", host: "127.0.0.1", fails: "tls/certificate", reason: "1 more behind it",
			relay: &relay{chain: func(c [][]byte) [][]byte { return append(c, c[0]) }}},
		{what: "expired certificate", relay: &relay{cert: expired}, fails: "tls/expiry", reason: "certificate expired on"},
		{what: "expired certificate, pinned", relay: &relay{cert: expired}, host: "127.0.0.1", fails: "tls/expiry", reason: "expired on"},
		{what: "expired certificate, not verified", relay: &relay{cert: expired}, fails: "tls/expiry", reason: "expired on",
			target: func(t *Target) { t.Insecure = true }},
		{what: "certificate of tomorrow", fails: "tls/expiry", reason: "is your clock right?",
			relay: &relay{cert: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
			}}},
		// Connections are counted: tcp/ipv4, tcp/ipv6, tls/handshake, tls/wrong-pin, tls/sni.
		{what: "hangs up on a wrong pin before it is seen", fails: "tls/wrong-pin", reason: "pins another certificate got",
			relay: &relay{conn: func(n int64) bool { return n == 4 }}},
		{what: "answers to any name", relay: &relay{anySNI: true}, fails: "tls/sni", reason: "not its own"},
		{what: "hangs up on another name", fails: "tls/sni", reason: "asked for another name",
			relay: &relay{conn: func(n int64) bool { return n == 5 }}},

		{what: "greets wrongly", fails: "derp/handshake", reason: "invalid server greeting",
			relay: &relay{
				derp:  func(_ int64, s *derpserver.Server) *derpserver.Server { return s }, // no meta certificate: the greeting is read
				frame: func(t derp.FrameType, b []byte) []byte { return bytes.Replace(b, []byte("DERP"), []byte("PERD"), 1) },
			}},
		{what: "never lets a client in", fails: "derp/handshake", reason: "nothing came in time",
			relay: &relay{frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FrameServerInfo })}},
		{what: "another server key on reconnect", fails: "derp/server-key", reason: "connection 3: server key",
			relay: &relay{derp: func() func(int64, *derpserver.Server) *derpserver.Server {
				other := derpserver.New(key.NewNode(), logger.Discard)
				t.Cleanup(func() { other.Close() })
				return func(n int64, s *derpserver.Server) *derpserver.Server {
					if n == 3 {
						return other
					}
					return s
				}
			}()}},
		{what: "no pong", fails: "derp/ping", reason: "no pong",
			relay: &relay{frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FramePong })}},
		{what: "drops packets", fails: "derp/relay", reason: "on the way there: nothing came",
			relay: &relay{frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FrameRecvPacket })}},
		{what: "changes packets", fails: "derp/relay", reason: "other 1000 came",
			relay: &relay{frame: func(t derp.FrameType, b []byte) []byte {
				if t == derp.FrameRecvPacket {
					b[len(b)-1] ^= 1
				}
				return b
			}}},
		{what: "drops large packets", fails: "derp/large", reason: "nothing came",
			relay: &relay{frame: drops(func(_ derp.FrameType, b []byte) bool { return len(b) > 60_000 })}},
		{what: "drops one packet in 300", fails: "derp/many", reason: "of 1000 packets came: number",
			relay: &relay{frame: drops(func(t derp.FrameType, _ []byte) bool {
				return t == derp.FrameRecvPacket && packets.Add(1)%300 == 0
			})}},
		{what: "loses the last packets", fails: "derp/many", reason: "is lost: nothing came",
			relay: &relay{frame: drops(func(t derp.FrameType, b []byte) bool {
				return t == derp.FrameRecvPacket && len(b) == derp.KeyLen+200 && binary.BigEndian.Uint64(b[derp.KeyLen:]) >= 490
			})}},
		{what: "says nothing of an unknown node", fails: "derp/unknown", reason: "no peer-gone",
			relay: &relay{frame: drops(func(t derp.FrameType, _ []byte) bool { return t == derp.FramePeerGone })}},
		{what: "says that an unknown node has left", fails: "derp/unknown", reason: "has reason 0, not 1",
			relay: &relay{frame: func(t derp.FrameType, b []byte) []byte {
				if t == derp.FramePeerGone {
					b[derp.KeyLen] = 0
				}
				return b
			}}},
		{what: "no WebSocket", relay: &relay{noWS: true}, fails: "derp/websocket", reason: "WebSocket"},

		{what: "no latency probe", relay: page("/derp/probe", status(404)), fails: "http/probe", reason: "404"},
		{what: "latency probe not for browsers", relay: page("/derp/probe", status(200)), fails: "http/probe", reason: "browsers need"},
		{what: "204 is 200", relay: page("/generate_204", status(200)), fails: "http/204", reason: "200"},
		{what: "204 without the challenge", relay: page("/generate_204", status(204)), fails: "http/204", reason: "captive"},
		{what: "204 on port 80 is 302", relay: page("80", status(302)), fails: "http/204-port-80", reason: "302"},
		{what: "no port 80", relay: &relay{}, fails: "http/204-port-80", reason: "refused",
			target: func(t *Target) { t.HTTPPort = 1 }},
		{what: "DERP without upgrade is 200", fails: "http/upgrade", reason: "answered 200 OK, not 426",
			relay: &relay{noUp: true}},
		{what: "bootstrap DNS says no", relay: page("/bootstrap-dns", status(500)), fails: "http/bootstrap-dns", reason: "500"},
		{what: "bootstrap DNS is a page", fails: "http/bootstrap-dns", reason: "content type",
			relay: page("/bootstrap-dns", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })},
		{what: "bootstrap DNS is no JSON", fails: "http/bootstrap-dns", reason: "invalid character",
			relay: page("/bootstrap-dns", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte("{x"))
			})},
		{what: "robots are let in", relay: page("/robots.txt", status(200)), fails: "http/robots", reason: "keeps no robots out"},
		{what: "no home page of derper's", relay: &relay{home: status(404)}, fails: "http/home", reason: "404"},
		{what: "another home page", relay: &relay{}, fails: "http/home", reason: "home page is default, not blank",
			target: func(t *Target) { t.Home = HomeBlank }},
		{what: "debug pages are open", relay: page("/debug/", status(200)), fails: "http/debug", reason: "200 OK, not 403"},
	}
	covered := map[string]bool{}
	for _, tt := range tests {
		covered[tt.fails] = true
		t.Run(tt.fails+"/"+tt.what, func(t *testing.T) {
			t.Parallel()
			// The other version works; or connections are counted, which are of both.
			if strings.Contains(tt.fails, "/ipv") || tt.relay.conn != nil {
				need.IPv6(t)
			}
			target := tt.relay.start(t, cmp.Or(tt.host, "relay.example"))
			if tt.target != nil {
				tt.target(&target)
			}
			r := Run(t.Context(), target)
			if got := failed(r); !slices.Equal(got, []string{tt.fails}) {
				t.Errorf("failed checks: %q, want only %s:\n%s", got, tt.fails, text(r))
			}
			if c, _ := r.Find(tt.fails); !strings.Contains(c.Reason, tt.reason) {
				t.Errorf("reason %q does not say %q", c.Reason, tt.reason)
			}
			if r.OK() {
				t.Error("report is OK")
			}
		})
	}
	for _, c := range checks() {
		if !covered[c.name] {
			t.Errorf("no broken relay for check %s", c.name)
		}
	}
}

func TestRelayThatVerifiesClients(t *testing.T) {
	need.IPv6(t) // each check must pass
	known := []key.NodePrivate{key.NewNode(), key.NewNode()}
	admission := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req tailcfg.DERPAdmitClientRequest
		json.NewDecoder(r.Body).Decode(&req)
		ok := slices.ContainsFunc(known, func(k key.NodePrivate) bool { return k.Public() == req.NodePublic })
		json.NewEncoder(w).Encode(tailcfg.DERPAdmitClientResponse{Allow: ok})
	}))
	defer admission.Close()
	target := (&relay{setup: func(s *derpserver.Server) { s.SetVerifyClientURL(admission.URL) }}).start(t, "relay.example")

	r := Run(t.Context(), target)
	c, _ := r.Find("derp/handshake")
	if c.Result != Skip || !strings.Contains(c.Reason, "verifies its clients") || len(failed(r)) > 0 {
		t.Errorf("with an unknown key:\n%s", text(r))
	}

	target.Keys = known
	if r := Run(t.Context(), target); r.Count(Pass) != len(r.Checks) {
		t.Errorf("with known keys:\n%s", text(r))
	}

	target.Keys = []key.NodePrivate{key.NewNode(), key.NewNode()}
	if r := Run(t.Context(), target); !slices.Equal(failed(r), []string{"derp/handshake"}) {
		t.Errorf("with keys that are said to be known:\n%s", text(r))
	}
}

// TestRelayThatIsSlow has a rate limit: that is no loss, and the reason must not say so.
func TestRelayThatIsSlow(t *testing.T) {
	need.Minutes(t, "sending more than a slow relay takes")
	t.Parallel()
	target := (&relay{setup: func(s *derpserver.Server) {
		s.UpdateRateLimits(derpserver.RateConfig{PerClientRateLimitBytesPerSec: 20_000})
	}}).start(t, "127.0.0.1")
	// 20 kB a second each way: a tenth of them in the thirty seconds that there are.
	target.Timeout, target.Packets = 3*time.Second, 50_000
	if c, _ := Run(t.Context(), target).Find("derp/many"); c.Result != Fail || !strings.Contains(c.Reason, "none lost") {
		t.Errorf("%v", c)
	}
	target.Timeout, target.Packets = 5*time.Second, 500
	if r := Run(t.Context(), target); !r.OK() {
		t.Error(text(r))
	}
}

func TestHomePages(t *testing.T) {
	for want, h := range map[string]http.HandlerFunc{
		HomeDefault:              nil,
		HomeBlank:                status(200),
		"https://example.com/it": http.RedirectHandler("https://example.com/it", http.StatusFound).ServeHTTP,
	} {
		target := (&relay{home: h}).start(t, "127.0.0.1")
		for _, target.Home = range []string{"", want} {
			if c, _ := Run(t.Context(), target).Find("http/home"); c.Result != Pass || c.Reason != want {
				t.Errorf("home page %s: %v", want, c)
			}
		}
	}
}

func TestInsecure(t *testing.T) {
	target := new(relay).start(t, "127.0.0.1")
	pin := target.CertName
	target.CertName, target.Insecure = "", true
	r := Run(t.Context(), target)
	c, _ := r.Find("tls/certificate")
	if !r.OK() || !strings.Contains(c.Reason, pin) {
		t.Errorf("the row names no pin to use:\n%s", text(r))
	}
	target.CertName = "sha256-raw:" + strings.Repeat("00", 32)
	if r := Run(t.Context(), target); !slices.Equal(failed(r), []string{"tls/certificate"}) {
		t.Errorf("a wrong pin passed as insecure:\n%s", text(r))
	}
}

func TestSwitchedOff(t *testing.T) {
	target := new(relay).start(t, "127.0.0.1")
	target.HTTPPort, target.STUNPort = -1, -1
	r := Run(t.Context(), target)
	for _, name := range []string{"stun/ipv4", "http/204-port-80"} {
		if c, _ := r.Find(name); c.Result != Skip {
			t.Errorf("%v", c)
		}
	}
	if !r.OK() {
		t.Error(text(r))
	}
}

func TestMappedAddress(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, tt := range []struct {
		local, mapped, via string
		want               Result
	}{
		{"203.0.113.8:1000", "203.0.113.8:1000", "", Pass},
		{"203.0.113.8:1000", "203.0.113.9:1000", "", Fail}, // a public address is not translated
		{"192.168.1.5:1000", "203.0.113.9:4000", "", Skip}, // NAT: anything may be true
		{"192.168.1.5:1000", "10.0.0.1:1000", "", Fail},    // but not this
		{"192.168.1.5:1000", "127.0.0.1:1000", "", Fail},
		{"127.0.0.1:1000", "172.17.0.1:4000", "172.17.0.1", Pass}, // published by Docker
		{"127.0.0.1:1000", "172.17.0.2:4000", "172.17.0.1", Fail},
	} {
		s := &session{stun: map[family]stunReply{ipv4: {ap(tt.local), ap(tt.mapped)}}}
		if tt.via != "" {
			s.Via = netip.MustParseAddr(tt.via)
		}
		got, reason := s.judge(t.Context(), check{run: func(ctx context.Context, s *session) string { return s.checkMapped(ctx, ipv4) }}, nil)
		if got != tt.want {
			t.Errorf("%v → %v: %s (%s), want %s", tt.local, tt.mapped, got, reason, tt.want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	target := new(relay).start(t, "127.0.0.1")
	target.Packets = 10_000_000
	target.Progress = func(c Check) {
		if c.Name == "derp/large" {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
	}
	start := time.Now()
	r := Run(ctx, target)
	if len(failed(r)) > 0 || time.Since(start) > 30*time.Second {
		t.Errorf("took %v:\n%s", time.Since(start), text(r))
	}
	if c, _ := r.Find("derp/many"); c.Result != Skip || c.Reason != "interrupted" {
		t.Errorf("%v", c)
	}
}

func TestValidate(t *testing.T) {
	for want, target := range map[string]Target{
		"no host":        {},
		"port 70000":     {Host: "h", Port: 70000},
		"port -1":        {Host: "h", Port: -1},
		"stun port -2":   {Host: "h", STUNPort: -2},
		"does not begin": {Host: "h", CertName: "relay.example"},
		"64 lower-case":  {Host: "h", CertName: "sha256-raw:ABCD"},
		"nor a URL":      {Host: "h", Home: "nice"},
		"give two":       {Host: "h", Keys: make([]key.NodePrivate, 1)},
	} {
		if err := target.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", target, err, want)
		}
	}
}

func TestReport(t *testing.T) {
	r := &Findings{Relay: "h:443", Checks: []Check{
		{Name: "a", Result: Pass, Took: 1500 * time.Microsecond}, {Name: "b", Result: Skip, Reason: "why"},
	}}
	if !r.OK() || r.Summary() != "h:443: 1 passed, 0 failed, 1 skipped" {
		t.Error(r.Summary())
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil || !strings.Contains(string(b), `"ms": 1.5`) || !strings.Contains(string(b), `"reason": "why"`) {
		t.Errorf("%v: %s", err, b)
	}
	if (&Findings{Checks: []Check{{Result: Skip}}}).OK() {
		t.Error("a report in which nothing was asked is OK")
	}
}
