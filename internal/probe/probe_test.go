package probe

import (
	"cmp"
	"context"
	"crypto/x509"
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
	"testing"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/relaytest"
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
			target := target(new(relaytest.Relay).Start(t, host))
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

// target is how to ask a relay that runs.
func target(r relaytest.Running) Target {
	t := Target{Host: r.Host, Addrs: r.Addrs, Port: r.Port, HTTPPort: r.HTTPPort, STUNPort: r.STUNPort, RootCAs: r.RootCAs, Timeout: 5 * time.Second, Packets: 1000}
	if _, err := netip.ParseAddr(r.Host); err == nil {
		t.CertName = r.Pin
	}
	return t
}

// TestRelayThatIsBroken breaks one thing at a time: the check for it fails, and no other.
func TestRelayThatIsBroken(t *testing.T) {
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
	}
	type test struct {
		relaytest.Broken
		target func(*Target)
	}
	var tests []test
	for _, b := range relaytest.All(t) {
		tests = append(tests, test{Broken: b})
	}
	tests = append(tests, []test{
		{relaytest.Broken{What: "name that does not resolve", Relay: &relaytest.Relay{}, Fails: "address", Reason: "lookup relay.example"}, func(t *Target) {
			t.Addrs = nil
			t.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("no name server here")
			}}
		}},
		{relaytest.Broken{What: "certificate of an unknown authority", Relay: &relaytest.Relay{}, Fails: "tls/certificate", Reason: "unknown authority"}, func(t *Target) { t.RootCAs = nil }},
		{relaytest.Broken{What: "wrong pin", Relay: &relaytest.Relay{}, Host: "127.0.0.1", Fails: "tls/certificate", Reason: "not the pinned one"}, func(t *Target) { t.CertName = "sha256-raw:" + strings.Repeat("5a", 32) }},
		{relaytest.Broken{What: "expired certificate, not verified", Relay: &relaytest.Relay{Cert: expired}, Fails: "tls/expiry", Reason: "expired on"}, func(t *Target) { t.Insecure = true }},
		{relaytest.Broken{What: "no port 80", Relay: &relaytest.Relay{}, Fails: "http/204-port-80", Reason: "refused"}, func(t *Target) { t.HTTPPort = 1 }},
		{relaytest.Broken{What: "another home page", Relay: &relaytest.Relay{}, Fails: "http/home", Reason: "home page is default, not blank"}, func(t *Target) { t.Home = HomeBlank }},
	}...)
	covered := map[string]bool{}
	for _, tt := range tests {
		covered[tt.Fails] = true
		t.Run(tt.Fails+"/"+tt.What, func(t *testing.T) {
			t.Parallel()
			// The other version works; or connections are counted, which are of both.
			if strings.Contains(tt.Fails, "/ipv") || tt.Relay.Conn != nil {
				need.IPv6(t)
			}
			asked := target(tt.Relay.Start(t, cmp.Or(tt.Host, "relay.example")))
			if tt.target != nil {
				tt.target(&asked)
			}
			r := Run(t.Context(), asked)
			if got := failed(r); !slices.Equal(got, []string{tt.Fails}) {
				t.Errorf("failed checks: %q, want only %s:\n%s", got, tt.Fails, text(r))
			}
			if c, _ := r.Find(tt.Fails); !strings.Contains(c.Reason, tt.Reason) {
				t.Errorf("reason %q does not say %q", c.Reason, tt.Reason)
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
	target := target((&relaytest.Relay{Setup: func(s *derpserver.Server) { s.SetVerifyClientURL(admission.URL) }}).Start(t, "relay.example"))

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
	target := target((&relaytest.Relay{Setup: func(s *derpserver.Server) {
		s.UpdateRateLimits(derpserver.RateConfig{PerClientRateLimitBytesPerSec: 20_000})
	}}).Start(t, "127.0.0.1"))
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
		HomeBlank:                relaytest.Status(200),
		"https://example.com/it": http.RedirectHandler("https://example.com/it", http.StatusFound).ServeHTTP,
	} {
		target := target((&relaytest.Relay{Home: h}).Start(t, "127.0.0.1"))
		for _, target.Home = range []string{"", want} {
			if c, _ := Run(t.Context(), target).Find("http/home"); c.Result != Pass || c.Reason != want {
				t.Errorf("home page %s: %v", want, c)
			}
		}
	}
}

func TestInsecure(t *testing.T) {
	target := target(new(relaytest.Relay).Start(t, "127.0.0.1"))
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
	target := target(new(relaytest.Relay).Start(t, "127.0.0.1"))
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
	target := target(new(relaytest.Relay).Start(t, "127.0.0.1"))
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
