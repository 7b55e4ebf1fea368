package suite

import (
	"bufio"
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"tailscale.com/derp"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
	"github.com/xavieralpha/derper/internal/testing/freeport"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

var (
	loadTime    = flag.Duration("load.time", 0, "how long to measure throughput, for each size of packet; 0 is not at all")
	loadClients = flag.Int("load.clients", 100, "how many idle clients to hold; 0 is none")
)

// underLoad is a relay under load: how it is reached, and its process.
type underLoad struct {
	name string
	dial func(context.Context) (net.Conn, error)
	pid  int
}

// inNetwork dials an address in the network of a process, on a thread that is in there.
func inNetwork(t *testing.T, pid int, addr string) func(context.Context) (net.Conn, error) {
	t.Helper()
	type dialed struct {
		conn net.Conn
		err  error
	}
	requests := make(chan chan dialed)
	entered := make(chan error)
	t.Cleanup(func() { close(requests) })
	go func() {
		runtime.LockOSThread() // and never unlocked: it ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		entered <- err
		for answer := range requests {
			conn, err := net.Dial("tcp", addr)
			answer <- dialed{conn, err}
		}
	}()
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
	return func(context.Context) (net.Conn, error) {
		answer := make(chan dialed, 1)
		requests <- answer
		d := <-answer
		return d.conn, d.err
	}
}

// bareDerper runs derper of the image on this machine, without a container. It listens on loopback only.
func bareDerper(t *testing.T) underLoad {
	t.Helper()
	dir := t.TempDir()
	if err := releasetest.Programs(t.Context(), "../..", dir); err != nil {
		t.Fatal(err)
	}
	port, err := freeport.Choose("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "derper"), "-a", loopback(port).String(), "-http-port", "-1", "-stun=false",
		"-hostname", "127.0.0.1", "-certmode", "manual", "-certdir", dir, "-c", filepath.Join(dir, "derper.key"))
	// In a session of its own, as containers and services are: the kernel shares out the processor between sessions
	// first, and a relay in the session of its clients moves twice as many small packets.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	u := underLoad{name: "bare derper", pid: cmd.Process.Pid, dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", loopback(port).String())
	}}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if c, err := u.dial(t.Context()); err == nil {
			c.Close()
			return u
		} else if time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
}

// containedDerper runs the relay in a container. Its network is entered, not forwarded to: the runner's way of
// publishing ports is not what is measured.
func containedDerper(t *testing.T) (underLoad, *box) {
	t.Helper()
	need.Root(t, "to enter a container's network")
	b := &bed{runner: native(t), image: theImage(t), patience: 20 * time.Second}
	t.Cleanup(func() { b.close() })
	var c *box
	var p process
	if err := probe.Caught(func() {
		b.open()
		c = b.healthy(t.Context(), container.Spec{}, open)
		p = c.derper(t.Context())
	}); err != nil {
		t.Fatal(err)
	}
	return underLoad{name: "container", pid: p.PID, dial: inNetwork(t, p.PID, "127.0.0.1:443")}, c
}

// loadConn is a client of a relay under load.
type loadConn struct {
	*derp.Client
	public key.NodePublic
	conn   net.Conn
}

// connect shakes hands over a plain TLS connection: there is no derphttp in between that would do more than that.
func (u underLoad) connect(ctx context.Context) (*loadConn, error) {
	raw, err := u.dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: "127.0.0.1", InsecureSkipVerify: true})
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET /derp HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"); err != nil {
		raw.Close()
		return nil, err
	}
	rw := bufio.NewReadWriter(bufio.NewReaderSize(conn, 4096), bufio.NewWriterSize(conn, 4096))
	res, err := http.ReadResponse(rw.Reader, nil)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(res.Status)
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	k := key.NewNode()
	c, err := derp.NewClient(k, conn, rw, logger.Discard)
	if err == nil {
		_, err = c.Recv() // the server's info: let in
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return &loadConn{c, k.Public(), raw}, nil
}

// throughput sends packets of a size from one client to another for some time and returns how many came.
func (u underLoad) throughput(ctx context.Context, size int, d time.Duration) (perSecond float64, err error) {
	from, err := u.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer from.conn.Close()
	to, err := u.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer to.conn.Close()
	// So many may be on the way: derper keeps 32 for a client and drops the rest.
	window := make(chan struct{}, 24)
	var came atomic.Int64
	began := time.Now()
	to.conn.SetDeadline(began.Add(d + 5*time.Second))
	stop := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		packet := make([]byte, size)
		for {
			select {
			case <-stop:
				return nil
			case window <- struct{}{}:
			}
			if err := from.Send(to.public, packet); err != nil {
				return err
			}
		}
	})
	g.Go(func() error {
		defer close(stop)
		for time.Since(began) < d {
			m, err := to.Recv()
			if err != nil {
				return err
			}
			if _, ok := m.(derp.ReceivedPacket); ok {
				came.Add(1)
				<-window
			}
		}
		return nil
	})
	err = g.Wait()
	return float64(came.Load()) / time.Since(began).Seconds(), err
}

