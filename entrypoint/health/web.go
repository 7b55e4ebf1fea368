package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/entrypoint/relay"
)

// A client asks derper over one connection, and trusts whatever certificate it
// is shown: whether that is the right one is for the checks to say.
type client struct {
	http.Client
	base string // https://derp.example.com
}

// newClient returns a client for derper's HTTPS, or for its HTTP.
func newClient(r relay.Relay, secure bool) *client {
	host, port := r.Address()
	scheme := "https"
	if !secure {
		scheme = "http"
		if r.TLS() {
			port = r.Number("HTTP_PORT")
		}
	}
	addr := target(host, port)
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, addr) },
		TLSClientConfig:   &tls.Config{ServerName: r.Get("HOSTNAME"), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		MaxConnsPerHost:   1,
		ForceAttemptHTTP2: false,
	}
	name := r.Get("HOSTNAME")
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	c := &client{base: scheme + "://" + name}
	c.Transport = transport
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// maxAnswer is larger than what derper says of itself: about 20 kB.
const maxAnswer = 1 << 20

// get asks for a page, and returns what it says and the certificates that came
// with it. An answer other than 200 is an error.
func (c *client) get(ctx context.Context, path string) (text string, chain []*x509.Certificate, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return "", nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return "", nil, plain(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return "", nil, plain(err)
	}
	if res.TLS != nil {
		chain = res.TLS.PeerCertificates
	}
	if res.StatusCode/100 != 2 {
		line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		return "", chain, statusError(fmt.Sprintf("%s answered %d: %s", path, res.StatusCode, line))
	}
	return string(b), chain, nil
}

// A statusError is an answer other than 200: who answers can be reached.
type statusError string

func (e statusError) Error() string { return string(e) }

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

// dial connects from a loopback address: derper shows /debug/ to those only,
// also when it listens on another address of this machine.
func dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if ip := addr.Addr(); !ip.IsLoopback() && ip.Zone() == "" {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
		if ip.Is6() && !ip.Is4In6() {
			from.IP = net.IPv6loopback
		}
		d.LocalAddr = from
	}
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, &dialError{fmt.Errorf("no connection to tcp %v: %w", addr, plain(err))}
	}
	return conn, nil
}

// A dialError says that there is no connection.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// errSilent says that there was no answer in time.
var errSilent = fmt.Errorf("nothing within %v", Timeout)

// plain drops what net and net/http put around an error; the address is named
// already.
func plain(err error) error {
	if u, ok := err.(*url.Error); ok {
		err = u.Err
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return errSilent
	}
	if op, ok := err.(*net.OpError); ok {
		err = op.Err
	}
	if sys, ok := err.(*os.SyscallError); ok {
		err = sys.Err
	}
	return err
}

// inUse reports whether a program in this network namespace has bound the UDP
// port.
// Source: /proc/net/udp, proc(5).
func inUse(port int) (bool, error) {
	want := ":" + strings.ToUpper(fmt.Sprintf("%04s", strconv.FormatInt(int64(port), 16)))
	var found error
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			found = err
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			if fields := strings.Fields(line); len(fields) > 1 && strings.HasSuffix(fields[1], want) {
				return true, nil
			}
		}
	}
	return false, found
}
