package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"tailscale.com/net/stun"
	"tailscale.com/net/tsaddr"
	"tailscale.com/util/must"
)

var stunChecks = []check{
	forFamily(ipv4, "stun/ipv4", "address", (*session).checkSTUN),
	forFamily(ipv4, "stun/ipv4-mapped", "stun/ipv4", (*session).checkMapped),
	forFamily(ipv6, "stun/ipv6", "address", (*session).checkSTUN),
	forFamily(ipv6, "stun/ipv6-mapped", "stun/ipv6", (*session).checkMapped),
}

// stunReply is a binding, seen from both ends.
type stunReply struct {
	local  netip.AddrPort // the sender's
	mapped netip.AddrPort // what the relay says it is
}

// stunRetry is how long to wait before asking again: UDP may lose a packet, and that is not the relay's fault.
const stunRetry = 500 * time.Millisecond

func (s *session) checkSTUN(ctx context.Context, f family) string {
	if s.STUNPort < 0 {
		must.Do(Skipped("no stun port"))
	}
	relay := netip.AddrPortFrom(s.of(f), uint16(s.STUNPort))
	local, mapped, err := STUN(ctx, relay)
	must.Do(s.unreachable(f, err))
	s.stun[f] = stunReply{local, mapped}
	return relay.String()
}

// STUN asks for a binding until there is an answer with our transaction id. It returns our address, as it is here and
// as the relay sees it.
func STUN(ctx context.Context, relay netip.AddrPort) (local, mapped netip.AddrPort, err error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		return local, mapped, err
	}
	defer conn.Close()
	tx := stun.NewTxID()
	wrong := fmt.Errorf("no answer from %v over UDP", relay)
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		if _, err := conn.Write(stun.Request(tx)); err != nil {
			return local, mapped, err
		}
		until := time.Now().Add(stunRetry)
		if d, ok := ctx.Deadline(); ok && d.Before(until) {
			until = d
		}
		conn.SetReadDeadline(until)
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return local, mapped, err // the port is refused: no need to ask again
			}
			if mapped, wrong = binding(tx, buf[:n]); wrong == nil {
				return unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort()), mapped, nil
			}
		}
	}
	return local, mapped, wrong
}

// binding is the address in an answer to the request with a transaction id.
func binding(tx stun.TxID, answer []byte) (mapped netip.AddrPort, err error) {
	got, mapped, err := stun.ParseResponse(answer)
	if err == nil && got != tx {
		err = fmt.Errorf("answer has transaction id %x, asked with %x", got, tx)
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	return unmap(mapped), nil
}

// checkMapped compares the address in the answer with the sender's own. Behind NAT they differ, and a node cannot
// know by how much: then all that can be told is whether the address could be true.
func (s *session) checkMapped(_ context.Context, f family) string {
	r := s.stun[f]
	switch {
	case r.mapped == r.local:
		return r.mapped.String()
	case s.Via.IsValid() && r.mapped.Addr() != s.Via:
		fail("relay says we are %v, but it should see us by %v", r.mapped, s.Via)
	case s.Via.IsValid():
	case natted(r.local.Addr()) && !natted(r.mapped.Addr()) && r.mapped.Addr().IsGlobalUnicast():
		must.Do(Skipped(fmt.Sprintf("behind NAT: relay says %v, our own address is %v", r.mapped, r.local)))
	default:
		fail("relay says we are %v, but we sent from %v", r.mapped, r.local)
	}
	return fmt.Sprintf("%v, for our %v", r.mapped, r.local)
}

// natted reports whether hosts with such an address reach the internet through NAT.
func natted(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || tsaddr.CGNATRange().Contains(a)
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