// rss is the memory of a process, in bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestLoad measures what the container costs: packets and bytes a second, through the container against bare derper,
// in turns; and how many idle clients it holds, and with how much memory. Without flags, which bench/relay sets, it
// has no more than some idle clients.
func TestLoad(t *testing.T) {
	contained, c := containedDerper(t)
	bare := bareDerper(t)
	const rounds = 5
	for _, size := range []int{100, 1200, 60_000} {
		if *loadTime == 0 {
			break
		}
		rates := map[string][]float64{}
		for range rounds {
			for _, u := range []underLoad{bare, contained} {
				r, err := u.throughput(t.Context(), size, *loadTime/rounds)
				if err != nil {
					t.Fatalf("%s: %v", u.name, err)
				}
				rates[u.name] = append(rates[u.name], r)
			}
		}
		median := func(u underLoad) float64 { r := rates[u.name]; slices.Sort(r); return r[len(r)/2] }
		for _, u := range []underLoad{bare, contained} {
			fmt.Printf("load %5d bytes  %-12s %8.0f packets/s %8.1f MB/s\n", size, u.name, median(u), median(u)*float64(size)/1e6)
		}
		fmt.Printf("load %5d bytes  ratio %.2f\n", size, median(contained)/median(bare))
	}
	if n := *loadClients; n > 0 {
		before := rss(t, contained.pid)
		conns := make([]*loadConn, n)
		began := time.Now()
		var g errgroup.Group
		g.SetLimit(50)
		for i := range conns {
			g.Go(func() (err error) { conns[i], err = contained.connect(t.Context()); return err })
		}
		err := g.Wait()
		took := time.Since(began)
		defer func() {
			for _, c := range conns {
				if c != nil {
					c.conn.Close()
				}
			}
		}()
		if err != nil {
			t.Fatal(err)
		}
		var counters map[string]float64
		if err := probe.Caught(func() { counters = c.counters(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		if held := counters["gauge_current_connections"]; held < float64(n) {
			t.Errorf("the relay holds %.0f connections, wants %d", held, n)
		}
		after := rss(t, contained.pid)
		fmt.Printf("load %d idle clients held after %.1fs, memory %d MB, %d kB for each\n", n, took.Seconds(), after>>20, (after-before)/int64(n)>>10)
		if err := probe.Caught(func() { c.probe(t.Context(), probe.Target{Host: "127.0.0.1"}, "ipv6") }); err != nil {
			t.Errorf("with %d clients connected: %v", n, err)
		}
	}
}

// TestGarbage floods the three ports with garbage, bounded in count and time, and expects the relay to answer
// everything afterwards, and to hold no more memory than it needs.
func TestGarbage(t *testing.T) {
	u, c := containedDerper(t)
	const most = 20 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	at := func(p container.Port) string {
		a, err := c.Addr(p)
		if err != nil {
			t.Fatal(err)
		}
		return a.String()
	}
	var sent atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() { // datagrams: noise, truncated and spoiled STUN requests
		conn, err := net.Dial("udp", at(stunPort))
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		magic := []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}
		for i := range 20_000 {
			if ctx.Err() != nil {
				return
			}
			b := make([]byte, 1+i%1400)
			crand.Read(b)
			if i%3 == 0 {
				copy(b, magic)
			}
			conn.Write(b)
			sent.Add(1)
		}
	})
	heads := [][]byte{
		nil,
		[]byte("GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"),
		[]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"),
		{22, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff}, // the head of a TLS handshake
	}
	for _, port := range []container.Port{httpsPort, httpPort} {
		for worker := range 2 {
			wg.Go(func() {
				for i := range 500 {
					if ctx.Err() != nil {
						return
					}
					conn, err := net.DialTimeout("tcp", at(port), 5*time.Second)
					if err != nil {
						continue // full for the moment, which is its right
					}
					conn.SetDeadline(time.Now().Add(time.Second))
					out := net.Conn(conn)
					if port == httpsPort && i%2 == 0 { // past TLS, too
						tc := tls.Client(conn, &tls.Config{ServerName: "127.0.0.1", InsecureSkipVerify: true})
						if tc.Handshake() == nil {
							out = tc
						}
					}
					garbage := make([]byte, 4096)
					crand.Read(garbage)
					out.Write(append(bytes.Clone(heads[(i+worker)%len(heads)]), garbage...))
					conn.Close()
					sent.Add(1)
				}
			})
		}
	}
	wg.Wait()
	if n := sent.Load(); n < 15_000 {
		t.Errorf("only %d pieces of garbage were sent in %v", n, most)
	}
	if err := probe.Caught(func() { c.ready(t.Context()) }); err != nil {
		t.Errorf("after the flood: %v", err)
	}
	if err := probe.Caught(func() { c.probe(t.Context(), probe.Target{Host: "127.0.0.1"}, "ipv6") }); err != nil {
		t.Errorf("after the flood: %v", err)
	}
	t.Logf("%d pieces of garbage; derper has %d MB", sent.Load(), rss(t, u.pid)>>20)
	if t.Failed() {
		t.Logf("log of the container:\n%s", c.Logs())
	}
}
