package suite

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
)

// open lets every client in: it is what most cases set, and nothing else.
const open = "VERIFY_CLIENTS=false"

var probeCases = []Case{
	{Name: "default", run: caseDefault},
	{Name: "probe/ipv4", Everywhere: true, run: func(ctx context.Context, b *bed) error {
		return b.probe(ctx, container.Spec{}, probeTarget{Host: "127.0.0.1"}, "ipv6", open)
	}},
	{Name: "probe/ipv6", Everywhere: true, run: func(ctx context.Context, b *bed) error {
		if err := hasIPv6(); err != nil {
			return err
		}
		return b.probe(ctx, container.Spec{}, probeTarget{Host: "::1"}, "ipv4", open, "HOSTNAME=::1")
	}},
	{Name: "probe/name", Everywhere: true, run: func(ctx context.Context, b *bed) error {
		addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
		none := ""
		if hasIPv6() != nil {
			none = "ipv6"
		}
		return b.probe(ctx, container.Spec{}, probeTarget{Host: "relay.example", Addrs: addrs}, none, open, "HOSTNAME=relay.example")
	}},
	{Name: "probe/published", run: casePublished},
}

// hasIPv6 returns why IPv6 cannot be tested.
func hasIPv6() error {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return skip(fmt.Sprintf("this machine has no IPv6: %v", err))
	}
	return c.Close()
}

// probe starts a relay and asks it everything, in its own network and on the ports that it has there. No check may be
// left out but those of the IP version that is not there.
func (b *bed) probe(ctx context.Context, s container.Spec, t probeTarget, without string, env ...string) error {
	c, err := b.relay(ctx, s, env...)
	if err != nil {
		return err
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	return c.probe(ctx, t, without)
}

func (c *box) probe(ctx context.Context, t probeTarget, without string) error {
	n, err := c.derpMap(ctx)
	if err != nil {
		return err
	}
	t.CertName, t.Timeout = n.CertName, checkPatience
	if c.bed.foreign {
		t.Packets = 1000
	}
	r, err := work[*probe.Findings](ctx, c, "probe", t)
	if err != nil {
		return err
	}
	return c.bed.judge(r, func(check string) bool { return without != "" && strings.Contains(check, without) })
}

// checkPatience is how long a check of a relay may take here, where relays of other tests, and of other platforms in an
// emulator, work beside it.
const checkPatience = 30 * time.Second

// judge passes a report in which nothing failed, and nothing was skipped but what may be.
func (b *bed) judge(r *probe.Findings, maySkip func(check string) bool) error {
	b.note = fmt.Sprintf("%d checks passed", r.Count(probe.Pass))
	var errs []error
	for _, c := range r.Checks {
		if c.Result == probe.Fail || c.Result == probe.Skip && !maySkip(c.Name) {
			errs = append(errs, fmt.Errorf("%s: %s: %s", c.Name, c.Result, c.Reason))
		}
	}
	if len(r.Checks) == 0 {
		return errors.New("nothing was asked")
	}
	return errors.Join(errs...)
}

// caseDefault starts the image without any setting, as somebody who tries it. It then verifies clients, but has nobody
// to ask: it must serve STUN, HTTP and TLS, let nobody in, and say so.
func caseDefault(ctx context.Context, b *bed) error {
	c, err := b.relay(ctx, container.Spec{})
	if err != nil {
		return err
	}
	if err := c.logged(ctx, "NO CLIENT IS LET IN"); err != nil {
		return err
	}
	if err := c.logged(ctx, "serving on "); err != nil {
		return err
	}
	t := probeTarget{Host: "127.0.0.1", Timeout: checkPatience}
	if err := b.eventually(ctx, func() error {
		n, err := c.derpMap(ctx)
		t.CertName = n.CertName
		return err
	}); err != nil {
		return err
	}
	r, err := work[*probe.Findings](ctx, c, "probe", t)
	if err != nil {
		return err
	}
	if shake, _ := r.Find("derp/handshake"); shake.Result != probe.Skip || !strings.Contains(shake.Reason, "verifies its clients") {
		return fmt.Errorf("derp/handshake: %s: %s: wants a client without a name in the tailnet to be refused", shake.Result, shake.Reason)
	}
	if _, err := c.healthcheck(ctx); err == nil || !strings.Contains(err.Error(), "verification") {
		return fmt.Errorf("health check: wants unhealthy because of verification, got %v", err)
	}
	return b.judge(r, func(check string) bool { return strings.HasPrefix(check, "derp/") || strings.Contains(check, "ipv6") })
}

// casePublished asks from this machine, through ports published the way a user does.
func casePublished(ctx context.Context, b *bed) error {
	s := container.Spec{Ports: []container.Port{httpsPort, httpPort, stunPort}, Env: []string{open}}
	c, err := b.run(ctx, s)
	if err != nil {
		return err
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	n, err := c.derpMap(ctx)
	if err != nil {
		return err
	}
	t := probe.Target{Host: "127.0.0.1", CertName: n.CertName, Timeout: checkPatience, Via: c.Via(), Home: probe.HomeDefault}
	for port, to := range map[container.Port]*int{httpsPort: &t.Port, httpPort: &t.HTTPPort, stunPort: &t.STUNPort} {
		at, err := c.Addr(port)
		if err != nil {
			return err
		}
		*to = int(at.Port())
	}
	return b.judge(probe.Run(ctx, t), func(check string) bool { return strings.Contains(check, "ipv6") })
}

func pinOf(der []byte) string { return fmt.Sprintf("sha256-raw:%x", sha256.Sum256(der)) }

// caseHardened runs the relay as a user without any right, and asks it everything all the same.
func caseHardened(ctx context.Context, b *bed) error {
	const uid = 65532
	dir, err := b.volume("certs")
	if err != nil {
		return err
	}
	if os.Getuid() == 0 {
		// As the owner of a volume would have it.
		err = errors.Join(os.Chown(dir, uid, uid), os.Chmod(dir, 0o700))
	}
	if err != nil {
		return err
	}
	c, err := b.relay(ctx, container.Spec{
		User: fmt.Sprintf("%d:%[1]d", uid), ReadOnly: true, NoCaps: true, NoNewPrivs: true,
		Volumes: []container.Volume{{Host: dir, Container: "/root/derper-certs"}},
	}, open)
	if err != nil {
		return err
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	p, err := c.derper(ctx)
	if err != nil {
		return err
	}
	if b.runner.String() == "native" && os.Getuid() != 0 {
		p.UID = uid // which this user is in there, though not as seen from here
	}
	if p.UID != uid || strings.Trim(p.CapEff, "0") != "" || p.NoNewPrivs != "1" {
		return fmt.Errorf("not hardened: uid %d, capabilities %s, no-new-privileges %s", p.UID, p.CapEff, p.NoNewPrivs)
	}
	if out, err := c.Exec(ctx, "/entrypoint", "env"); err != nil || out.Code != 0 {
		return fmt.Errorf("env: code %d, %v: %s", out.Code, err, out.Stderr)
	}
	if names, err := entries(dir); err != nil || !slices.Contains(names, "127.0.0.1.crt") {
		return fmt.Errorf("the volume has %v, wants the certificate: %v", names, err)
	}
	return c.probe(ctx, probeTarget{Host: "127.0.0.1"}, "ipv6")
}

func entries(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}
