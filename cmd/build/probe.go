package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"tailscale.com/types/key"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/probe"
)

const probeSynopsis = `probe asks a live relay what Tailscale clients need of it and prints a row per check: pass, fail, or
skip and why. The exit code is not 0 if a check failed. The flags are as in the node of a DERP map.
A relay that verifies its clients shuts the door on new node keys: to look behind it, give two keys
that it knows with --node-key.`

const probeExample = `  build probe relay.example.com
  build probe --cert-name sha256-raw:0123…cdef --stun-port 3479 192.0.2.7:8443`

// runProbe is build probe. Rows come on stdout as they are known, or with --json one JSON value at the end.
func runProbe(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var t probe.Target
	fs := newFlags("probe [flags] HOST[:PORT]", probeSynopsis, probeExample, stdout)
	fs.BoolVar(&fs.asJSON, "json", false, "print the report as JSON")
	fs.StringVar(&t.CertName, "cert-name", "", "`pin` of the relay's certificate: sha256-raw: and 64 hex digits, as derper prints it")
	fs.IntVar(&t.STUNPort, "stun-port", 3478, "UDP `port` of STUN, -1 for a relay without")
	fs.IntVar(&t.HTTPPort, "http-port", 80, "TCP `port` of plain HTTP, -1 for a relay without")
	fs.BoolVar(&t.Insecure, "insecure", false, "do not verify the certificate, unless --cert-name is given")
	fs.StringVar(&t.Home, "home", "", "expected home `page`: default, blank or the URL that it redirects to (any of them if empty)")
	fs.IntVar(&t.Packets, "packets", 10_000, "`number` of packets to relay")
	fs.DurationVar(&t.Timeout, "timeout", 5*time.Second, "`time` for a check; many packets may take ten times as long")
	fs.Func("addr", "`IP` to ask in place of what DNS says, may be repeated", func(s string) error {
		a, err := netip.ParseAddr(s)
		t.Addrs = append(t.Addrs, a)
		return err
	})
	fs.Func("node-key", "`file` with a node key (privkey:…) that the relay knows, give two", func(s string) error {
		k, err := readNodeKey(s)
		t.Keys = append(t.Keys, k)
		return err
	})
	host, err := fs.parseOne(args, "relays", "")
	if err != nil {
		return err
	}
	if t.Host, t.Port, err = splitHostPort(host); err == nil {
		err = t.Validate()
	}
	if err != nil {
		return cli.Usage("probe: %w", err)
	}

	log.SetOutput(io.Discard) // tailscale's packages log what is in the findings anyway
	if !fs.asJSON {
		t.Progress = func(c probe.Check) { fmt.Fprintln(stdout, c) }
	}
	r := probe.Run(ctx, t)
	switch err = fs.print(r, "{{.Summary}}\n"); {
	case err != nil:
		return fmt.Errorf("probe: %w", err)
	case ctx.Err() != nil:
		return fmt.Errorf("probe: %s: interrupted", r.Relay)
	case !r.OK():
		err := fmt.Errorf("probe: %s: %d of %d checks failed", r.Relay, r.Count(probe.Fail), len(r.Checks))
		return cli.Failed(err, probeHint(t, r))
	}
	if c, _ := r.Find("derp/handshake"); c.Result == probe.Skip {
		fmt.Fprintf(stderr, "build: probe: %s: not asked to relay: %s\n", r.Relay, c.Reason)
	}
	return nil
}

// probeHint says what to try next when the failures are of a kind that a flag may be the answer to.
func probeHint(t probe.Target, r *probe.Findings) string {
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
		if hint := hints[c.Name]; c.Result == probe.Fail && hint != "" {
			return hint
		}
	}
	return ""
}

// splitHostPort takes HOST, HOST:PORT, and IPv6 addresses with and without brackets.
func splitHostPort(s string) (host string, port int, err error) {
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

// readNodeKey reads a key as tailscale writes it in its state. The file is named in errors, its content never.
func readNodeKey(file string) (k key.NodePrivate, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return k, err
	}
	if err := k.UnmarshalText([]byte(strings.TrimSpace(string(b)))); err != nil {
		return k, fmt.Errorf("%s: not a node key of the form privkey:…", file)
	}
	return k, nil
}
