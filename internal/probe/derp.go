package probe

import (
	"bufio"
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/disco"
	"tailscale.com/net/netmon"
	"tailscale.com/net/wsconn"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

var derpChecks = []check{
	{name: "derp/handshake", needs: []string{"tls/certificate"}, run: checkDERPHandshake},
	{name: "derp/server-key", needs: []string{"derp/handshake"}, run: checkServerKey},
	{name: "derp/ping", needs: []string{"derp/handshake"}, run: checkPing},
	{name: "derp/relay", needs: []string{"derp/handshake"}, run: checkRelay},
	{name: "derp/large", needs: []string{"derp/relay"}, run: checkLarge},
	{name: "derp/many", needs: []string{"derp/relay"}, long: true, run: checkMany},
	{name: "derp/unknown", needs: []string{"derp/handshake"}, run: checkUnknown},
	{name: "derp/websocket", needs: []string{"derp/relay"}, run: checkWebSocket},
}

// derpSession is the connections that the checks of DERP share.
type derpSession struct {
	serverKey key.NodePublic
	a, b      *peer
}

func (d *derpSession) close() {
	for _, p := range []*peer{d.a, d.b} {
		if p != nil {
			p.close()
		}
	}
}

// newKey returns the key of a client that is to be thrown away.
func (s *session) newKey() key.NodePrivate {
	if len(s.Keys) > 0 {
		return s.Keys[1]
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

// client returns a client of the relay that has not connected yet.
func (s *session) client(k key.NodePrivate, reg *tailcfg.DERPRegion) *derphttp.Client {
	c := derphttp.NewRegionClient(k, logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return reg })
	c.IsProber = true
	if s.RootCAs != nil {
		c.TLSConfig = &tls.Config{RootCAs: s.RootCAs}
	}
	return c
}

// conn is what derp.Client and derphttp.Client have in common.
type conn interface {
	Send(key.NodePublic, []byte) error
	Recv() (derp.ReceivedMessage, error)
	SendPong([8]byte) error
}

// peer is a connected client. Its messages come out of a channel, which is closed when the connection is, so that
// every wait can end with a context.
type peer struct {
	conn
	http   *derphttp.Client // nil over WebSocket
	public key.NodePublic
	msgs   chan derp.ReceivedMessage
	err    atomic.Pointer[error] // why msgs was closed
	stop   context.CancelFunc
}

func newPeer(k key.NodePrivate, c conn, closer io.Closer) *peer {
	ctx, cancel := context.WithCancel(context.Background())
	p := &peer{conn: c, public: k.Public(), msgs: make(chan derp.ReceivedMessage, 64)}
	p.stop = func() { cancel(); closer.Close() }
	go func() {
		defer close(p.msgs)
		for {
			m, err := c.Recv()
			if err != nil {
				p.err.Store(&err)
				return
			}
			switch t := m.(type) {
			case derp.PingMessage:
				c.SendPong(t)
				continue
			case derp.ReceivedPacket:
				t.Data = bytes.Clone(t.Data) // it is the client's until the next call only
				m = t
			}
			select {
			case p.msgs <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return p
}

func (p *peer) close() { p.stop() }

// next returns the next message that is of type M and that want accepts, passing over others.
func next[M derp.ReceivedMessage](ctx context.Context, p *peer, want func(M) bool) (m M, err error) {
	for {
		select {
		case got, ok := <-p.msgs:
			if !ok {
				return m, fmt.Errorf("relay closed the connection: %w", *p.err.Load())
			}
			if t, ok := got.(M); ok && (want == nil || want(t)) {
				return t, nil
			}
		case <-ctx.Done():
			return m, errNothing
		}
	}
}

var errNothing = errors.New("nothing came in time")

// connect shakes hands: it returns once the relay has accepted the client.
func (s *session) connect(ctx context.Context, k key.NodePrivate) (*peer, error) {
	c := s.client(k, s.region())
	if err := c.Connect(ctx); err != nil {
		c.Close()
		return nil, err
	}
	// From here on a lost connection is a result: derphttp must not heal it behind our back.
	c.BaseContext = func() context.Context {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx
	}
	p := newPeer(k, c, c)
	p.http = c
	return p, s.accepted(ctx, p)
}

// accepted waits for the first message to a client, which only one that was let in can get, and only from the owner
// of the server key can it be read.
func (s *session) accepted(ctx context.Context, p *peer) error {
	_, err := next[derp.ServerInfoMessage](ctx, p, nil)
	if err == nil {
		return nil
	}
	p.close()
	if errors.Is(err, io.EOF) && len(s.Keys) == 0 {
		// Just what derper does with a client that it does not know.
		return skip("relay refused our node key: it verifies its clients; give it keys that it knows")
	}
	return err
}

func checkDERPHandshake(ctx context.Context, s *session) (string, error) {
	if s.tls.expired && !s.Insecure {
		return "", skip("needs tls/expiry: clients refuse the certificate")
	}
	k := key.NewNode()
	if len(s.Keys) > 0 {
		k = s.Keys[0]
	}
	a, err := s.connect(ctx, k)
	if err != nil {
		return "", err
	}
	s.derp.a, s.derp.serverKey = a, a.http.ServerPublicKey()
	return "server key " + s.derp.serverKey.String(), nil
}

// checkServerKey connects anew, four times after the handshake, and expects the key of the first time.
func checkServerKey(ctx context.Context, s *session) (string, error) {
	for i := 2; i <= 5; i++ {
		p, err := s.connect(ctx, s.newKey())
		if err != nil {
			return "", fmt.Errorf("connection %d: %w", i, err)
		}
		k := p.http.ServerPublicKey()
		p.close()
		if k != s.derp.serverKey {
			return "", fmt.Errorf("connection %d: server key %v, before it was %v", i, k, s.derp.serverKey)
		}
	}
	return "the same over 5 connections", nil
}

func checkPing(ctx context.Context, s *session) (string, error) {
	if err := s.derp.a.http.Ping(ctx); err != nil {
		return "", fmt.Errorf("no pong: %w", err)
	}
	return "", nil
}

// checkRelay sends a packet there and back.
func checkRelay(ctx context.Context, s *session) (string, error) {
	b, err := s.connect(ctx, s.newKey())
	if err != nil {
		return "", err
	}
	s.derp.b = b
	return "there and back", s.thereAndBack(ctx, s.derp.a, b, 1000)
}

func checkLarge(ctx context.Context, s *session) (string, error) {
	return strconv.Itoa(derp.MaxPacketSize) + " bytes there and back", s.thereAndBack(ctx, s.derp.a, s.derp.b, derp.MaxPacketSize)
}

func (s *session) thereAndBack(ctx context.Context, a, b *peer, size int) error {
	pkt := make([]byte, size)
	crand.Read(pkt)
	for _, way := range []struct {
		from, to *peer
		name     string
	}{{a, b, "there"}, {b, a, "back"}} {
		if err := way.from.Send(way.to.public, pkt); err != nil {
			return fmt.Errorf("on the way %s: %w", way.name, err)
		}
		got, err := next(ctx, way.to, func(p derp.ReceivedPacket) bool { return p.Source == way.from.public })
		if err != nil {
			return fmt.Errorf("on the way %s: %w", way.name, err)
		}
		if !bytes.Equal(got.Data, pkt) {
			return fmt.Errorf("on the way %s: %d bytes sent, other %d came", way.name, len(pkt), len(got.Data))
		}
	}
	return nil
}

// window is how many packets may be on the way in one direction. Derper keeps at most 32 for a client and drops what
// is more, and rightly so.
const window = 30

// checkMany sends half of the packets each way, at once, and expects every one of them, in order.
func checkMany(ctx context.Context, s *session) (string, error) {
	half := s.Packets / 2
	var done [2]int
	var g errgroup.Group
	g.Go(func() (err error) {
		done[0], err = flood(ctx, s.Timeout, s.derp.a, s.derp.b, s.Packets-half)
		return err
	})
	g.Go(func() (err error) { done[1], err = flood(ctx, s.Timeout, s.derp.b, s.derp.a, half); return err })
	err := g.Wait()
	n := fmt.Sprintf("%d of %d packets came", done[0]+done[1], s.Packets)
	if err != nil {
		return "", fmt.Errorf("%s: %w", n, err)
	}
	return n, nil
}

// flood sends n numbered packets and returns how many came, in order. One that takes longer than patience is lost.
func flood(ctx context.Context, patience time.Duration, from, to *peer, n int) (came int, err error) {
	pkt := make([]byte, 200)
	for sent := 0; came < n; came++ {
		for ; sent < n && sent < came+window; sent++ {
			binary.BigEndian.PutUint64(pkt, uint64(sent))
			if err := from.Send(to.public, pkt); err != nil {
				return came, err
			}
		}
		one, cancel := context.WithTimeout(ctx, patience)
		got, err := next(one, to, func(p derp.ReceivedPacket) bool { return p.Source == from.public })
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
		if i := int(binary.BigEndian.Uint64(got.Data)); i != came {
			return came, fmt.Errorf("number %d came in place of %d", i, came)
		}
	}
	return came, nil
}

// checkUnknown sends to a node that cannot be there. Only a packet of the discovery protocol is worth an answer to
// derper, because that is what nodes look for each other with.
func checkUnknown(ctx context.Context, s *session) (string, error) {
	nobody := key.NewNode().Public()
	pkt := append([]byte(disco.Magic), make([]byte, 32+disco.NonceLen+1)...) // sender's key, nonce, and nothing said
	if err := s.derp.a.Send(nobody, pkt); err != nil {
		return "", err
	}
	gone, err := next(ctx, s.derp.a, func(m derp.PeerGoneMessage) bool { return m.Peer == nobody })
	if err != nil {
		return "", fmt.Errorf("no peer-gone for an unknown node: %w", err)
	}
	if gone.Reason != derp.PeerGoneReasonNotHere {
		return "", fmt.Errorf("peer-gone for an unknown node has reason %d, not %d", gone.Reason, derp.PeerGoneReasonNotHere)
	}
	return "peer-gone", nil
}

// checkWebSocket relays between a browser's transport and the usual one.
func checkWebSocket(ctx context.Context, s *session) (string, error) {
	hc := &http.Client{Transport: &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		reg := s.region()
		c, _, _, err := s.client(key.NewNode(), reg).DialRegionTLS(ctx, reg)
		return c, err
	}}}
	ws, res, err := websocket.Dial(ctx, s.url("https", s.Port, "/derp"), &websocket.DialOptions{
		HTTPClient: hc, Subprotocols: []string{"derp"},
	})
	if err != nil {
		return "", err
	}
	defer ws.CloseNow()
	if p := ws.Subprotocol(); p != "derp" {
		return "", fmt.Errorf("relay speaks %q over WebSocket (%s), not derp", p, res.Status)
	}
	k := s.newKey()
	if len(s.Keys) > 0 {
		s.derp.b.close() // a node is not connected twice
	}
	nc := wsconn.NetConn(context.Background(), ws, websocket.MessageBinary, "")
	stop := context.AfterFunc(ctx, func() { ws.CloseNow() })
	defer stop()
	c, err := derp.NewClient(k, nc, bufio.NewReadWriter(bufio.NewReader(nc), bufio.NewWriter(nc)), logger.Discard, derp.IsProber(true))
	if err != nil {
		return "", err
	}
	if c.ServerPublicKey() != s.derp.serverKey {
		return "", fmt.Errorf("server key %v over WebSocket, %v otherwise", c.ServerPublicKey(), s.derp.serverKey)
	}
	p := newPeer(k, c, nc)
	defer p.close()
	if err := s.accepted(ctx, p); err != nil {
		return "", err
	}
	return "there and back", s.thereAndBack(ctx, p, s.derp.a, 1000)
}
