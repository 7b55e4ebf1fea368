package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"tailscale.com/net/tsaddr"
	"tailscale.com/util/must"
)

var reachChecks = []check{
	{name: "address", run: checkAddress},
	forFamily(ipv4, "tcp/ipv4", "address", (*session).checkTCP),
	forFamily(ipv6, "tcp/ipv6", "address", (*session).checkTCP),
}

// forFamily is a check of one IP version.
func forFamily(f family, name, needs string, run func(*session, context.Context, family) string) check {
	return check{name: name, needs: needs, run: func(ctx context.Context, s *session) string { return run(s, ctx, f) }}
}

// family is an IP version.
type family string

const (
	ipv4 family = "IPv4"
	ipv6 family = "IPv6"
)

func (f family) has(a netip.Addr) bool { return a.Is4() == (f == ipv4) }

// checkAddress finds where to dial.
func checkAddress(ctx context.Context, s *session) string {
	switch ip, err := netip.ParseAddr(s.Host); {
	case len(s.Addrs) > 0:
		s.addrs = s.Addrs
	case err == nil:
		s.addrs = []netip.Addr{ip}
	default:
		s.addrs = must.Get(cmp.Or(s.Resolver, net.DefaultResolver).LookupNetIP(ctx, "ip", s.Host))
	}
	var list []string
	for i, a := range s.addrs {
		s.addrs[i] = a.Unmap()
		list = append(list, s.addrs[i].String())
	}
	return strings.Join(list, ", ")
}

// of returns the relay's first address of a family. A check that needs one is skipped if there is none.
func (s *session) of(f family) netip.Addr {
	i := slices.IndexFunc(s.addrs, f.has)
	if i < 0 {
		must.Do(Skipped(fmt.Sprintf("%s has no %s address", s.Host, f)))
	}
	return s.addrs[i]
}

// checkTCP connects over one IP version. The first that works serves the checks that follow.
func (s *session) checkTCP(ctx context.Context, f family) string {
	addr := s.of(f)
	conn, err := s.dial(ctx, addr, s.Port)
	must.Do(s.unreachable(f, err))
	defer conn.Close()
	if local, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil && inside(local.Addr()) {
		s.direct = true
	}
	if !s.addr.IsValid() {
		s.addr = addr
	}
	return conn.RemoteAddr().String()
}

// dial opens a TCP connection to the relay.
func (s *session) dial(ctx context.Context, addr netip.Addr, port int) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(addr, uint16(port)).String())
}

// unreachable turns the error of a dial into a skip if it is this machine that lacks the IP version, unless the relay
// has no other: then nothing can be said about it, and that is a failure.
func (s *session) unreachable(f family, err error) error {
	if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return err
	}
	if slices.ContainsFunc(s.addrs, func(a netip.Addr) bool { return !f.has(a) }) {
		return Skipped(fmt.Sprintf("no %s route from this machine", f))
	}
	return fmt.Errorf("no %s route from this machine, and %s has no other address: %w", f, s.Host, err)
}

// inside reports whether derper trusts clients with this address to see its debug pages.
func inside(a netip.Addr) bool { return a.IsLoopback() || tsaddr.IsTailscaleIP(a) }
