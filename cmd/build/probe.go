package main

import (
	"fmt"
	"io"
	"log"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/probe"
)

// newProbe is build probe. Rows come on stdout as they are known, or with --json one JSON value at the end.
func newProbe(e *env) *cobra.Command {
	var t probe.Target
	c := &cobra.Command{
		Use:   "probe [flags] HOST[:PORT]",
		Short: "ask a live relay what Tailscale clients need of it",
		Long: `probe asks a live relay what Tailscale clients need of it and prints a row per
check: pass, fail, or skip and why. The exit code is not 0 if a check failed.
The flags are as in the node of a DERP map. A relay that verifies its clients
shuts the door on new node keys: to look behind it, give two keys that it knows
with --node-key.`,
		Example: `  build probe relay.example.com
  build probe --cert-name sha256-raw:0123…cdef --stun-port 3479 192.0.2.7:8443`,
		Args: cli.One("relays"),
	}
	f := c.Flags()
	f.StringVar(&t.CertName, "cert-name", "", "`pin` of the relay's certificate: sha256-raw: and 64 hex digits, as derper prints it")
	f.IntVar(&t.STUNPort, "stun-port", 3478, "UDP `port` of STUN, -1 for a relay without")
	f.IntVar(&t.HTTPPort, "http-port", 80, "TCP `port` of plain HTTP, -1 for a relay without")
	f.BoolVar(&t.Insecure, "insecure", false, "do not verify the certificate, unless --cert-name is given")
	f.StringVar(&t.Home, "home", "", "expected home `page`: default, blank or the URL that it redirects to (any of them if empty)")
	f.IntVar(&t.Packets, "packets", 10_000, "`number` of packets to relay")
	f.DurationVar(&t.Timeout, "timeout", 5*time.Second, "`time` for a check; many packets may take ten times as long")
	f.Func("addr", "`IP` to ask in place of what DNS says, may be repeated", func(s string) error {
		a, err := netip.ParseAddr(s)
		t.Addrs = append(t.Addrs, a)
		return err
	})
	f.Func("node-key", "`file` with a node key (privkey:…) that the relay knows, give two", func(s string) error {
		k, err := probe.ReadNodeKey(s)
		t.Keys = append(t.Keys, k)
		return err
	})
	out := newPrinter(e, c)
	c.PreRunE = func(_ *cobra.Command, args []string) (err error) {
		if t.Host, t.Port, err = probe.SplitHostPort(args[0]); err == nil {
			err = t.Validate()
		}
		if err != nil {
			err = cli.Usage("probe: %w", err)
		}
		return err
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		log.SetOutput(io.Discard) // tailscale's packages log what is in the findings anyway
		if !out.asJSON {
			t.Progress = func(c probe.Check) { fmt.Fprintln(e.stdout, c) }
		}
		r := probe.Run(c.Context(), t)
		switch err := out.print(r, "{{.Summary}}\n"); {
		case err != nil:
			return fmt.Errorf("probe: %w", err)
		case c.Context().Err() != nil:
			return fmt.Errorf("probe: %s: interrupted", r.Relay)
		case !r.OK():
			err := fmt.Errorf("probe: %s: %d of %d checks failed", r.Relay, r.Count(probe.Fail), len(r.Checks))
			return cli.Failed(err, r.Hint(t))
		}
		if c, _ := r.Find("derp/handshake"); c.Result == probe.Skip {
			fmt.Fprintf(e.stderr, "build: probe: %s: not asked to relay: %s\n", r.Relay, c.Reason)
		}
		return nil
	}
	return c
}
