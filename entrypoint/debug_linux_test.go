package main

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"tailscale.com/types/key"
)

// tailnetEnv is the environment of a relay that joins the tailnet of a control server,
// and has the public address, as all of the machine.
func tailnetEnv(t testing.TB, derpPort int, server string) []string {
	return []string{
		fmt.Sprintf("ADDR=:%d", derpPort), fmt.Sprintf("HTTP_PORT=%d", freePort(t)), fmt.Sprintf("STUN_PORT=%d", freePort(t)),
		"HOSTNAME=" + public.String(), "TS_AUTHKEY=" + testKey, "TS_LOGIN_SERVER=" + server, "TS_HOSTNAME=relay",
	}
}

// The mistake it guards: a tailscaled that was started to verify clients opens to the
// tailnet what listens beside it, on loopback too. derper takes whoever comes from
// there for its operator and shows /debug/. Or it is closed, and verifies nobody.
func TestTailnetReachesNoPort(t *testing.T) {
	port := freePort(t)
	c := tailnet(t, port)
	n := newNetwork(t)
	s := start(t, t.TempDir(), tailnetEnv(t, port, c.BaseURL()))
	s.healthy(t)
	relay, a := relayNode(t, s, s.cmd.Process.Pid), startNode(t, c, n, "a")
	ips := meet(t, relay, a)
	a.ping(t, ips[0]) // there is a tunnel
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, to := range []netip.AddrPort{
		netip.AddrPortFrom(ips[0], uint16(port)),
		netip.AddrPortFrom(ips[1], uint16(port)),
		netip.AddrPortFrom(ips[0], portOf(t, l.Addr().String())),
	} {
		if a.reaches(t, relay, to) {
			t.Errorf("a node of the tailnet reaches %s", to)
		}
	}
	known, stranger := key.NewNode(), key.NewNode()
	join(c, known)
	eventually(t, time.Minute, func() error { return connect(t, s, known) })
	if err := connect(t, s, stranger); err == nil {
		t.Error("a stranger is let in")
	}
}
