// Package check finds what would keep the relay from working before anything
// is started: settings that contradict each other, files that are missing or
// broken, ports that are taken. It reports all of it at once, because a
// container that reports one error per start is a guessing game.
package check

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// A Report is the result of the checks.
type Report struct {
	Problems []setting.Problem // the relay must not start
	Warnings []setting.Problem // it may, but the user should know
}

// A System is what the relay finds where it runs.
type System struct {
	Environ    []string
	Tailscaled string // path of the program in the image
	Mounts     []byte // /proc/self/mountinfo, see proc(5)
	Now        time.Time
}

// A checker collects a Report.
type checker struct {
	relay.Relay
	System
	Report
}

// Relay checks what a Set makes of derper. Values that are bad by themselves
// are not looked at again: setting.Read has reported them.
func Relay(r relay.Relay, s System) Report {
	c := &checker{Relay: r, System: s}
	c.hostname()
	c.certMode()
	c.acmeIP()
	c.manualPair()
	c.volume()
	c.debugAccess()
	c.nodeKey()
	c.meshKey()
	c.rateConfig()
	c.secrets()
	c.verification()
	c.peerRelay()
	c.limits()
	c.ports()
	return c.Report
}

// Restart finds what would keep a derper that runs from starting anew: files that
// it reads at each start.
func Restart(r relay.Relay) []setting.Problem {
	c := &checker{Relay: r}
	c.nodeKey()
	c.meshKey()
	c.rateConfig()
	c.secrets()
	return c.Problems
}

// good reports whether none of the values is bad by itself.
func (c *checker) good(names ...string) bool {
	for _, name := range names {
		if c.Value(name).Bad {
			return false
		}
	}
	return true
}

func (c *checker) fail(name, format string, args ...any) {
	c.Problems = append(c.Problems, c.Value(name).Problem(fmt.Sprintf(format, args...)))
}

func (c *checker) warn(name, format string, args ...any) {
	c.Warnings = append(c.Warnings, c.Value(name).Problem(fmt.Sprintf(format, args...)))
}

func (c *checker) hostname() {
	if !c.good("HOSTNAME") || c.Bool("DEV") {
		return
	}
	switch c.Get("HOSTNAME") {
	case "127.0.0.1", "::1", "localhost":
		c.warn("HOSTNAME", "only this machine can use the relay; set it, or DERP_HOSTNAME, to the name or address that clients reach")
	}
}

// certMode checks the modes against the rest. derper ends on most of these,
// except that it silently serves plain HTTP for the first.
func (c *checker) certMode() {
	if !c.good("CERT_MODE", "HOSTNAME", "ADDR") {
		return
	}
	mode := c.Get("CERT_MODE")
	if c.Bool("ACME_IP_CERTS") && mode != "letsencrypt" {
		c.fail("ACME_IP_CERTS", "needs CERT_MODE=letsencrypt, not %s", mode)
	}
	if c.Manual() {
		return
	}
	if !c.TLS() && !c.Bool("DEV") {
		c.fail("ADDR", "with CERT_MODE=%s derper serves plain HTTP on every port but 443; use ADDR=:443 and publish it as another port, or CERT_MODE=manual", mode)
	}
	switch {
	case c.IsIP() && mode == "gcp":
		c.fail("HOSTNAME", "CERT_MODE=gcp needs a DNS name, not an IP address")
	case c.IsIP() && !c.Bool("ACME_IP_CERTS"):
		c.fail("HOSTNAME", "is an IP address; use CERT_MODE=manual for a self-signed certificate, or add ACME_IP_CERTS=true")
	case !c.IsIP() && !strings.Contains(c.Get("HOSTNAME"), "."):
		c.fail("HOSTNAME", "no CA gives a certificate for a name without a dot; use the public DNS name, or CERT_MODE=manual")
	}
	if c.Bool("ACME_IP_CERTS") && c.good("HTTP_PORT") && c.Number("HTTP_PORT") != 80 {
		if c.Number("HTTP_PORT") == -1 {
			c.fail("HTTP_PORT", "ACME_IP_CERTS=true needs HTTP: Let's Encrypt asks on port 80; use HTTP_PORT=80")
		} else {
			c.warn("HTTP_PORT", "Let's Encrypt asks on port 80 for ACME_IP_CERTS; publish this port as 80")
		}
	}
	if mode == "gcp" {
		for _, name := range []string{"ACME_EAB_KID", "ACME_EAB_KEY"} {
			if c.good(name) && c.Get(name) == "" {
				c.fail(name, "CERT_MODE=gcp needs it; get key ID and key with: gcloud publicca external-account-keys create")
			}
		}
		if c.Get("ACME_EMAIL") == "" {
			c.fail("ACME_EMAIL", "CERT_MODE=gcp needs it; set it to an address that Google may write to")
		}
	}
	if mode == "letsencrypt" {
		for _, name := range []string{"ACME_EAB_KID", "ACME_EAB_KEY"} {
			if c.Get(name) != "" {
				c.warn(name, "has no effect with CERT_MODE=letsencrypt")
			}
		}
	}
}

// acmeIP checks that derper can know the address for which it is to get a
// certificate: it takes the one at which a connection arrives.
func (c *checker) acmeIP() {
	ip := net.ParseIP(c.Get("HOSTNAME"))
	if !c.good("HOSTNAME", "ACME_IP_CERTS") || !c.Bool("ACME_IP_CERTS") || ip == nil {
		return
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return
		}
	}
	c.warn("ACME_IP_CERTS", "this container has no interface with the address %s, so derper gets no certificate for it: connections arrive at another one; use the host's network: --network host", ip)
}

