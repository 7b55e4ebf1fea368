package container

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// socketFunc makes a socket in the network of a container. A socket stays in the network that it was made in, so who
// holds one can connect and listen there from anywhere.
type socketFunc func(domain, typ int) (*os.File, error)

// open makes a socket for an address, tcp or udp.
func (s socketFunc) open(network string, a netip.AddrPort) (*os.File, unix.Sockaddr, error) {
	typ := unix.SOCK_STREAM
	if network == "udp" {
		typ = unix.SOCK_DGRAM
	}
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	domain := unix.AF_INET6
	if a.Addr().Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	f, err := s(domain, typ|unix.SOCK_CLOEXEC)
	return f, sa, err
}

// dial connects to an address in the container's network.
func (s socketFunc) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	f, sa, err := s.open(network, to)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd := int(f.Fd())
	if d, ok := ctx.Deadline(); ok { // bounds connect, which a full backlog can hold up
		tv := unix.NsecToTimeval(int64(max(time.Until(d), time.Millisecond)))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
			return nil, err
		}
	}
	if err := unix.Connect(fd, sa); err != nil {
		return nil, fmt.Errorf("connect to %s/%v in the container: %w", network, to, err)
	}
	return net.FileConn(f)
}

// listen listens for TCP connections at an address of the container's network.
func (s socketFunc) listen(at netip.AddrPort) (net.Listener, error) {
	f, sa, err := s.open("tcp", at)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, fmt.Errorf("listen on %v in the container: %w", at, err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

// connect makes the ports and the reach of a spec work, and returns where the ports are. What listens in the container
// for the reach leads to TCP ports of this machine's loopback.
func (s socketFunc) connect(f *forwards, spec Spec) (map[string]netip.AddrPort, error) {
	at := map[string]netip.AddrPort{}
	for _, p := range spec.Ports {
		inside := netip.AddrPortFrom(loopback, uint16(p.Number))
		addr, err := f.publish(p, func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, p.Proto, inside) })
		if err != nil {
			return nil, explainPort(err)
		}
		at[p.String()] = addr
	}
	for _, to := range spec.Reach {
		l, err := s.listen(to)
		if err != nil {
			return nil, err
		}
		f.streams(l, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		})
	}
	return at, nil
}

// socketsOf makes sockets in the network of another process. It takes root.
func socketsOf(pid int) socketFunc {
	return func(domain, typ int) (f *os.File, err error) {
		there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			return nil, err
		}
		defer there.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			// Never unlocked: the thread is in another network, and ends with this goroutine. It may have started
			// processes for others before: who sets a parent-death signal keeps its thread (go.dev/issue/27505).
			runtime.LockOSThread()
			if err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
				err = fmt.Errorf("enter the container's network, which takes root: %w", err)
				return
			}
			var fd int
			if fd, err = unix.Socket(domain, typ, 0); err == nil {
				f = os.NewFile(uintptr(fd), "socket")
			}
		}()
		<-done
		return f, err
	}
}
