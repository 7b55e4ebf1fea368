package container

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// forwards carry bytes between this machine and the network of a container, in user space: one end is a socket here,
// the other a socket there.
type forwards struct {
	ctx  context.Context // until they are closed
	end  context.CancelFunc
	done sync.WaitGroup
}

type dialFunc func(ctx context.Context) (net.Conn, error)

func newForwards() *forwards {
	f := new(forwards)
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

func (f *forwards) close() {
	f.end()
	f.done.Wait()
}

// hold closes c with the forwards, or earlier, by drop.
func (f *forwards) hold(c io.Closer) (drop func()) {
	stop := context.AfterFunc(f.ctx, func() { c.Close() })
	return func() {
		stop()
		c.Close()
	}
}

// loopback is where ports are published, and where the container's programs serve them.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// publish listens on a port of 127.0.0.1 and forwards to where dial goes.
func (f *forwards) publish(p Port, dial dialFunc) (netip.AddrPort, error) {
	at := netip.AddrPortFrom(loopback, uint16(p.Host))
	if p.Proto == "udp" {
		pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return at, err
		}
		f.packets(pc, dial)
		return pc.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return at, err
	}
	f.streams(l, dial)
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// streams forwards every connection that l accepts.
func (f *forwards) streams(l net.Listener, dial dialFunc) {
	f.hold(l)
	f.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.done.Go(func() { f.stream(c, dial) })
		}
	})
}

func (f *forwards) stream(here net.Conn, dial dialFunc) {
	defer f.hold(here)()
	ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
	defer cancel()
	there, err := dial(ctx)
	if err != nil {
		here.(*net.TCPConn).SetLinger(0) // what a closed port does, as well as can be
		return
	}
	defer f.hold(there)()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
		both.Go(func() {
			if _, err := io.Copy(way[1], way[0]); err != nil {
				way[0].Close() // a broken connection is broken on both sides
				way[1].Close()
				return
			}
			way[1].(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
}

// udpIdle is how long a UDP client is remembered.
const udpIdle = time.Minute

// packets forwards the packets of every client, each over a socket of its own.
func (f *forwards) packets(pc *net.UDPConn, dial dialFunc) {
	f.hold(pc)
	f.done.Go(func() {
		var clients sync.Map // net.Conn to the container, by netip.AddrPort
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			there, known := clients.Load(from)
			if !known {
				c, err := dial(f.ctx)
				if err != nil {
					continue
				}
				there = c
				clients.Store(from, c)
				f.done.Go(func() {
					defer f.hold(c)()
					defer clients.Delete(from)
					answers(pc, c, from)
				})
			}
			there.(net.Conn).Write(buf[:n])
		}
	})
}

// answers forwards what comes from the container to one client, as long as it does.
func answers(pc *net.UDPConn, there net.Conn, to netip.AddrPort) {
	buf := make([]byte, 64<<10)
	for {
		there.SetReadDeadline(time.Now().Add(udpIdle))
		n, err := there.Read(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // nobody listens there yet
		}
		if err != nil {
			return
		}
		pc.WriteToUDPAddrPort(buf[:n], to)
	}
}
