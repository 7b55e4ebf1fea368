package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
	"tailscale.com/util/backoff"
)

// traffic is that of clients which send to each other all the time, through the one
// relay that they have.
type traffic struct {
	region   *tailcfg.DERPRegion
	tls      *tls.Config
	talkers  []*talker
	round    atomic.Uint64 // is in each packet: tells those that were sent later
	received atomic.Int64  // packets
}

// A talker is a client. It connects again as Tailscale's do.
// Source: wgengine/magicsock, runDerpReader.
type talker struct {
	key    key.NodePrivate
	client *derphttp.Client

	mu       sync.Mutex
	admitted bool                      // the relay has sent what it sends only to those who may stay
	drops    []drop                    // how often it was admitted, and was no more
	heard    map[key.NodePublic]uint64 // the last round of each
}

// A drop is the end of a connection, and how long the client was away; zero while it
// is.
type drop struct {
	err  error
	at   time.Time
	away time.Duration
}

// startTraffic has clients with these keys send until the test ends.
func startTraffic(t *testing.T, region *tailcfg.DERPRegion, config *tls.Config, keys []key.NodePrivate) *traffic {
	f := &traffic{region: region, tls: config}
	f.round.Store(1)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, k := range keys {
		c := &talker{key: k, client: f.connect(k), heard: make(map[key.NodePublic]uint64)}
		f.talkers = append(f.talkers, c)
		running.Go(func() { f.receive(ctx, c) })
		running.Go(func() { f.send(ctx, c, keys) })
	}
	t.Cleanup(func() {
		cancel()
		for _, c := range f.talkers {
			c.client.Close()
		}
		running.Wait()
	})
	return f
}

func (f *traffic) connect(k key.NodePrivate) *derphttp.Client {
	c := derphttp.NewRegionClient(k, logger.Discard, netmon.NewStatic(), func() *tailcfg.DERPRegion { return f.region })
	c.TLSConfig = f.tls
	c.SetCanAckPings(true)
	return c
}

// receive also connects.
func (f *traffic) receive(ctx context.Context, c *talker) {
	pause := backoff.NewBackoff("derp", logger.Discard, 5*time.Second)
	for ctx.Err() == nil {
		m, err := c.client.Recv()
		if err == nil {
			f.received.Add(1)
		}
		c.note(m, err)
		if p, ok := m.(derp.PingMessage); ok {
			c.client.SendPong(p) //nolint:errcheck // Recv fails, too
		}
		pause.BackOff(ctx, err)
	}
}

func (c *talker) note(m derp.ReceivedMessage, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m := m.(type) {
	case nil:
		if c.admitted && !errors.Is(err, derphttp.ErrClientClosed) {
			c.drops = append(c.drops, drop{err: err, at: time.Now()})
		}
		c.admitted = false
	case derp.ServerInfoMessage:
		if c.admitted { // only the sender noticed
			c.drops = append(c.drops, drop{err: errors.New("a packet could not be sent"), at: time.Now()})
		}
		if n := len(c.drops); n > 0 {
			c.drops[n-1].away = time.Since(c.drops[n-1].at)
		}
		c.admitted = true
	case derp.ReceivedPacket:
		c.heard[m.Source] = max(c.heard[m.Source], binary.BigEndian.Uint64(m.Data))
	}
}

func (f *traffic) send(ctx context.Context, c *talker, to []key.NodePrivate) {
	packet := make([]byte, 1200)
	often := time.NewTicker(20 * time.Millisecond)
	defer often.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		binary.BigEndian.PutUint64(packet, f.round.Load())
		if k := to[i%len(to)]; !k.Equal(c.key) {
			c.client.Send(k.Public(), packet) //nolint:errcheck // Recv fails, too
		}
		select {
		case <-often.C:
		case <-ctx.Done():
		}
	}
}

// flows says whether each client hears each other one now, and was dropped as often as
// the argument says: neither more nor less.
func (f *traffic) flows(t *testing.T, drops int) {
	t.Helper()
	eventually(t, time.Minute, func() error { return f.check(drops, 0) })
	round := f.round.Add(1)
	eventually(t, time.Minute, func() error { return f.check(drops, round) })
}

func (f *traffic) check(drops int, round uint64) error {
	for i, c := range f.talkers {
		c.mu.Lock()
		admitted, dropped, last := c.admitted, len(c.drops), drop{}
		if dropped > 0 {
			last = c.drops[dropped-1]
		}
		deaf := slices.IndexFunc(f.talkers, func(o *talker) bool { return o != c && c.heard[o.key.Public()] < round })
		c.mu.Unlock()
		switch {
		case dropped != drops:
			return fmt.Errorf("client %d was dropped %d times, derper ended %d times; the last was at %v: %v", i, dropped, drops, last.at.Format(time.StampMilli), last.err)
		case !admitted:
			return fmt.Errorf("client %d is not connected again since %v: %v", i, last.at.Format(time.StampMilli), last.err)
		case deaf >= 0:
			return fmt.Errorf("client %d hears nothing of client %d", i, deaf)
		}
	}
	return nil
}

// drops is how often clients were dropped.
func (f *traffic) drops() (n int) {
	for _, c := range f.talkers {
		c.mu.Lock()
		n += len(c.drops)
		c.mu.Unlock()
	}
	return n
}

// admits says whether the relay takes a client that connects now.
func (f *traffic) admits(k key.NodePrivate) error {
	c := f.connect(k)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	m, err := c.Recv()
	if _, ok := m.(derp.ServerInfoMessage); !ok {
		return fmt.Errorf("not admitted: %T, %w", m, err)
	}
	return nil
}
