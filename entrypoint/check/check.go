// Package check finds what would keep the relay from working before anything
// is started: settings that contradict each other, files that are missing or
// broken, ports that are taken. It reports all of it at once, because a
// container that reports one error per start is a guessing game.
package check

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

// A Report is the result of the checks.
type Report struct {
	Problems []setting.Problem // the relay must not start
	Warnings []setting.Problem // it may, but the user should know
}

// A checker collects a Report.
type checker struct {
	relay.Relay
	Report
	now time.Time
}

// Relay checks what a Set makes of derper. Values that are bad by themselves
// are not looked at again: setting.Read has reported them.
func Relay(r relay.Relay, now time.Time) Report {
	c := &checker{Relay: r, now: now}
	c.hostname()
	c.certMode()
	c.manualPair()
	c.nodeKey()
	c.meshKey()
	c.rateConfig()
	c.secrets()
	c.verification()
	c.limits()
	c.ports()
	return c.Report
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
	host := c.Get("HOSTNAME")
	if !c.good("HOSTNAME") || c.Bool("DEV") {
		return
	}
	own, err := os.Hostname()
	switch {
	case host == "127.0.0.1" || host == "::1" || host == "localhost":
		c.warn("HOSTNAME", "only this machine can use the relay; set it to the name or address that clients reach")
	case err == nil && host == own && !strings.Contains(host, "."):
		c.warn("HOSTNAME", "is the container's own host name; set it to the name or address that clients reach")
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

// verification checks who is to verify clients.
func (c *checker) verification() {
	if !c.good("TS_AUTHKEY", "TAILSCALED", "VERIFY_CLIENTS", "SOCKET") {
		return
	}
	own := "TS_AUTHKEY"
	if c.Get("TS_AUTHKEY") == "" {
		own = "TAILSCALED"
	}
	switch {
	case c.WantsTailscaled() && !c.Verifies():
		c.warn(own, "has no effect with VERIFY_CLIENTS=false; tailscaled is not started")
	case c.Sidecar() && c.Get("SOCKET") != "":
		c.fail("SOCKET", "is the host's tailscaled, and %s asks for the one in the image; set only one of them", own)
	case !c.WantsTailscaled():
		for _, name := range []string{"TS_LOGIN_SERVER", "TS_HOSTNAME"} {
			if c.good(name) && c.Get(name) != "" {
				c.warn(name, "has no effect without TS_AUTHKEY or TAILSCALED=true")
			}
		}
	}
}

func (c *checker) limits() {
	if !c.good("ACCEPT_CONNECTION_LIMIT", "ACCEPT_CONNECTION_BURST") {
		return
	}
	if c.Get("ACCEPT_CONNECTION_BURST") == "0" && !strings.HasSuffix(strings.ToLower(c.Get("ACCEPT_CONNECTION_LIMIT")), "inf") {
		c.fail("ACCEPT_CONNECTION_BURST", "with a limit of %s connections a second, a burst of 0 refuses every one; use 1 or more", c.Get("ACCEPT_CONNECTION_LIMIT"))
	}
}
