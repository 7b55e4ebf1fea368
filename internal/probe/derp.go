package probe

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
	"tailscale.com/derp"
	"tailscale.com/disco"
	"tailscale.com/net/wsconn"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
	"tailscale.com/util/must"
)

var derpChecks = []check{
	{name: "derp/handshake", needs: "tls/certificate", run: checkDERPHandshake},
	{name: "derp/server-key", needs: "derp/handshake", run: checkServerKey},
	{name: "derp/ping", needs: "derp/handshake", run: checkPing},
	{name: "derp/relay", needs: "derp/handshake", run: checkRelay},
	{name: "derp/large", needs: "derp/relay", run: checkLarge},
	{name: "derp/many", needs: "derp/relay", long: true, run: checkMany},
	{name: "derp/unknown", needs: "derp/handshake", run: checkUnknown},
	{name: "derp/websocket", needs: "derp/relay", run: checkWebSocket},
}

// nodeKey returns the first or second of the keys that the relay knows, or a new one.
func (s *session) nodeKey(i int) key.NodePrivate {
	if len(s.Keys) > 0 {
		return s.Keys[i]
	}
	return key.NewNode()
}

// region is the relay as a region of a DERP map.
func (s *session) region() *tailcfg.DERPRegion {
	n := &tailcfg.DERPNode{
		Name: "probe", RegionID: 900, HostName: s.Host,
		DERPPort: s.Port, STUNPort: s.STUNPort,
		IPv4: "none", IPv6: "none", // but for the address that we chose
		CertName: s.CertName, InsecureForTests: s.Insecure,
	}
	if s.addr.Is4() {
		n.IPv4 = s.addr.String()
	} else {
		n.IPv6 = s.addr.String()
		if n.HostName == n.IPv6 && s.Port == 443 {
			n.HostName = "[" + n.IPv6 + "]" // derphttp makes a URL of the bare name if the port is 443
		}
	}
	return &tailcfg.DERPRegion{RegionID: 900, RegionCode: "probe", Nodes: []*tailcfg.DERPNode{n}}
}

// connect shakes hands: it returns once the relay has accepted the client.
func (s *session) connect(ctx context.Context, k key.NodePrivate) (*Peer, error) {
	p, err := Connect(ctx, s.region(), k, s.RootCAs)
	return p, s.refusal(err)
}

// refusal makes a skip of what a relay that verifies its clients does with a key that nobody gave us.
func (s *session) refusal(err error) error {
	if errors.Is(err, ErrClosed) && errors.Is(err, io.EOF) && len(s.Keys) == 0 {
		return Skipped("relay refused our node key: it verifies its clients; give it keys that it knows")
	}
	return err
}

func checkDERPHandshake(ctx context.Context, s *session) string {
	if s.expired && !s.Insecure {
		must.Do(Skipped("needs tls/expiry: clients refuse the certificate"))
	}
	s.a = must.Get(s.connect(ctx, s.nodeKey(0)))
	s.serverKey = s.a.ServerPublicKey()
	return "server key " + s.serverKey.String()
}

// checkServerKey connects anew, four times after the handshake, and expects the key of the first time.
func checkServerKey(ctx context.Context, s *session) string {
	for i := 2; i <= 5; i++ {
		p, err := s.connect(ctx, s.nodeKey(1))
		if err != nil {
			fail("connection %d: %w", i, err)
		}
		k := p.ServerPublicKey()
		p.Close()
		if k != s.serverKey {
			fail("connection %d: server key %v, before it was %v", i, k, s.serverKey)
		}
	}
	return "the same over 5 connections"
}

func checkPing(ctx context.Context, s *session) string {
	if err := s.a.http.Ping(ctx); err != nil {
		fail("no pong: %w", err)
	}
	return ""
}

// thereAndBack expects that a packet of a size can be sent from a to b, and another back.
func thereAndBack(ctx context.Context, a, b *Peer, size int) string {
	if err := Relay(ctx, a, b, size); err != nil {
		fail("on the way there: %w", err)
	}
	if err := Relay(ctx, b, a, size); err != nil {
		fail("on the way back: %w", err)
	}
	return "there and back"
}

// checkRelay sends a packet there and back.
func checkRelay(ctx context.Context, s *session) string {
	s.b = must.Get(s.connect(ctx, s.nodeKey(1)))
	return thereAndBack(ctx, s.a, s.b, 1000)
}

func checkLarge(ctx context.Context, s *session) string {
	return strconv.Itoa(derp.MaxPacketSize) + " bytes " + thereAndBack(ctx, s.a, s.b, derp.MaxPacketSize)
}

