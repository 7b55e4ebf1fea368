package suite

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/xavieralpha/derper/internal/container"
)

// client is a DERP client that the relay has let in.
type client struct {
	*derphttp.Client
	public key.NodePublic
}

// errRefused is what a relay does to a client that it does not let in: it closes the connection after the handshake.
var errRefused = errors.New("refused")

// connect shakes hands with the relay, through its published port. The error is errRefused if the relay does not want
// this client.
func (c *box) connect(ctx context.Context, k key.NodePrivate) (*client, error) {
	at, err := c.Addr(c.https)
	if err != nil {
		return nil, err
	}
	region := &tailcfg.DERPRegion{RegionID: 900, RegionCode: "test", Nodes: []*tailcfg.DERPNode{{
		Name: "900a", RegionID: 900, HostName: c.name, IPv4: at.Addr().String(), IPv6: "none", DERPPort: int(at.Port()),
		InsecureForTests: true, // the probe judges certificates
	}}}
	d := &client{derphttp.NewRegionClient(k, logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return region }), k.Public()}
	ctx, cancel := context.WithTimeout(ctx, c.bed.patience)
	defer cancel()
	if err := d.Connect(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	// The first message goes to those only that may stay.
	if _, err := d.next(ctx, func(m derp.ReceivedMessage) bool { _, ok := m.(derp.ServerInfoMessage); return ok }); err != nil {
		d.Close()
		if ctx.Err() == nil {
			return nil, errRefused
		}
		return nil, err
	}
	return d, nil
}

// admits reports whether the relay lets the key in.
func (c *box) admits(ctx context.Context, k key.NodePrivate) (bool, error) {
	d, err := c.connect(ctx, k)
	if errors.Is(err, errRefused) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, d.Close()
}

// next returns the next message that is wanted. Only the last one to wait may still wait when ctx ends.
func (d *client) next(ctx context.Context, want func(derp.ReceivedMessage) bool) (derp.ReceivedMessage, error) {
	type result struct {
		m   derp.ReceivedMessage
		err error
	}
	got := make(chan result, 1)
	go func() {
		for {
			m, err := d.Recv()
			if err != nil || want(m) {
				if p, ok := m.(derp.ReceivedPacket); ok {
					p.Data = bytes.Clone(p.Data) // it is the client's until the next call only
					m = p
				}
				got <- result{m, err}
				return
			}
		}
	}()
	select {
	case r := <-got:
		return r.m, r.err
	case <-ctx.Done():
		d.Close()
		return nil, errors.New("nothing came in time")
	}
}

// relayed sends a packet from one client to another and waits for it.
func relayed(ctx context.Context, from, to *client, size int) error {
	packet := bytes.Repeat([]byte("relay"), size/5+1)[:size]
	if err := from.Send(to.public, packet); err != nil {
		return err
	}
	m, err := to.next(ctx, func(m derp.ReceivedMessage) bool {
		p, ok := m.(derp.ReceivedPacket)
		return ok && p.Source == from.public
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(m.(derp.ReceivedPacket).Data, packet) {
		return errors.New("another packet came")
	}
	return nil
}

// request asks the relay for a page at a published port.
func (c *box) request(ctx context.Context, method, scheme string, port container.Port, path string) (*http.Response, string, error) {
	at, err := c.Addr(port)
	if err != nil {
		return nil, "", err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", at.String())
	}
	hc := &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       c.bed.patience,
	}
	host := c.name
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + host + "]"
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+host+path, nil)
	if err != nil {
		return nil, "", err
	}
	res, err := hc.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	return res, string(body), err
}

// get asks for a page over HTTPS and expects a status.
func (c *box) get(ctx context.Context, path string, status int) (string, http.Header, error) {
	res, body, err := c.request(ctx, "GET", "https", c.https, path)
	if err != nil {
		return "", nil, err
	}
	if res.StatusCode != status {
		return "", nil, fmt.Errorf("GET %s: %s, wants %d", path, res.Status, status)
	}
	return body, res.Header, nil
}

// counters are the relay's own, from the group derp of /debug/vars, which it shows to its loopback.
func (c *box) counters(ctx context.Context) (map[string]float64, error) {
	body, _, err := c.get(ctx, "/debug/vars", http.StatusOK)
	if err != nil {
		return nil, err
	}
	var vars struct {
		DERP map[string]any `json:"derp"`
	}
	if err := json.Unmarshal([]byte(body), &vars); err != nil {
		return nil, fmt.Errorf("GET /debug/vars: %w", err)
	}
	numbers := map[string]float64{}
	for name, v := range vars.DERP {
		if n, ok := v.(float64); ok {
			numbers[name] = n
		}
	}
	return numbers, nil
}

// leaf returns the pin of the certificate that the relay shows to who asks for a name, as in a DERP map.
func (c *box) leaf(ctx context.Context, name string) (pin string, err error) {
	at, err := c.Addr(c.https)
	if err != nil {
		return "", err
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	cert := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if err := cert.VerifyHostname(name); err != nil {
		return "", err
	}
	return pinOf(cert.Raw), nil
}

// stun asks for a binding at a published port.
func (c *box) stun(ctx context.Context, port int, patience time.Duration) error {
	at, err := c.Addr(udp(port))
	if err != nil {
		return err
	}
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	tx := stun.NewTxID()
	if _, err := conn.Write(stun.Request(tx)); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	if err != nil {
		return fmt.Errorf("stun on port %s: %w", strconv.Itoa(port), err)
	}
	got, _, err := stun.ParseResponse(buf[:n])
	if err == nil && got != tx {
		err = errors.New("stun: answer to another request")
	}
	return err
}
