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
type socketFunc func(domain, typ int) (fd int, err error)

func sockaddr(a netip.AddrPort) (domain int, sa unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func sockType(network string) int {
	if network == "udp" {
		return unix.SOCK_DGRAM | unix.SOCK_CLOEXEC
	}
	return unix.SOCK_STREAM | unix.SOCK_CLOEXEC
}

// dial connects to an address in the container's network.
func (s socketFunc) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	domain, sa := sockaddr(to)
	fd, err := s(domain, sockType(network))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
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
	domain, sa := sockaddr(at)
	fd, err := s(domain, sockType("tcp"))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
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

// connect makes the ports and the reach of a spec work, and returns where the ports are.
func (s socketFunc) connect(f *forwards, spec Spec) (map[string]netip.AddrPort, error) {
	at := map[string]netip.AddrPort{}
	for _, p := range spec.Ports {
		inside := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(p.Number))
		addr, err := f.publish(p, func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, p.Proto, inside) })
		if err != nil {
			return nil, err
		}
		at[p.String()] = addr
	}
	return at, s.reach(f, spec.Reach)
}

// reach lets the container use TCP ports of this machine's loopback.
func (s socketFunc) reach(f *forwards, addrs []netip.AddrPort) error {
	for _, to := range addrs {
		l, err := s.listen(to)
		if err != nil {
			return err
		}
		f.streams(l, func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to.String())
		})
	}
	return nil
}

// socketsOf makes sockets in the network of another process. It takes root.
func socketsOf(pid int) socketFunc {
	return func(domain, typ int) (fd int, err error) {
		there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			return 0, err
		}
		defer there.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread is in another network, and ends with this goroutine
			if err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err == nil {
				fd, err = unix.Socket(domain, typ, 0)
			} else {
				err = fmt.Errorf("enter the container's network, which takes root: %w", err)
			}
		}()
		<-done
		return fd, err
	}
}
