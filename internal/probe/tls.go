package probe

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/derp/derpconst"
	"tailscale.com/net/bakedroots"
	"tailscale.com/util/must"
)

var tlsChecks = []check{
	{name: "tls/handshake", needs: "address", run: checkHandshake},
	{name: "tls/certificate", needs: "tls/handshake", run: checkCertificate},
	{name: "tls/expiry", needs: "tls/handshake", run: checkExpiry},
	{name: "tls/wrong-pin", needs: "tls/handshake", run: checkWrongPin},
	{name: "tls/sni", needs: "tls/handshake", run: checkSNI},
}

const pinPrefix = "sha256-raw:"

// validPin says what is wrong with the name of a pinned certificate.
func validPin(certName string) error {
	h, ok := strings.CutPrefix(certName, pinPrefix)
	if !ok {
		return fmt.Errorf("certificate name %q: does not begin with %s", certName, pinPrefix)
	}
	if b, err := hex.DecodeString(h); err != nil || len(b) != sha256.Size || h != strings.ToLower(h) {
		return fmt.Errorf("certificate name %q: %s takes 64 lower-case hex digits", certName, pinPrefix)
	}
	return nil
}

// PinOf is how a DERP map names a certificate.
func PinOf(c *x509.Certificate) string { return fmt.Sprintf("%s%x", pinPrefix, sha256.Sum256(c.Raw)) }

// handshake connects and says serverName in clear ("" or an address: nothing). It verifies nothing: the checks do,
// one by one.
func (s *session) handshake(ctx context.Context, serverName string) (*tls.Conn, error) {
	if !s.addr.IsValid() {
		return nil, Skipped("needs tcp/ipv4 or tcp/ipv6")
	}
	tcp, err := s.dial(ctx, s.addr, s.Port)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(tcp, &tls.Config{ServerName: serverName, InsecureSkipVerify: true})
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close()
		return nil, err
	}
	return conn, nil
}

func checkHandshake(ctx context.Context, s *session) string {
	conn := must.Get(s.handshake(ctx, s.Host))
	defer conn.Close()
	st := conn.ConnectionState()
	if s.chain = chain(st); len(s.chain) == 0 {
		fail("relay presented no certificate of its own")
	}
	return tls.VersionName(st.Version)
}

// chain returns the certificates of a connection without derper's meta certificate.
func chain(st tls.ConnectionState) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(st.PeerCertificates), func(c *x509.Certificate) bool {
		return strings.HasPrefix(c.Subject.CommonName, derpconst.MetaCertCommonNamePrefix)
	})
}

// checkCertificate verifies the certificate as tailscale.com/net/tlsdial does, except for its dates, which are a check
// of their own.
func checkCertificate(_ context.Context, s *session) string {
	leaf, more := s.chain[0], s.chain[1:]
	name := s.Host
	if _, err := netip.ParseAddr(s.Host); err == nil && s.CertName != "" {
		name = "" // a pinned relay is called by its address, whatever the certificate says
	}
	switch {
	case s.CertName != "":
		if pin := PinOf(leaf); pin != s.CertName {
			fail("certificate is %s, not the pinned one", pin)
		}
		if len(more) > 0 {
			fail("clients refuse a pinned certificate with %d more behind it", len(more))
		}
		if name == "" {
			return "pinned"
		}
		must.Do(leaf.VerifyHostname(name))
		return "pinned, for " + name
	case s.Insecure:
		return "not verified; its pin is " + PinOf(leaf)
	}
	opts := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool(), CurrentTime: within(leaf, time.Now())}
	for _, c := range more {
		opts.Intermediates.AddCert(c)
	}
	var first error
	for _, roots := range []*x509.CertPool{nil, s.RootCAs, bakedroots.Get()} { // nil: the system's
		opts.Roots = roots
		_, err := leaf.Verify(opts)
		if err == nil {
			return "for " + name
		}
		first = cmp.Or(first, err)
	}
	fail("%w; its pin is %s", first, PinOf(leaf))
	return ""
}

// within returns the time in c's validity that is nearest to t.
func within(c *x509.Certificate, t time.Time) time.Time {
	switch {
	case t.After(c.NotAfter):
		return c.NotAfter
	case t.Before(c.NotBefore):
		return c.NotBefore
	}
	return t
}

func checkExpiry(_ context.Context, s *session) string {
	c, now := s.chain[0], time.Now()
	s.expired = true
	switch {
	case now.After(c.NotAfter):
		fail("certificate expired on %s", c.NotAfter.Format(time.DateTime))
	case now.Before(c.NotBefore):
		fail("certificate is valid from %s only; is your clock right?", c.NotBefore.Format(time.DateTime))
	}
	s.expired = false
	return fmt.Sprintf("expires on %s, in %d days", c.NotAfter.Format(time.DateOnly), int(c.NotAfter.Sub(now).Hours()/24))
}

// checkWrongPin connects as a node does whose DERP map pins another certificate.
func checkWrongPin(ctx context.Context, s *session) string {
	sum := sha256.Sum256(s.chain[0].Raw)
	sum[0] ^= 1
	reg := s.region()
	reg.Nodes[0].CertName = fmt.Sprintf("%s%x", pinPrefix, sum)
	c := newClient(reg, s.nodeKey(1), s.RootCAs)
	defer c.Close()
	conn, raw, _, err := c.DialRegionTLS(ctx, reg)
	if err == nil {
		conn.Close()
		raw.Close()
		fail("a client that pins another certificate got through")
	}
	if !strings.Contains(err.Error(), "cert hash does not match") {
		fail("a client that pins another certificate got %w", err)
	}
	return "refused"
}

// checkSNI asks for a name that no relay has. As derper does, a relay with a DNS name must refuse any other, and one
// with only an address must answer clients that name none: they cannot.
func checkSNI(ctx context.Context, s *session) string {
	leaf := s.chain[0]
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) > 0 {
		conn, err := s.handshake(ctx, "")
		if err != nil {
			fail("no answer to a client that names no server: %w", err)
		}
		defer conn.Close()
		if c := chain(conn.ConnectionState()); len(c) == 0 || !c[0].Equal(leaf) {
			fail("another certificate for a client that names no server")
		}
		return "answers without a name"
	}
	conn, err := s.handshake(ctx, "another-name.invalid")
	var refusal *net.OpError // crypto/tls wraps the alert of the other side so
	switch {
	case err == nil:
		conn.Close()
		fail("answers to a name that is not its own")
	case !errors.As(err, &refusal) || refusal.Op != "remote error":
		fail("asked for another name: %w", err)
	}
	return "refuses another name"
}
