package suite

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/derp"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/tlstest"
	"tailscale.com/types/key"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
)

// networkCases are about several containers.
var networkCases = []Case{
	{Name: "mesh", Needs: []string{"MESH_WITH"}, run: caseMesh},
	{Name: "end-to-end", run: caseEndToEnd},
}

// caseMesh meshes two relays and has a client of one reach a client of the other. They trust each other by a
// certificate authority, as they would with certificates of Let's Encrypt.
func caseMesh(ctx context.Context, b *bed) {
	names := []string{"a.example", "b.example"}
	// Each relay needs the other's address before that one runs: a port of ours is that.
	var doors []*door
	for range names {
		doors = append(doors, b.door())
	}
	var relays []*box
	for i, name := range names {
		dir := b.volume(name)
		for file, data := range map[string][]byte{
			"ca.pem":      tlstest.TestRootCA(),
			name + ".crt": tlstest.Domain(name).CertPEM(),
			name + ".key": tlstest.Domain(name).KeyPEM(),
			"mesh.key":    []byte(strings.Repeat("0123456789abcdef", 4)),
		} {
			must.Do(os.WriteFile(filepath.Join(dir, file), data, 0o644))
		}
		other := 1 - i
		relays = append(relays, b.relay(ctx, container.Spec{
			Reach:   []netip.AddrPort{doors[other].at},
			Hosts:   map[string]netip.Addr{names[other]: loopback(0).Addr()},
			Volumes: []container.Volume{{Host: dir, Container: "/certs"}},
		}, open, "HOSTNAME="+name, "CERT_DIR=/certs", "SSL_CERT_FILE=/certs/ca.pem",
			"MESH_PSK_FILE=/certs/mesh.key", fmt.Sprintf("MESH_WITH=%s:%d", names[other], doors[other].at.Port())))
	}
	// Only now: derper waits five seconds before it tries again to reach one that is not there.
	for i, c := range relays {
		c.ready(ctx)
		doors[i].open(must.Get(c.Addr(httpsPort)))
	}
	// It takes a moment until the relays have found each other.
	b.eventually(ctx, func() { acrossMesh(ctx, relays) })
	for i, c := range relays {
		n := c.counters(ctx)
		if n["packets_forwarded_out"] < 1 || n["packets_forwarded_in"] < 1 {
			fail("%s forwarded %v packets, and got %v: they took another way", names[i], n["packets_forwarded_out"], n["packets_forwarded_in"])
		}
	}
}

// acrossMesh connects a client to each relay and has them talk.
func acrossMesh(ctx context.Context, relays []*box) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var clients []*probe.Peer
	for _, c := range relays {
		d := must.Get(c.connect(ctx, key.NewNode()))
		defer d.Close()
		clients = append(clients, d)
	}
	for i := range clients {
		if err := acrossRelays(ctx, clients[i], clients[1-i]); err != nil {
			fail("from a client of %s to one of %s: %w", relays[i].name, relays[1-i].name, err)
		}
	}
}

// acrossRelays sends a packet until it comes: a relay drops what is for a client that the other has not told it about.
func acrossRelays(ctx context.Context, from, to *probe.Peer) error {
	data := make([]byte, 1000)
	rand.Read(data)
	same := func(got derp.ReceivedPacket) bool { return got.Source == from.Public && bytes.Equal(got.Data, data) }
	for {
		if err := from.Send(to.Public, data); err != nil {
			return err
		}
		once, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		_, err := probe.Next(once, to, same)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, probe.ErrClosed) {
			return err
		}
	}
}

// door is a port of this machine that leads to a container which is started later.
type door struct {
	at     netip.AddrPort
	opened chan struct{} // closed once to is known
	to     netip.AddrPort
}

// door makes one, which keeps who comes waiting until it is open.
func (b *bed) door() *door {
	l := must.Get(net.Listen("tcp4", loopback(0).String()))
	d := &door{at: netip.MustParseAddrPort(l.Addr().String()), opened: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	b.onClose(func() error {
		cancel()
		err := l.Close()
		all.Wait()
		return err
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { d.lead(ctx, c) })
		}
	})
	return d
}

// open says where the door leads.
func (d *door) open(to netip.AddrPort) {
	d.to = to
	close(d.opened)
}

