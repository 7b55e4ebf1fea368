package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"tailscale.com/derp/derpserver"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/limit"
)

var httpChecks = []check{
	{name: "http/probe", needs: "tls/handshake", run: checkProbe},
	{name: "http/204", needs: "tls/handshake", run: func(ctx context.Context, s *session) string {
		return s.checkNoContent(ctx, "https", s.Port)
	}},
	{name: "http/204-port-80", needs: "address", run: func(ctx context.Context, s *session) string {
		return s.checkNoContent(ctx, "http", s.HTTPPort)
	}},
	{name: "http/upgrade", needs: "tls/handshake", run: func(ctx context.Context, s *session) string {
		return s.page(ctx, "/derp", http.StatusUpgradeRequired).Status
	}},
	{name: "http/bootstrap-dns", needs: "tls/handshake", run: checkBootstrapDNS},
	{name: "http/robots", needs: "tls/handshake", run: checkRobots},
	{name: "http/home", needs: "tls/handshake", run: checkHome},
	{name: "http/debug", needs: "tls/handshake", run: checkDebug},
}

// maxPage is the most that a page of a relay may have, in bytes.
const maxPage = 4 << 20

// A Page is an HTTP response that was read to the end.
type Page struct {
	*http.Response
	Text string
}

// URL returns the URL of a page of a relay. Port 0 is the scheme's own.
func URL(scheme, host string, port int, path string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + host + "]"
	}
	if port != 0 && port != map[string]int{"http": 80, "https": 443}[scheme] {
		host += ":" + strconv.Itoa(port)
	}
	return scheme + "://" + host + path
}

// Fetch asks for a page, on a connection of its own, and follows no redirect.
func Fetch(ctx context.Context, tr *http.Transport, method, url string, header ...string) (*Page, error) {
	tr.DisableKeepAlives = true
	hc := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := limit.ReadAll(res.Body, maxPage)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, req.URL.Path, err)
	}
	return &Page{res, string(b)}, nil
}

// get asks for a page. Certificates are judged by the checks of TLS, not here.
func (s *session) get(ctx context.Context, scheme string, port int, path string, header ...string) *Page {
	tr := &http.Transport{
		DialContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialAny(ctx, port) },
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.handshake(ctx, s.Host) },
	}
	return must.Get(Fetch(ctx, tr, "GET", URL(scheme, s.Host, port, path), header...))
}

// page asks for a page over HTTPS and expects a status.
func (s *session) page(ctx context.Context, path string, status int) *Page {
	a := s.get(ctx, "https", s.Port, path)
	must.Do(a.Want(status))
	return a
}

// dialAny connects to a port at the address that serves TLS, or, if there is none, at any.
func (s *session) dialAny(ctx context.Context, port int) (net.Conn, error) {
	if s.addr.IsValid() {
		return s.dial(ctx, s.addr, port)
	}
	var errs []error
	for _, a := range s.addrs {
		c, err := s.dial(ctx, a, port)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Want returns an error unless the page has that status.
func (a *Page) Want(status int) error {
	if a.StatusCode != status {
		return fmt.Errorf("%s %s: answered %s, not %d", a.Request.Method, a.Request.URL.Path, a.Status, status)
	}
	return nil
}

// checkProbe asks for what clients measure latency with when UDP is blocked, browsers among them.
func checkProbe(ctx context.Context, s *session) string {
	a := s.page(ctx, "/derp/probe", http.StatusOK)
	if o := a.Header.Get("Access-Control-Allow-Origin"); o != "*" {
		fail("GET /derp/probe: allows origin %q, browsers need *", o)
	}
	return a.Status
}

// checkNoContent does what a client does to find captive portals.
func (s *session) checkNoContent(ctx context.Context, scheme string, port int) string {
	if port < 0 {
		must.Do(Skipped("no http port"))
	}
	challenge := "ts_" + strings.NewReplacer(":", "_", "%", "_").Replace(s.Host)
	challenge = challenge[:min(len(challenge), 64)] // a relay leaves longer ones unanswered
	a := s.get(ctx, scheme, port, "/generate_204", derpserver.NoContentChallengeHeader, challenge)
	must.Do(a.Want(http.StatusNoContent))
	if got := a.Header.Get(derpserver.NoContentResponseHeader); got != "response "+challenge {
		fail("GET /generate_204: challenge answered with %q: is it a captive portal?", got)
	}
	return a.Status
}

// checkBootstrapDNS expects addresses by name, or nothing at all if the relay was given no names.
func checkBootstrapDNS(ctx context.Context, s *session) string {
	a := s.page(ctx, "/bootstrap-dns", http.StatusOK)
	if t := a.Header.Get("Content-Type"); t != "application/json" {
		fail("GET /bootstrap-dns: content type %q", t)
	}
	if a.Text == "" {
		return "no names"
	}
	var names map[string][]netip.Addr
	if err := json.Unmarshal([]byte(a.Text), &names); err != nil {
		fail("GET /bootstrap-dns: %w", err)
	}
	return fmt.Sprintf("%d names", len(names))
}

func checkRobots(ctx context.Context, s *session) string {
	if a := s.page(ctx, "/robots.txt", http.StatusOK); a.Text != "User-agent: *\nDisallow: /\n" {
		fail("GET /robots.txt: keeps no robots out: %q", a.Text)
	}
	return "keeps robots out"
}

// checkHome tells derper's three home pages apart.
func checkHome(ctx context.Context, s *session) string {
	a := s.get(ctx, "https", s.Port, "/")
	var home string
	switch to := a.Header.Get("Location"); {
	case a.StatusCode == http.StatusFound && isURL(to):
		home = to
	case a.StatusCode == http.StatusOK && a.Text == "":
		home = HomeBlank
	case a.StatusCode == http.StatusOK && strings.Contains(a.Text, "<h1>DERP</h1>"):
		home = HomeDefault
	default:
		fail("GET /: answered %s with %d bytes: not one of derper's home pages", a.Status, len(a.Text))
	}
	if s.Home != "" && s.Home != home {
		fail("GET /: home page is %s, not %s", home, s.Home)
	}
	return home
}

// checkDebug expects to be refused. Derper trusts loopback and tailnet clients, so one of these asks again as a proxy
// for somebody else, and then must be refused too.
func checkDebug(ctx context.Context, s *session) string {
	a, saw := s.get(ctx, "https", s.Port, "/debug/"), "refused"
	if a.StatusCode == http.StatusOK && s.direct {
		a, saw = s.get(ctx, "https", s.Port, "/debug/", "X-Forwarded-For", "192.0.2.1"), "open from here, refused to others"
	}
	must.Do(a.Want(http.StatusForbidden))
	return saw
}
