package probe

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"tailscale.com/types/key"
)

// SplitHostPort splits HOST or HOST:PORT, where HOST may be an IPv6 address with or without
// brackets. Port 0 is for none.
func SplitHostPort(s string) (host string, port int, err error) {
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return strings.Trim(s, "[]"), 0, nil
	}
	if !strings.Contains(s, ":") {
		return s, 0, nil
	}
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%s: %q is not a port", s, p)
	}
	return host, int(n), nil
}

// ReadNodeKey reads a key as tailscale writes it in its state. The file is named in errors,
// its content never.
func ReadNodeKey(file string) (k key.NodePrivate, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return k, err
	}
	if err := k.UnmarshalText([]byte(strings.TrimSpace(string(b)))); err != nil {
		return k, fmt.Errorf("%s: not a node key of the form privkey:…", file)
	}
	return k, nil
}

// Hint says what to try next when a check failed to which a flag of build probe may be the
// answer, "" if there is no such check.
func (r *Findings) Hint(t Target) string {
	hints := map[string]string{
		"address":          "is the name right? --addr IP asks without DNS",
		"tls/certificate":  "a relay with a certificate of its own is pinned: --cert-name sha256-raw:… as in its log, or --insecure",
		"tls/expiry":       "--insecure goes on without a valid certificate",
		"http/204-port-80": "--http-port -1 if the relay is meant to have none; then its node needs no CanPort80",
	}
	if t.CertName != "" {
		delete(hints, "tls/certificate")
	}
	if t.Insecure {
		delete(hints, "tls/expiry")
	}
	for _, c := range r.Checks {
		if hint := hints[c.Name]; c.Result == Fail && hint != "" {
			return hint
		}
	}
	return ""
}