// window is how many packets may be on the way in one direction. Derper keeps at most 32 for a client and drops what
// is more, and rightly so.
const window = 30

// checkMany sends half of the packets each way, at once, and expects every one of them, in order.
func checkMany(ctx context.Context, s *session) string {
	half := s.Packets / 2
	var there, back int
	var g errgroup.Group
	g.Go(func() (err error) { there, err = flood(ctx, s.Timeout, s.a, s.b, s.Packets-half); return err })
	g.Go(func() (err error) { back, err = flood(ctx, s.Timeout, s.b, s.a, half); return err })
	err := g.Wait()
	n := fmt.Sprintf("%d of %d packets came", there+back, s.Packets)
	if err != nil {
		fail("%s: %w", n, err)
	}
	return n
}

// flood sends n numbered packets and returns how many came, in order. One that takes longer than patience is lost.
func flood(ctx context.Context, patience time.Duration, from, to *Peer, n int) (came int, err error) {
	pkt := make([]byte, 200)
	for sent := 0; came < n; came++ {
		for ; sent < n && sent < came+window; sent++ {
			binary.BigEndian.PutUint64(pkt, uint64(sent))
			if err := from.Send(to.Public, pkt); err != nil {
				return came, err
			}
		}
		one, cancel := context.WithTimeout(ctx, patience)
		got, err := to.packet(one, from)
		cancel()
		if errors.Is(err, errNothing) && ctx.Err() != nil {
			return came, errors.New("out of time with none lost: a slow path, or a rate limit")
		}
		if err != nil {
			return came, fmt.Errorf("number %d is lost: %w", came, err)
		}
		if len(got.Data) != len(pkt) {
			return came, fmt.Errorf("%d bytes sent, %d came", len(pkt), len(got.Data))
		}
		if i := binary.BigEndian.Uint64(got.Data); i != uint64(came) {
			return came, fmt.Errorf("number %d came in place of %d", i, came)
		}
	}
	return came, nil
}

// checkUnknown sends to a node that cannot be there. Only a packet of the discovery protocol is worth an answer to
// derper, because that is what nodes look for each other with.
func checkUnknown(ctx context.Context, s *session) string {
	nobody := key.NewNode().Public()
	pkt := append([]byte(disco.Magic), make([]byte, 32+disco.NonceLen+1)...) // sender's key, nonce, and nothing said
	must.Do(s.a.Send(nobody, pkt))
	gone, err := Next(ctx, s.a, func(m derp.PeerGoneMessage) bool { return m.Peer == nobody })
	if err != nil {
		fail("no peer-gone for an unknown node: %w", err)
	}
	if gone.Reason != derp.PeerGoneReasonNotHere {
		fail("peer-gone for an unknown node has reason %d, not %d", gone.Reason, derp.PeerGoneReasonNotHere)
	}
	return "peer-gone"
}

// checkWebSocket relays between a browser's transport and the usual one.
func checkWebSocket(ctx context.Context, s *session) string {
	hc := &http.Client{Transport: &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		reg := s.region()
		c, _, _, err := newClient(reg, key.NewNode(), s.RootCAs).DialRegionTLS(ctx, reg)
		return c, err
	}}}
	ws, res, err := websocket.Dial(ctx, URL("https", s.Host, s.Port, "/derp"), &websocket.DialOptions{
		HTTPClient: hc, Subprotocols: []string{"derp"},
	})
	must.Do(err)
	defer ws.CloseNow()
	if p := ws.Subprotocol(); p != "derp" {
		fail("relay speaks %q over WebSocket (%s), not derp", p, res.Status)
	}
	k := s.nodeKey(1)
	if len(s.Keys) > 0 {
		s.b.Close() // a node is not connected twice
	}
	nc := wsconn.NetConn(context.Background(), ws, websocket.MessageBinary, "")
	defer context.AfterFunc(ctx, func() { ws.CloseNow() })()
	rw := bufio.NewReadWriter(bufio.NewReader(nc), bufio.NewWriter(nc))
	c := must.Get(derp.NewClient(k, nc, rw, logger.Discard, derp.IsProber(true)))
	if c.ServerPublicKey() != s.serverKey {
		fail("server key %v over WebSocket, %v otherwise", c.ServerPublicKey(), s.serverKey)
	}
	p, err := accepted(ctx, k, c, nc, nil)
	must.Do(s.refusal(err))
	defer p.Close()
	return thereAndBack(ctx, p, s.a, 1000)
}