// verification checks who is to verify clients.
func (c *checker) verification() {
	if c.good("VERIFY_NODES", "VERIFY_CLIENT_URL") && c.Get("VERIFY_NODES") != "" && c.Get("VERIFY_CLIENT_URL") != "" {
		c.fail("VERIFY_NODES", "derper asks one admission controller only, and VERIFY_CLIENT_URL names another; set only one of them")
	}
	if c.good("TS_AUTHKEY") && c.Get("TS_AUTHKEY") != "" {
		if err := tailscaled.CheckAuthKey(c.Get("TS_AUTHKEY")); err != nil {
			c.fail("TS_AUTHKEY", "%v", err)
		}
	}
	if !c.good("TS_AUTHKEY", "TAILSCALED", "VERIFY_CLIENTS", "SOCKET") {
		return
	}
	own := "TS_AUTHKEY"
	if c.Get("TS_AUTHKEY") == "" {
		own = "TAILSCALED"
	}
	switch {
	case c.WantsTailscaled() && !c.Sidecar():
		c.warn(own, "has no effect with %s; tailscaled is not started", c.openness())
	case c.Sidecar() && c.Verifies() && c.Get("SOCKET") != "":
		c.fail("SOCKET", "is the host's tailscaled, and %s asks for the one in the image; set only one of them", own)
	case !c.WantsTailscaled():
		for _, name := range []string{"TS_LOGIN_SERVER", "TS_HOSTNAME"} {
			if c.good(name) && c.Get(name) != "" {
				c.warn(name, "has no effect without TS_AUTHKEY or TAILSCALED=true")
			}
		}
	}
}

// openness is the setting because of which no tailscaled verifies clients.
func (c *checker) openness() string {
	if c.Value("VERIFY_CLIENTS").Origin == setting.FromDefault {
		return "VERIFY_NODES, unless VERIFY_CLIENTS=true is set too"
	}
	return "VERIFY_CLIENTS=false"
}

// peerRelay checks that there is a tailscaled that can be one.
func (c *checker) peerRelay() {
	if !c.good("PEER_RELAY_PORT", "PEER_RELAY_ENDPOINTS") {
		return
	}
	switch {
	case !c.PeerRelay():
		if c.Get("PEER_RELAY_ENDPOINTS") != "" {
			c.fail("PEER_RELAY_ENDPOINTS", "needs PEER_RELAY_PORT")
		}
	case !c.WantsTailscaled():
		c.fail("PEER_RELAY_PORT", "needs the tailscaled in this image: set TS_AUTHKEY_FILE, or TAILSCALED=true")
	default:
		ok, err := tailscaled.Supports(context.Background(), c.Tailscaled, tailscaled.PeerRelay...)
		switch {
		case err != nil:
			c.fail("PEER_RELAY_PORT", "whether tailscaled can be a peer relay: %v", err)
		case !ok:
			c.fail("PEER_RELAY_PORT", "the tailscaled of this release cannot be a peer relay; leave it out, or take a newer image")
		}
	}
}

func (c *checker) limits() {
	if !c.good("ACCEPT_CONNECTION_LIMIT", "ACCEPT_CONNECTION_BURST") {
		return
	}
	limit := c.Get("ACCEPT_CONNECTION_LIMIT")
	burst := c.Value("ACCEPT_CONNECTION_BURST")
	switch {
	case strings.HasSuffix(strings.ToLower(limit), "inf") || strings.HasSuffix(strings.ToLower(limit), "infinity"):
		if burst.Origin != setting.FromDefault && burst.Text != burst.Default {
			c.warn("ACCEPT_CONNECTION_BURST", "does nothing without ACCEPT_CONNECTION_LIMIT")
		}
	case burst.Text == "0":
		c.fail("ACCEPT_CONNECTION_BURST", "with a limit of %s connections a second, a burst of 0 refuses every one; use 1 or more", limit)
	case burst.Text == "" || burst.Text == burst.Default:
		c.warn("ACCEPT_CONNECTION_LIMIT", "does nothing without ACCEPT_CONNECTION_BURST: derper counts from the burst on, which has no end")
	case c.TLS():
		c.warn("ACCEPT_CONNECTION_LIMIT", "THE FIRST CONNECTION ABOVE THE LIMIT ENDS DERPER, and with it the connections of all clients; it is started again at once. Limit connections in a firewall instead")
	default:
		c.warn("ACCEPT_CONNECTION_LIMIT", "does nothing without TLS")
	}
}

// debugAccess checks what derper reads itself, and would end on when the first
// one asks.
// Source: tsweb/tsweb.go, AllowDebugAccess.
func (c *checker) debugAccess() {
	for _, kv := range c.Environ {
		name, text, _ := strings.Cut(kv, "=")
		if text == "" {
			continue
		}
		problem := setting.Problem{Name: name, Text: text}
		switch name {
		case "TS_DEBUG_TRUSTED_CIDRS":
			for _, item := range strings.Split(text, ",") {
				item = strings.TrimSpace(item)
				if _, err := netip.ParsePrefix(item); err != nil && item != "" {
					problem.What = fmt.Sprintf("%q is no network like 10.0.0.0/8; derper ends when the first one asks for a debug page", item)
				}
			}
		case "TS_ALLOW_DEBUG_IP":
			if a, err := netip.ParseAddr(text); err != nil || a.String() != text {
				problem.What = "use one IP address in its usual form, like 192.0.2.1; for networks there is TS_DEBUG_TRUSTED_CIDRS"
			}
		case "TS_DEBUG_KEY_PATH":
			if _, err := os.ReadFile(text); err != nil {
				problem.What = fmt.Sprintf("the key cannot be read: %v; mount the file there and let uid %d read it", cause(err), os.Getuid())
			}
		}
		if problem.What != "" {
			c.Problems = append(c.Problems, problem)
		}
	}
}
