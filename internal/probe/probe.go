// Package probe asks a live relay whether it does what a Tailscale client needs of it.
//
// It is a client only: it uses Tailscale's own code for STUN, TLS and DERP, so that the relay is asked what a node
// asks it, and it needs nothing from the relay but its ports. Each check looks at one promise. A check that cannot be
// judged because of another one is skipped and names it, so that one broken thing gives one failed row.
//
// It does not judge speed, and it cannot see behind a relay that verifies its clients, unless it is given node keys
// that the relay knows.
package probe

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tailscale.com/net/netns"
	"tailscale.com/types/key"
	"tailscale.com/util/must"
)

// Target says which relay to ask, as a node of a DERP map does, and what is known about it.
type Target struct {
	Host     string // DNS name or IP address: HostName of the DERP map
	Port     int    // DERP over HTTPS: DERPPort; 0 is 443
	HTTPPort int    // 0 is 80; -1: the relay has none
	STUNPort int    // 0 is 3478; -1: the relay has none

	CertName string         // "sha256-raw:" and the hash of the certificate, as in the DERP map; "" for public certificates
	Insecure bool           // do not verify the certificate, unless CertName is given
	RootCAs  *x509.CertPool `json:"-"` // trusted besides the system's

	Addrs    []netip.Addr  // where to dial; empty: what DNS says of Host
	Resolver *net.Resolver `json:"-"` // nil is the system's

	Via  netip.Addr // the address that the relay sees us by, when something on the way translates ours, as a published port of a container does
	Home string     // expected home page: HomeDefault, HomeBlank, the URL of a redirect; "" takes any of them

	Keys    []key.NodePrivate `json:"-"` // two node keys that the relay knows, for one that verifies its clients; empty: new ones
	Packets int               // how many make "many"; 0 is 10,000
	Timeout time.Duration     // of a check; 0 is 5 seconds. Many packets may take ten times as long

	Progress func(Check) `json:"-"` // called after each check
}

// Expected home pages, besides the URL of a redirect.
const (
	HomeDefault = "default"
	HomeBlank   = "blank"
)

// Validate says what is wrong with a target that cannot be asked.
func (t Target) Validate() error {
	if t.Host == "" {
		return errors.New("no host given")
	}
	for _, p := range []struct {
		name string
		port int
		off  bool
	}{{"port", t.Port, false}, {"http port", t.HTTPPort, true}, {"stun port", t.STUNPort, true}} {
		if p.port > 65535 || p.port < -1 || p.port == -1 && !p.off {
			return fmt.Errorf("%s %d: not a port", p.name, p.port)
		}
	}
	if t.CertName != "" {
		if err := validPin(t.CertName); err != nil {
			return err
		}
	}
	if !slices.Contains([]string{"", HomeDefault, HomeBlank}, t.Home) && !isURL(t.Home) {
		return fmt.Errorf("home page %q: neither %s nor %s nor a URL", t.Home, HomeDefault, HomeBlank)
	}
	if n := len(t.Keys); n != 0 && n != 2 {
		return fmt.Errorf("%d node keys: a packet needs a sender and a receiver, give two", n)
	}
	return nil
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// check is one promise. Its run returns what it saw, or ends with its first error, which nobody else could do anything
// about: a skip when it could not be judged.
type check struct {
	name  string
	needs string // a check that must have passed
	long  bool   // takes ten times as long as others
	run   func(context.Context, *session) string
}

// fail ends a check.
func fail(format string, args ...any) { must.Do(fmt.Errorf(format, args...)) }

// session is what the checks of one run learn from each other.
type session struct {
	Target
	addrs  []netip.Addr // of the relay
	addr   netip.Addr   // the one that checks over TCP use
	direct bool         // whether we know that the relay sees us by a loopback or Tailscale address

	stun    map[family]stunReply
	chain   []*x509.Certificate // without the meta certificate, which carries the relay's node key
	expired bool

	serverKey key.NodePublic
	a, b      *Peer // clients that the checks of DERP share
}

// Run asks the relay all questions and returns the answers. It ends early, with the rest skipped, when ctx does.
func Run(ctx context.Context, t Target) *Findings {
	netns.SetEnabled(false) // we are not tailscaled: dial by the routes that any program takes

	t.Port = cmp.Or(t.Port, 443)
	t.HTTPPort = cmp.Or(t.HTTPPort, 80)
	t.STUNPort = cmp.Or(t.STUNPort, 3478)
	t.Packets = cmp.Or(t.Packets, 10_000)
	t.Timeout = cmp.Or(t.Timeout, 5*time.Second)

	r := &Findings{Relay: net.JoinHostPort(t.Host, strconv.Itoa(t.Port)), Time: time.Now()}
	s := &session{Target: t, stun: map[family]stunReply{}, direct: inside(t.Via)}
	defer func() {
		for _, p := range []*Peer{s.a, s.b} {
			if p != nil {
				p.Close()
			}
		}
	}()

	passed := map[string]bool{}
	for _, c := range checks() {
		start := time.Now()
		row := Check{Name: c.name}
		row.Result, row.Reason = s.judge(ctx, c, passed)
		row.Took = time.Since(start)
		passed[c.name] = row.Result == Pass
		r.Checks = append(r.Checks, row)
		if t.Progress != nil {
			t.Progress(row)
		}
	}
	return r
}

// checks are all checks in the order in which they run.
func checks() []check {
	return slices.Concat(reachChecks, stunChecks, tlsChecks, derpChecks, httpChecks)
}

// judge asks c, unless the check that it needs has not passed.
func (s *session) judge(ctx context.Context, c check, passed map[string]bool) (Result, string) {
	if ctx.Err() != nil {
		return Skip, "interrupted"
	}
	if c.needs != "" && !passed[c.needs] {
		return Skip, "needs " + c.needs
	}
	timeout := s.Timeout
	if c.long {
		timeout *= 10
	}
	cctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var saw string
	switch result, reason := Judge(Caught(func() { saw = c.run(cctx, s) })); {
	case result == Pass:
		return Pass, saw
	case result == Fail && ctx.Err() != nil:
		return Skip, "interrupted"
	default:
		return result, reason
	}
}
