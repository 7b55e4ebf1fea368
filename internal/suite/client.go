package suite

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
)

// connect shakes hands with the relay, through its published port. The error is [probe.ErrClosed] if the relay does not
// want this client.
func (c *box) connect(ctx context.Context, k key.NodePrivate) (*probe.Peer, error) {
	at := must.Get(c.Addr(c.https))
	region := region(&tailcfg.DERPNode{
		HostName: c.name, IPv4: at.Addr().String(), IPv6: "none", DERPPort: int(at.Port()),
		InsecureForTests: true, // the probe judges certificates
	})
	ctx, cancel := context.WithTimeout(ctx, c.bed.patience)
	defer cancel()
	d, err := probe.Connect(ctx, region, k, nil)
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return d, nil
}

// admits expects the relay to let in a client with that key, or not to.
func (c *box) admits(ctx context.Context, who string, k key.NodePrivate, want bool) {
	d, err := c.connect(ctx, k)
	if err == nil {
		d.Close()
	} else if !errors.Is(err, probe.ErrClosed) {
		fail("%s: %w", who, err)
	}
	if in := err == nil; in != want {
		fail("%s: let in: %v, wants %v", who, in, want)
	}
}

// request asks the relay for a page at a published port.
func (c *box) request(ctx context.Context, method, scheme string, port container.Port, path string) *probe.Page {
	at := must.Get(c.Addr(port))
	ctx, cancel := context.WithTimeout(ctx, c.bed.patience)
	defer cancel()
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at.String())
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	return must.Get(probe.Fetch(ctx, tr, method, probe.URL(scheme, c.name, 0, path)))
}

// get asks for a page over HTTPS and expects a status.
func (c *box) get(ctx context.Context, path string, status int) *probe.Page {
	p := c.request(ctx, "GET", "https", c.https, path)
	must.Do(p.Want(status))
	return p
}

// counters are the relay's own, from the group derp of /debug/vars, which it shows to its loopback.
func (c *box) counters(ctx context.Context) map[string]float64 {
	var vars struct {
		DERP map[string]any `json:"derp"`
	}
	if err := json.Unmarshal([]byte(c.get(ctx, "/debug/vars", http.StatusOK).Text), &vars); err != nil {
		fail("GET /debug/vars: %w", err)
	}
	numbers := map[string]float64{}
	for name, v := range vars.DERP {
		if n, ok := v.(float64); ok {
			numbers[name] = n
		}
	}
	return numbers
}

// leaf returns the pin of the certificate that the relay shows to who asks for a name, as in a DERP map.
func (c *box) leaf(ctx context.Context, name string) (pin string) {
	d := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	conn := must.Get(d.DialContext(ctx, "tcp", must.Get(c.Addr(c.https)).String()))
	defer conn.Close()
	cert := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	must.Do(cert.VerifyHostname(name))
	return probe.PinOf(cert)
}

// stun asks for a binding at a published port.
func (c *box) stun(ctx context.Context, port int, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, _, err := probe.STUN(ctx, must.Get(c.Addr(udp(port)))); err != nil {
		return fmt.Errorf("stun on port %d: %w", port, err)
	}
	return nil
}
