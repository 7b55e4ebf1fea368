package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"tailscale.com/net/tsaddr"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

// The mistake it guards: a peer relay that nobody can use. Two devices that reach the
// machine of the relay only, at an address of which the container knows nothing, have
// to talk through it; and the grant that the documentation tells to paste has to be
// all that they need, because any other opens the relay's own ports, /debug/ too.
func TestPeerRelay(t *testing.T) {
	port := freePort(t)
	c := tailnet(t, port)
	networks := [2]network{newNetwork(t), newNetwork(t)}
	env := tailnetEnv(t, port, c.BaseURL())
	endpoint := netip.AddrPortFrom(public, uint16(freePort(t)))
	volume := t.TempDir()

	// Without a peer relay, tailscaled keeps that it is to let nothing in.
	before := runContainer(t, volume, 65532, "read-only", env)
	before.healthy(t, "ok: stun, https, derp, verification")
	before.stop(t)

	env = append(env, fmt.Sprintf("PEER_RELAY_PORT=%d", endpoint.Port()), "PEER_RELAY_ENDPOINTS="+endpoint.String())
	r := runContainer(t, volume, 65532, "read-only", env)
	r.healthy(t, "ok: stun, https, derp, verification, peer relay")
	relay := relayNode(t, r.started, r.pid1(t))
	a, b := startNode(t, c, networks[0], "a"), startNode(t, c, networks[1], "b")
	ips := meet(t, relay, a, b)

	// A policy that allows everything does so.
	debug := netip.AddrPortFrom(ips[0], uint16(port))
	if code := get(t, a, debug, "/debug/"); code != http.StatusOK {
		t.Errorf("/debug/ answers a node of the tailnet with %d; the documentation says that it is open", code)
	}
	grantPeerRelayOnly(t, c, relay)
	debug = netip.AddrPortFrom(ips[1], debug.Port()) // the log has nothing of it yet
	eventually(t, time.Minute, func() error {
		if a.reaches(t, relay, debug) {
			return errors.New("a node that may only use the peer relay reaches derper")
		}
		return nil
	})

	talk(t, a, b, networks[1].echo(t), endpoint)
	if found := regexp.MustCompile(`(?m)^entrypoint: (warning|NO CLIENT).*|relayserver: error.*`).FindString(r.log.String()); found != "" {
		t.Errorf("the log complains: %s", found)
	}
	eventually(t, time.Minute, func() error {
		s, err := relay.StatusWithoutPeers(t.Context())
		if err == nil && len(s.Health) > 0 {
			err = fmt.Errorf("the relay's tailscaled complains: %q", s.Health)
		}
		return err
	})
	r.healthy(t, "ok: stun, https, derp, verification, peer relay")
}

// talk makes two nodes exchange data until both say that they do so through the peer
// relay at the endpoint. When the first try to find it is lost, tailscaled makes the
// next after 30 seconds.
func talk(t *testing.T, a, b *node, port uint16, endpoint netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := a.UserDial(ctx, "tcp", meet(t, b, a)[0].String(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, time.Minute, func() error {
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, len("hello"))
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "hello" {
			t.Fatalf("%q: %v", answer, err)
		}
		for _, d := range [][2]*node{{a, b}, {b, a}} {
			p, err := d[0].peer(d[1].name)
			if err != nil {
				return err
			}
			if p.CurAddr != "" || !strings.HasPrefix(p.PeerRelay, endpoint.String()+":vni:") {
				return fmt.Errorf("%s does not reach %s through the peer relay: %+v", d[0].name, d[1].name, p)
			}
		}
		return nil
	})
}

// get asks derper through the tailnet, and returns the status code.
func get(t testing.TB, from *node, to netip.AddrPort, path string) int {
	t.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // self-signed
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return from.UserDial(ctx, network, to.Addr().String(), to.Port())
		},
	}}
	r, err := client.Get(fmt.Sprintf("https://%s%s", to, path))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	return r.StatusCode
}

// grantPeerRelayOnly gives the relay what a control server makes of a policy without
// any other rule for it than
//
//	{"src": ["*"], "dst": ["tag:relay"], "app": {"tailscale.com/cap/relay": []}}
func grantPeerRelayOnly(t testing.TB, c *testcontrol.Server, relay *node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := relay.StatusWithoutPeers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	grant := tailcfg.CapGrant{
		Dsts:   []netip.Prefix{tsaddr.AllIPv4(), tsaddr.AllIPv6()},
		CapMap: tailcfg.PeerCapMap{tailcfg.PeerCapabilityRelay: nil},
	}
	policy := &tailcfg.MapResponse{PacketFilter: []tailcfg.FilterRule{{SrcIPs: []string{"*"}, CapGrant: []tailcfg.CapGrant{grant}}}}
	if !c.AddRawMapResponse(s.Self.PublicKey, policy) {
		t.Fatal("the relay is not connected to its control server")
	}
}
