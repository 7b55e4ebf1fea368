package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"tailscale.com/client/local"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

// public is the address at which nodes reach the machine that the tests run on. It is
// on none of its network cards, as that of a container's host is on none of the
// container's, and a documentation address as far as anybody else is concerned.
var public = netip.MustParseAddr("203.0.113.1")

// tailnet starts a control server at the public address. The tailnet's relay is the one
// under test, at the given port, without STUN: nobody finds an address by himself.
func tailnet(t testing.TB, derpPort int) *testcontrol.Server {
	t.Helper()
	underTest(t, "tailscaled") // the address is for the tests' own network only
	if err := addAddress("lo", single(public)); err != nil {
		t.Fatal(err)
	}
	c := control(t, []string{fmt.Sprintf("ADDR=:%d", derpPort), "STUN_PORT=-1"})
	node := c.DERPMap.Regions[900].Nodes[0]
	node.HostName, node.IPv4 = public.String(), public.String()
	c.AllOnline, c.PeerRelayGrants = true, true
	l, err := net.Listen("tcp", netip.AddrPortFrom(public, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	c.HTTPTestServer = httptest.NewUnstartedServer(c)
	c.HTTPTestServer.Listener.Close()
	c.HTTPTestServer.Listener = l
	c.HTTPTestServer.Start()
	t.Cleanup(c.HTTPTestServer.Close)
	return c
}

// A network is one of its own, with a cable to the tests'.
type network struct {
	namespace *os.File
}

var networks atomic.Int32 // how many there were

// newNetwork makes a network that reaches the public address and nothing else, and
// that nothing reaches but the tests' network.
func newNetwork(t testing.TB) network {
	t.Helper()
	var n network
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		n.namespace, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatalf("make a network: %v", err)
	}
	t.Cleanup(func() { n.namespace.Close() }) // with the last process in it, the network ends
	i := networks.Add(1)
	here, there := fmt.Sprintf("node%d", i), "eth0"
	ip := netip.AddrFrom4([4]byte{198, 18, 0, byte(i)})
	if err := cable(here, there, attribute(unix.IFLA_NET_NS_FD, number(nil, uint32(n.namespace.Fd())))); err != nil {
		t.Fatal(err)
	}
	if err := addRoute(here, single(ip), from(public)); err != nil {
		t.Fatal(err)
	}
	err = n.do(func() error {
		if err := up("lo"); err != nil {
			return err
		}
		if err := up(there); err != nil {
			return err
		}
		if err := addAddress(there, single(ip)); err != nil {
			return err
		}
		return addRoute(there, single(public), from(ip))
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// single is the prefix that has one address only.
func single(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }

// from is the attribute of a route whose packets come from an address.
func from(ip netip.Addr) string { return attribute(unix.RTA_PREFSRC, string(ip.AsSlice())) }

// do runs f in the network: the sockets and processes that it makes are there.
func (n network) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it, whatever f does to the thread.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the runtime then ends the thread
		result <- f()
	}()
	return <-result
}

// echo answers with what it gets, on a loopback port of the network, until the test
// ends.
func (n network) echo(t testing.TB) (port uint16) {
	t.Helper()
	var l net.Listener
	if err := n.do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return portOf(t, l.Addr().String())
}

func portOf(t testing.TB, address string) uint16 {
	t.Helper()
	p, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return p.Port()
}

// A node is a tailscaled of the tailnet, and how to ask it.
type node struct {
	*local.Client
	name string
	log  *logBuffer
}

// startNode starts a tailscaled in a network, as a device of somebody else, and ends it
// with the test.
func startNode(t testing.TB, c *testcontrol.Server, n network, name string) *node {
	t.Helper()
	dir := t.TempDir()
	d := &node{Client: &local.Client{Socket: filepath.Join(dir, "sock"), UseSocketOnly: true}, name: name, log: new(logBuffer)}
	config, err := json.Marshal(map[string]string{"version": "alpha0", "serverURL": c.BaseURL(), "authKey": testKey, "hostname": name})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(underTest(t, "device/tailscaled"), "--tun=userspace-networking", "--port=0", "--statedir="+dir, "--socket="+d.Socket, "--config="+file)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(baseEnv(dir), "TS_LOGS_DIR="+dir), d.log, d.log
	if err := n.do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(stopLimit, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, d.log)
		}
	})
	return d
}

// relayNode is the tailscaled beside a relay, which the tailnet knows as relay. The
// process is the entrypoint.
func relayNode(t testing.TB, s *started, pid int) *node {
	t.Helper()
	daemon := childOf(t, pid, "tailscaled")
	socket, from := socketOf(t, daemon), "cwd"
	if filepath.IsAbs(socket) {
		from = "root"
	}
	socket = filepath.Join(fmt.Sprintf("/proc/%d", daemon), from, socket)
	return &node{Client: &local.Client{Socket: socket, UseSocketOnly: true}, name: "relay", log: s.log}
}

// peer asks the node what it knows of another. It is an error if either is not
// connected to its relay yet, or has no address.
func (d *node) peer(name string) (*ipnstate.PeerStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range s.Peer {
		if s.BackendState == "Running" && p.HostName == name && p.Relay != "" && len(p.TailscaleIPs) > 0 {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s is in state %s or does not know where %s is: %q", d.name, s.BackendState, name, s.Health)
}

// meet waits until all nodes know each other, and returns the addresses of the first.
func meet(t testing.TB, nodes ...*node) (first []netip.Addr) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		for _, d := range nodes {
			for _, other := range nodes {
				if d == other {
					continue
				}
				p, err := d.peer(other.name)
				if err != nil {
					return err
				}
				if other == nodes[0] {
					first = p.TailscaleIPs
				}
			}
		}
		return nil
	})
	return first
}

// ping waits for an answer to a packet that goes through the tunnel to a node, which
// answers whatever it lets in.
func (d *node) ping(t testing.TB, ip netip.Addr) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		answer, err := d.Ping(ctx, ip, tailcfg.PingTSMP)
		if err == nil && answer.Err != "" {
			err = fmt.Errorf("%s", answer.Err)
		}
		return err
	})
}

// reaches reports whether a port of another node takes a connection. That it does not
// is either refused, or in the other node's log: waiting would not tell.
func (d *node) reaches(t testing.TB, other *node, to netip.AddrPort) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	result := make(chan bool, 1)
	go func() {
		conn, err := d.UserDial(ctx, "tcp", to.Addr().String(), to.Port())
		if err == nil {
			conn.Close()
		}
		result <- err == nil
	}()
	dropped := regexp.MustCompile(`Drop: TCP\{\S+ > ` + regexp.QuoteMeta(to.String()) + `\}`)
	var reached bool
	eventually(t, time.Minute, func() error {
		select {
		case reached = <-result:
			return nil
		default:
		}
		if dropped.MatchString(other.log.String()) {
			return nil
		}
		return fmt.Errorf("%s is neither open nor closed to %s", to, d.name)
	})
	return reached
}
