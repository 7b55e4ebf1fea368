package check

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// ports checks that derper will get its ports. It ends when a TCP port is
// taken, but says nothing at all when the STUN port is.
func (c *checker) ports() {
	if !c.good("ADDR", "HTTP_PORT", "STUN_PORT", "CERT_MODE", "METRICS_ADDR", "PEER_RELAY_PORT") {
		return
	}
	host, https := c.Address()
	http := c.Number("HTTP_PORT")
	if !c.TLS() {
		http = -1 // without TLS, derper has one listener
	}
	if http == https {
		c.fail("HTTP_PORT", "is the port of ADDR too; use another one, or -1 for no HTTP")
		http = -1
	}
	type listener struct {
		name, network, host string
		port                int
	}
	listeners := []listener{{"ADDR", "tcp", host, https}}
	if http != -1 {
		listeners = append(listeners, listener{"HTTP_PORT", "tcp", host, http})
	}
	if c.Bool("RUN_STUN") {
		listeners = append(listeners, listener{"STUN_PORT", "udp", host, c.Number("STUN_PORT")})
	}
	if addr := c.Get("METRICS_ADDR"); addr != "" {
		h, text, _ := net.SplitHostPort(addr)
		port, _ := strconv.Atoi(text)
		if port == https || port == http {
			c.fail("METRICS_ADDR", "is a port of derper too; use another one")
		} else {
			listeners = append(listeners, listener{"METRICS_ADDR", "tcp", h, port})
		}
	}
	if c.PeerRelay() {
		if port := c.Number("PEER_RELAY_PORT"); c.Bool("RUN_STUN") && port == c.Number("STUN_PORT") {
			c.fail("PEER_RELAY_PORT", "is the port of STUN_PORT too; use another one")
		} else {
			listeners = append(listeners, listener{"PEER_RELAY_PORT", "udp", "", port})
		}
	}
	for _, l := range listeners {
		err := tryListen(l.network, l.host, l.port)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRINUSE):
			c.fail(l.name, "%s port %d is taken by another program; use another port, or stop that program", l.network, l.port)
		case errors.Is(err, syscall.EACCES):
			c.fail(l.name, "this user may not listen on %s port %d; use a port from 1024, or allow it with --sysctl net.ipv4.ip_unprivileged_port_start=0", l.network, l.port)
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			if strings.HasSuffix(l.name, "ADDR") { // once is enough: derper's have all the same IP
				c.fail(l.name, "this container has no address %s; use :%d to listen on all", l.host, l.port)
			}
		default:
			c.fail(l.name, "cannot listen: %v; use another address or port", err)
		}
	}
}

func tryListen(network, host string, port int) error {
	ip, _ := netip.ParseAddr(host) // the zero value is every address
	if network == "udp" {
		conn, err := net.ListenUDP(network, &net.UDPAddr{IP: ip.AsSlice(), Port: port, Zone: ip.Zone()})
		if err != nil {
			return err
		}
		return conn.Close()
	}
	ln, err := net.ListenTCP(network, &net.TCPAddr{IP: ip.AsSlice(), Port: port, Zone: ip.Zone()})
	if err != nil {
		return err
	}
	return ln.Close()
}
