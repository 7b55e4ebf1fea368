package container

import (
	"context"
	"errors"
	"fmt"
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
	mu     sync.Mutex
	open   map[io.Closer]bool
	closed bool
	done   sync.WaitGroup
}

type dialFunc func(ctx context.Context) (net.Conn, error)

// add notes what close must close. It reports false, and closes c, if it is too late.
func (f *forwards) add(c io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		c.Close()
		return false
	}
	if f.open == nil {
		f.open = map[io.Closer]bool{}
	}
	f.open[c] = true
	return true
}

func (f *forwards) drop(c io.Closer) {
	c.Close()
	f.mu.Lock()
	delete(f.open, c)
	f.mu.Unlock()
}

func (f *forwards) close() {
	f.mu.Lock()
	f.closed = true
	for c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.done.Wait()
}

// publish listens on a port of 127.0.0.1 and forwards to where dial goes.
func (f *forwards) publish(p Port, dial dialFunc) (netip.AddrPort, error) {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(p.Host))
	taken := func(err error) error {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port %d/%s of 127.0.0.1 is taken by another program: stop it or choose another", p.Host, p.Proto)
		}
		return err
	}
	if p.Proto == "udp" {
		pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return at, taken(err)
		}
		f.packets(pc, dial)
		return pc.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return at, taken(err)
	}
	f.streams(l, dial)
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// streams forwards every connection that l accepts.
func (f *forwards) streams(l net.Listener, dial dialFunc) {
	if !f.add(l) {
		return
	}
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
	if !f.add(here) {
		return
	}
	defer f.drop(here)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	there, err := dial(ctx)
	if err != nil {
		here.(*net.TCPConn).SetLinger(0) // what a closed port does, as well as can be
		return
	}
	if !f.add(there) {
		return
	}
	defer f.drop(there)
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
	if !f.add(pc) {
		return
	}
	f.done.Go(func() {
		var mu sync.Mutex
		clients := map[netip.AddrPort]net.Conn{}
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			mu.Lock()
			there := clients[from]
			mu.Unlock()
			if there == nil {
				if there, err = dial(context.Background()); err != nil || !f.add(there) {
					continue
				}
				mu.Lock()
				clients[from] = there
				mu.Unlock()
				f.done.Go(func() {
					defer func() {
						mu.Lock()
						delete(clients, from)
						mu.Unlock()
						f.drop(there)
					}()
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
						pc.WriteToUDPAddrPort(buf[:n], from)
					}
				})
			}
			there.Write(buf[:n])
		}
	})
}
