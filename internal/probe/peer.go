package probe

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// newClient returns a client of a relay that has not connected yet. It trusts roots besides the system's.
func newClient(reg *tailcfg.DERPRegion, k key.NodePrivate, roots *x509.CertPool) *derphttp.Client {
	c := derphttp.NewRegionClient(k, logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return reg })
	c.IsProber = true
	if roots != nil {
		c.TLSConfig = &tls.Config{RootCAs: roots}
	}
	return c
}

// conn is what derp.Client and derphttp.Client have in common.
type conn interface {
	Send(key.NodePublic, []byte) error
	Recv() (derp.ReceivedMessage, error)
	SendPong([8]byte) error
	ServerPublicKey() key.NodePublic
}

// A Peer is a client that the relay has let in. Its messages come out of a channel, which is closed when the connection
// is, so that every wait can end with a context.
type Peer struct {
	conn
	http   *derphttp.Client // nil over WebSocket
	Public key.NodePublic
	msgs   chan derp.ReceivedMessage
	err    atomic.Pointer[error] // why msgs was closed
	Close  func()                // ends the connection
}

// Connect shakes hands with the one relay of a region: it returns once the relay has accepted the client. The error is
// [ErrClosed] if it hung up after the handshake, as derper does with a client that it does not know.
func Connect(ctx context.Context, reg *tailcfg.DERPRegion, k key.NodePrivate, roots *x509.CertPool) (*Peer, error) {
	c := newClient(reg, k, roots)
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
	return accepted(ctx, k, c, c, c)
}

// accepted waits for the first message to a client, which only one that was let in can get, and only from the owner
// of the server key can it be read.
func accepted(ctx context.Context, k key.NodePrivate, c conn, closer io.Closer, http *derphttp.Client) (*Peer, error) {
	pctx, cancel := context.WithCancel(context.Background())
	p := &Peer{conn: c, http: http, Public: k.Public(), msgs: make(chan derp.ReceivedMessage, 64)}
	p.Close = func() { cancel(); closer.Close() }
	go p.receive(pctx)
	if _, err := Next[derp.ServerInfoMessage](ctx, p, nil); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Peer) receive(ctx context.Context) {
	defer close(p.msgs)
	for {
		m, err := p.Recv()
		if err != nil {
			p.err.Store(&err)
			return
		}
		switch t := m.(type) {
		case derp.PingMessage:
			p.SendPong(t)
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
}

var (
	// ErrClosed is what becomes of a client that the relay has no use for.
	ErrClosed  = errors.New("relay closed the connection")
	errNothing = errors.New("nothing came in time")
)

// Next returns the next message that is of type M and that want accepts, passing over others.
func Next[M derp.ReceivedMessage](ctx context.Context, p *Peer, want func(M) bool) (m M, err error) {
	for {
		select {
		case got, ok := <-p.msgs:
			if !ok {
				return m, fmt.Errorf("%w: %w", ErrClosed, *p.err.Load())
			}
			if t, ok := got.(M); ok && (want == nil || want(t)) {
				return t, nil
			}
		case <-ctx.Done():
			return m, errNothing
		}
	}
}

// packet returns the next packet from a peer.
func (p *Peer) packet(ctx context.Context, from *Peer) (derp.ReceivedPacket, error) {
	return Next(ctx, p, func(got derp.ReceivedPacket) bool { return got.Source == from.Public })
}

// Relay sends a packet from one peer to another and waits for it.
func Relay(ctx context.Context, from, to *Peer, size int) error {
	sent := make([]byte, size)
	crand.Read(sent)
	if err := from.Send(to.Public, sent); err != nil {
		return err
	}
	got, err := to.packet(ctx, from)
	if err == nil && !bytes.Equal(got.Data, sent) {
		err = fmt.Errorf("%d bytes sent, other %d came", size, len(got.Data))
	}
	return err
}