func (d *door) lead(ctx context.Context, here net.Conn) {
	defer here.Close()
	select {
	case <-d.opened:
	case <-ctx.Done():
		return
	}
	there, err := new(net.Dialer).DialContext(ctx, "tcp", d.to.String())
	if err != nil {
		return
	}
	defer there.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
		go func() {
			io.Copy(way[0], way[1])
			cancel() // who hangs up does so in both directions
		}()
	}
	<-ctx.Done()
}

// peer is a tailscaled of the image in a container of its own.
type peer struct {
	*box
	local.Client
}

// tailscaled starts one, which joins the tailnet. It has no network but what it may reach.
func (b *bed) tailscaled(ctx context.Context, control, name string, reach ...netip.AddrPort) *peer {
	dir := b.volume(name)
	config := must.Get(json.Marshal(map[string]any{
		"version": "alpha0", "enabled": true, "acceptDNS": false, "acceptRoutes": false,
		"authKey": authKey, "serverURL": control, "hostname": name,
	}))
	must.Do(os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644))
	c := b.start(ctx, container.Spec{
		Args: []string{"tailscaled", "--tun=userspace-networking", "--state=mem:", "--port=0",
			"--socket=/run/peer/tailscaled.sock", "--config=/run/peer/config.json"},
		Env:     []string{"TS_DEBUG_ALWAYS_USE_DERP=true"},
		Volumes: []container.Volume{{Host: dir, Container: "/run/peer"}}, Reach: reach,
	})
	c.address()
	return &peer{c, local.Client{
		Socket: filepath.Join(dir, "tailscaled.sock"), // for others
		Dial:   dialSocket(dir, "tailscaled.sock"), OmitAuth: true,
	}}
}

// becomes waits until the tailscaled is in one of these states.
func (p *peer) becomes(ctx context.Context, states ...string) {
	p.bed.eventually(ctx, func() {
		if st := must.Get(p.Status(ctx)); !slices.Contains(states, st.BackendState) {
			fail("tailscaled is in state %s, wants %v", st.BackendState, states)
		}
	})
}

// caseEndToEnd has two tailscaled reach each other. Each is in a network without a way out but to the control server
// and to the relay, so whatever passes between them has passed the relay.
func caseEndToEnd(ctx context.Context, b *bed) {
	relay := b.healthy(ctx, container.Spec{}, open)
	n := relay.derpMap(ctx)
	at := must.Get(relay.Addr(httpsPort))
	s, controlAt := b.control(&tailcfg.DERPNode{
		HostName: n.HostName, IPv4: n.HostName, IPv6: "none", CertName: n.CertName, DERPPort: int(at.Port()), STUNPort: -1,
	})
	s.AllNodesSameUser = true
	alice := b.tailscaled(ctx, s.BaseURL(), "alice", controlAt, at)
	bob := b.tailscaled(ctx, s.BaseURL(), "bob", controlAt, at)
	alice.becomes(ctx, "Running")
	bob.becomes(ctx, "Running")
	st := must.Get(bob.StatusWithoutPeers(ctx))
	if len(st.TailscaleIPs) == 0 {
		fail("bob has no address in the tailnet")
	}
	ip := st.TailscaleIPs[0]
	before := relay.counters(ctx)
	b.eventually(ctx, func() {
		pctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		r, err := alice.Ping(pctx, ip, tailcfg.PingDisco)
		switch {
		case err != nil:
			fail("ping: %w", err)
		case r.Err != "":
			fail("ping: %s", r.Err)
		case r.DERPRegionID != 900 || r.Endpoint != "":
			fail("ping: took another way: region %d, endpoint %q", r.DERPRegionID, r.Endpoint)
		}
		b.note = fmt.Sprintf("ping %.1f ms", r.LatencySeconds*1000)
	})
	// Into the tunnel and back: what WireGuard carries, not only what finds its ways.
	for range tunnelled {
		r, err := alice.Ping(ctx, ip, tailcfg.PingTSMP)
		if err == nil && r.Err != "" {
			err = errors.New(r.Err)
		}
		if err != nil {
			fail("ping through the tunnel: %w", err)
		}
	}
	after := relay.counters(ctx)
	packets := after["packets_sent"] - before["packets_sent"]
	if packets < 2*tunnelled {
		fail("the relay has passed %.0f packets on for %d pings and their answers: they took another way", packets, tunnelled)
	}
	b.note += fmt.Sprintf(", %d pings through the tunnel in %.0f packets of the relay", tunnelled, packets)
}

// tunnelled is how many pings pass through the tunnel of two nodes.
const tunnelled = 100

func loopback(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
}
