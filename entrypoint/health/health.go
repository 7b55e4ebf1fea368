// Package health asks a running relay whether it does its work: the questions
// that Tailscale clients ask, derper's own consistency check, and those whom
// derper asks about clients.
package health

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/xavieralpha/derper/entrypoint/admission"
	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/stun"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// Timeout bounds each part; the parts run side by side.
const Timeout = 2 * time.Second

// A Result is the outcome of one part.
type Result struct {
	Part string
	Note string // something to know although all is well
	Err  error
}

// Parts that say whether clients can be verified: by a tailscaled, by
// VERIFY_CLIENT_URL, by VERIFY_NODES.
const (
	Verification = "verification"
	VerifyURL    = "verify-client-url"
	VerifyNodes  = "verify-nodes"
)

// A Subject is the relay as it runs.
type Subject struct {
	relay.Relay
	Served   *certificate.Certificate // with which derper was started; nil unless it is a pair of files
	OnDisk   string                   // what is wrong with the pair that is there now
	Verifier tailscaled.Verifier      // who verifies clients
	Nodes    *admission.Nodes         // of VERIFY_NODES, or nil
	ACME     *ACME
}

// Check asks everything that the relay has switched on.
func Check(ctx context.Context, s Subject) []Result {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var parts []func(context.Context) []Result
	add := func(on bool, part string, ask func(context.Context) (note string, err error)) {
		if on {
			parts = append(parts, func(ctx context.Context) []Result {
				note, err := ask(ctx)
				return []Result{{Part: part, Note: note, Err: err}}
			})
		}
	}
	add(s.Bool("RUN_STUN"), "stun", func(ctx context.Context) (string, error) { return "", s.stun(ctx) })
	parts = append(parts, s.web)
	add(s.Verifies(), Verification, s.verification)
	add(s.Get("VERIFY_CLIENT_URL") != "" && s.Nodes == nil, VerifyURL, func(ctx context.Context) (string, error) {
		return "", admission.Ask(ctx, s.Get("VERIFY_CLIENT_URL"), admission.Rule{FailOpen: s.Bool("VERIFY_FAIL_OPEN"), Tailscaled: s.Verifies()})
	})
	add(s.Nodes != nil, VerifyNodes, func(context.Context) (string, error) { return "", s.Nodes.Err() })
	add(s.PeerRelay() && s.Sidecar(), "peer relay", func(context.Context) (string, error) { return "", s.peerRelay() })

	outcomes := make([][]Result, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { outcomes[i] = part(ctx) })
	}
	wg.Wait()
	var results []Result
	for _, o := range outcomes {
		results = append(results, o...)
	}
	return results
}

// Alive asks whether derper answers on this machine. Nothing counts that
// somebody else can take away: no certificate, no control server, no verification.
func Alive(ctx context.Context, r relay.Relay) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	host, port := r.Address()
	switch {
	case !r.TLS() || r.Number("HTTP_PORT") != -1:
		c := newClient(r, false)
		defer c.CloseIdleConnections()
		_, _, err := c.get(ctx, "/generate_204")
		return err
	case r.Manual():
		c := newClient(r, true)
		defer c.CloseIdleConnections()
		_, _, err := c.get(ctx, "/generate_204")
		return err
	case r.Bool("RUN_STUN"):
		return Subject{Relay: r}.stun(ctx)
	}
	conn, err := dial(ctx, target(host, port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// Variables returns derper's own, in the text format of Prometheus.
func Variables(ctx context.Context, r relay.Relay) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	c := debugClient(r)
	if c == nil {
		return "", errors.New("not asked for over HTTPS while there is no certificate, and HTTP is off")
	}
	defer c.CloseIdleConnections()
	text, _, err := c.get(ctx, "/debug/varz")
	return text, err
}

// debugClient returns a client for derper's debug pages, which makes derper
// order no certificate; nil if there is none.
func debugClient(r relay.Relay) *client {
	switch {
	case !r.TLS() || r.Number("HTTP_PORT") != -1:
		return newClient(r, false)
	case r.Manual():
		return newClient(r, true)
	}
	if _, ok := certificate.Cached(r.Get("CERT_DIR"), r.Get("HOSTNAME"), time.Now()); ok {
		return newClient(r, true)
	}
	return nil
}

func (s Subject) stun(ctx context.Context) error {
	host, _ := s.Address()
	addr := target(host, s.Number("STUN_PORT"))
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline) //nolint:errcheck // a fresh socket takes one
	}
	var id stun.TxID
	rand.Read(id[:]) //nolint:errcheck // it never fails
	if _, err := conn.Write(stun.Request(id)); err != nil {
		return plain(err)
	}
	b := make([]byte, 1500)
	n, err := conn.Read(b)
	if err != nil {
		return fmt.Errorf("no answer from udp %v: %w", addr, plain(err))
	}
	gotID, from, err := stun.Response(b[:n])
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
	switch {
	case err != nil:
		return fmt.Errorf("%v: %w", addr, err)
	case gotID != id:
		return fmt.Errorf("%v answered another request", addr)
	case from != local:
		return fmt.Errorf("%v saw the request come from %v instead of %v", addr, from, local)
	}
	return nil
}

