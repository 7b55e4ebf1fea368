// Package health asks a running relay whether it does its work: the questions
// that Tailscale clients ask, and derper's own consistency check, which is the
// only one that notices when clients cannot be verified.
package health

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/handshake"
	"github.com/xavieralpha/derper/entrypoint/http1"
	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/stun"
)

// Timeout bounds each part; the parts run side by side.
const Timeout = 2 * time.Second

// A Result is the outcome of one part.
type Result struct {
	Part string
	Note string // something to know although all is well
	Err  error
}

// Check asks everything that the relay has switched on.
func Check(r relay.Relay) []Result {
	var parts []func() []Result
	if r.Bool("RUN_STUN") {
		parts = append(parts, func() []Result { return []Result{checkSTUN(r)} })
	}
	parts = append(parts, func() []Result { return checkWeb(r) })
	outcomes := make([]chan []Result, len(parts))
	for i, part := range parts {
		outcomes[i] = make(chan []Result, 1)
		go func() { outcomes[i] <- part() }()
	}
	var results []Result
	for _, o := range outcomes {
		results = append(results, <-o...)
	}
	return results
}

// target is the address to ask. Where derper listens on all addresses it is
// loopback.
func target(host string, port int) netip.AddrPort {
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil || ip == netip.IPv4Unspecified():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case ip == netip.IPv6Unspecified():
		ip = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(ip, uint16(port))
}

func checkSTUN(r relay.Relay) Result {
	host, _ := r.Address()
	addr := target(host, r.Number("STUN_PORT"))
	return Result{Part: "stun", Err: askSTUN(addr)}
}

func askSTUN(addr netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return err
	}
	var id stun.TxID
	rand.Read(id[:])
	if _, err := conn.Write(stun.Request(id)); err != nil {
		return err
	}
	b := make([]byte, 1500)
	n, err := conn.Read(b)
	if err != nil {
		return fmt.Errorf("no answer from udp %v: %w", addr, plain(err))
	}
	gotID, from, err := stun.Response(b[:n])
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
	switch {
	case err != nil:
		return fmt.Errorf("%v: %w", addr, err)
	case gotID != id:
		return fmt.Errorf("%v answered another request", addr)
	case from != local:
		return fmt.Errorf("%v saw the request come from %v instead of %v", addr, from, local)
	}
	return nil
}

// checkWeb asks over HTTPS, or over HTTP where derper has no TLS.
func checkWeb(r relay.Relay) []Result {
	host, port := r.Address()
	part, onlyIPs := "https", !r.Manual() && r.IsIP()
	if !r.TLS() {
		part = "http"
	}
	conn, err := dial(target(host, port))
	if err != nil {
		return []Result{{Part: part, Err: err}}
	}
	defer conn.Close()
	results := []Result{{Part: part}}
	switch {
	case r.TLS() && onlyIPs:
		// A certificate for loopback does not exist, and asking for it would
		// make derper order one. What is left is that it listens.
		results[0].Note = "certificate not checked: it is served to outside addresses only"
		if r.Number("HTTP_PORT") == -1 {
			return results
		}
		web, err := dial(target(host, r.Number("HTTP_PORT")))
		if err != nil {
			return append(results, Result{Part: "http", Err: err})
		}
		defer web.Close()
		return append(results, askVerify(r, http1.New(web, "127.0.0.1"))...)
	case r.TLS():
		secure, err := handshake.Client(conn, r.Get("HOSTNAME"))
		if err != nil {
			results[0].Err = plain(err)
			return results
		}
		conn = secure
		results[0].Note, results[0].Err = checkCertificate(r, secure)
	}
	client := http1.New(conn, r.Get("HOSTNAME"))
	results = append(results, askDERP(r, client)...)
	return append(results, askVerify(r, client)...)
}

func askDERP(r relay.Relay, client *http1.Client) []Result {
	if !r.Bool("RUN_DERP") {
		return nil
	}
	answer, err := client.Do("GET", "/derp/probe")
	if err == nil && answer.Status != 200 {
		err = fmt.Errorf("/derp/probe answered %d", answer.Status)
	}
	return []Result{{Part: "derp", Err: plain(err)}}
}

// askVerify asks for derper's consistency check, in which derper verifies the
// tailscaled's own node. derper allows this to loopback addresses.
func askVerify(r relay.Relay, client *http1.Client) []Result {
	if !r.Verifies() {
		return nil
	}
	answer, err := client.Do("GET", "/debug/check")
	if err == nil && answer.Status != 200 {
		text, _, _ := strings.Cut(strings.TrimSpace(string(answer.Body)), "\n")
		err = fmt.Errorf("clients cannot be verified: /debug/check answered %d: %s", answer.Status, text)
	}
	return []Result{{Part: "verification", Err: plain(err)}}
}

// checkCertificate checks that derper serves the certificate that it should:
// in manual mode the one in the file, otherwise one for its name.
func checkCertificate(r relay.Relay, conn *handshake.Conn) (note string, err error) {
	now := time.Now()
	if !r.Manual() {
		leaf, err := x509.ParseCertificate(conn.Leaf)
		if err != nil {
			return "", err
		}
		if err := certificate.VerifyHostname(leaf, r.Get("HOSTNAME")); err != nil {
			return "", err
		}
		if now.After(leaf.NotAfter) {
			return "", fmt.Errorf("the certificate expired on %s", leaf.NotAfter.UTC().Format("2006-01-02"))
		}
		return "", nil
	}
	cert, err := r.Pair().Load()
	if err != nil {
		return "", err
	}
	if !bytes.Equal(cert.Leaf.Raw, conn.Leaf) {
		return "", fmt.Errorf("derper serves another certificate than %s; restart it, or send it SIGHUP if the entrypoint supervises it", r.Pair().Crt)
	}
	warning := cert.Warning(now)
	if now.After(cert.Leaf.NotAfter) || now.Before(cert.Leaf.NotBefore) {
		return "", errors.New("certificate " + warning)
	}
	if warning != "" {
		note = "certificate " + warning
	}
	return note, nil
}

// dial connects from a loopback address: derper shows /debug/ to those only,
// also when it listens on another address of this machine. It uses no Dialer:
// that would link a DNS resolver. On one machine a connection is made or
// refused at once.
func dial(addr netip.AddrPort) (net.Conn, error) {
	var from *net.TCPAddr
	if ip := addr.Addr(); !ip.IsLoopback() && ip.Zone() == "" {
		from = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
		if ip.Is6() && !ip.Is4In6() {
			from.IP = net.IPv6loopback
		}
	}
	conn, err := net.DialTCP("tcp", from, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("no connection to tcp %v: %w", addr, plain(err))
	}
	return conn, conn.SetDeadline(time.Now().Add(Timeout))
}

// plain drops what net puts around an error; the address is named already.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("nothing within %v", Timeout)
	}
	return err
}