// web asks over HTTPS, or over HTTP where derper has no TLS.
func (s Subject) web(ctx context.Context) []Result {
	first := Result{Part: "https"}
	if !s.TLS() {
		first.Part = "http"
	}
	host, port := s.Address()
	if s.TLS() && !s.Manual() && s.IsIP() {
		// A certificate for loopback does not exist, and asking for it would
		// make derper order one. What is left is that it listens.
		first.Note = "certificate not checked: it is served to outside addresses only"
		conn, err := dial(ctx, target(host, port))
		if err != nil {
			return []Result{{Part: first.Part, Err: err}}
		}
		conn.Close()
		return []Result{first}
	}
	if s.TLS() && !s.Manual() {
		if err := s.ACME.may(s.Get("CERT_DIR"), s.Get("HOSTNAME")); err != nil {
			return []Result{{Part: first.Part, Err: err}}
		}
	}
	c := newClient(s.Relay, s.TLS())
	defer c.CloseIdleConnections()
	_, chain, err := c.get(ctx, "/derp/probe")
	_, answered := err.(statusError)
	orders := s.TLS() && !s.Manual()
	if err != nil && !answered {
		if orders {
			err = s.ACME.refused(s.Get("HOSTNAME"), err)
		}
		return []Result{{Part: first.Part, Err: err}}
	}
	if orders {
		s.ACME.worked()
	}
	if chain != nil {
		first.Note, first.Err = s.certificate(chain[0], time.Now())
	}
	results := []Result{first}
	if s.Bool("RUN_DERP") {
		results = append(results, Result{Part: "derp", Err: err})
	}
	return results
}

// certificate judges the one that derper serves. What is wrong with the files
// is a note: derper keeps the pair that it has.
func (s Subject) certificate(leaf *x509.Certificate, now time.Time) (note string, err error) {
	if err := certificate.VerifyHostname(leaf, s.Get("HOSTNAME")); err != nil {
		return "", err
	}
	warning := ""
	if s.Served != nil {
		if !s.Served.Leaf.Equal(leaf) {
			return "", fmt.Errorf("derper serves another certificate than %s, with which it was started; restart the container", s.Pair().Crt)
		}
		warning = s.Served.Warning(now)
	}
	switch expired := now.After(leaf.NotAfter); {
	case expired && warning != "":
		return "", fmt.Errorf("the certificate %s%s", warning, semicolon(s.OnDisk))
	case expired:
		return "", fmt.Errorf("the certificate expired on %s%s", leaf.NotAfter.UTC().Format("2006-01-02"), semicolon(s.OnDisk))
	case now.Before(leaf.NotBefore):
		return "", fmt.Errorf("the certificate is not valid before %s", leaf.NotBefore.UTC().Format("2006-01-02"))
	}
	if warning != "" {
		note = "certificate " + warning
	}
	if s.OnDisk != "" && note != "" {
		note += "; "
	}
	return note + s.OnDisk, nil
}

func semicolon(text string) string {
	if text == "" {
		return ""
	}
	return "; " + text
}

// verification asks the tailscaled that verifies clients, and for derper's
// consistency check, in which derper verifies the tailscaled's own node. derper
// allows this to loopback addresses.
func (s Subject) verification(ctx context.Context) (note string, err error) {
	d := tailscaled.Diagnose(ctx, s.Verifier)
	if d.Reason != nil {
		return "", fmt.Errorf("clients cannot be verified: %s", d.Reason.What)
	}
	if c := debugClient(s.Relay); c != nil {
		defer c.CloseIdleConnections()
		if _, _, err := c.get(ctx, "/debug/check"); err != nil {
			return "", fmt.Errorf("clients cannot be verified: %w", err)
		}
	}
	var notes []string
	if d.Alone != nil {
		notes = append(notes, d.Alone.What+", so no client is let in")
	}
	for _, w := range d.Warnings {
		notes = append(notes, w.What)
	}
	return strings.Join(notes, "; "), nil
}

func (s Subject) peerRelay() error {
	bound, err := inUse(s.Number("PEER_RELAY_PORT"))
	if err == nil && !bound {
		err = fmt.Errorf("no program listens on udp port %d", s.Number("PEER_RELAY_PORT"))
	}
	return err
}
