package suite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
)

// open lets every client in: it is what most cases set, and nothing else.
const open = "VERIFY_CLIENTS=false"

var probeCases = []Case{
	{Name: "default", run: caseDefault},
	{Name: "probe/ipv4", Everywhere: true, run: func(ctx context.Context, b *bed) {
		b.healthy(ctx, container.Spec{}, open).probe(ctx, probe.Target{Host: "127.0.0.1"}, "ipv6")
	}},
	{Name: "probe/ipv6", Everywhere: true, run: func(ctx context.Context, b *bed) {
		must.Do(hasIPv6())
		b.healthy(ctx, container.Spec{}, open, "HOSTNAME=::1").probe(ctx, probe.Target{Host: "::1"}, "ipv4")
	}},
	{Name: "probe/name", Everywhere: true, run: func(ctx context.Context, b *bed) {
		addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
		var none []string
		if hasIPv6() != nil {
			none = []string{"ipv6"}
		}
		c := b.healthy(ctx, container.Spec{}, open, "HOSTNAME=relay.example")
		c.probe(ctx, probe.Target{Host: "relay.example", Addrs: addrs}, none...)
	}},
	{Name: "probe/published", run: casePublished},
}

// hasIPv6 returns why IPv6 cannot be tested.
func hasIPv6() error {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return probe.Skipped(fmt.Sprintf("this machine has no IPv6: %v", err))
	}
	return c.Close()
}

// probe asks a relay everything, in its own network and on the ports that it has there. No check may be left out but
// those of the IP version that is not there.
func (c *box) probe(ctx context.Context, t probe.Target, without ...string) {
	t.CertName, t.Timeout, t.Home = c.derpMap(ctx).CertName, checkPatience, probe.HomeDefault
	if c.bed.foreign {
		t.Packets = 1000
	}
	c.bed.judge(work[*probe.Findings](ctx, c, "probe", t), without...)
}

// checkPatience is how long a check of a relay may take here, where relays of other tests, and of other platforms in an
// emulator, work beside it.
const checkPatience = 30 * time.Second

// judge passes a report in which nothing failed, and nothing was skipped but what may be: checks whose names have one of
// these texts.
func (b *bed) judge(r *probe.Findings, maySkip ...string) {
	b.note = fmt.Sprintf("%d checks passed", r.Count(probe.Pass))
	var errs []error
	for _, c := range r.Checks {
		may := slices.ContainsFunc(maySkip, func(text string) bool { return strings.Contains(c.Name, text) })
		if c.Result == probe.Fail || c.Result == probe.Skip && !may {
			errs = append(errs, fmt.Errorf("%s: %s: %s", c.Name, c.Result, c.Reason))
		}
	}
	if len(r.Checks) == 0 {
		fail("nothing was asked")
	}
	must.Do(errors.Join(errs...))
}

// caseDefault starts the image without any setting, as somebody who tries it. It then verifies clients, but has nobody
// to ask: it must serve STUN, HTTP and TLS, let nobody in, and say so.
func caseDefault(ctx context.Context, b *bed) {
	c := b.relay(ctx, container.Spec{})
	c.logged(ctx, "NO CLIENT IS LET IN")
	c.logged(ctx, "serving on ")
	t := probe.Target{Host: "127.0.0.1", Home: probe.HomeDefault, Timeout: checkPatience}
	b.eventually(ctx, func() { t.CertName = c.derpMap(ctx).CertName })
	r := work[*probe.Findings](ctx, c, "probe", t)
	if shake, _ := r.Find("derp/handshake"); shake.Result != probe.Skip || !strings.Contains(shake.Reason, "verifies its clients") {
		fail("derp/handshake: %s: %s: wants a client without a name in the tailnet to be refused", shake.Result, shake.Reason)
	}
	if _, err := c.healthcheck(ctx); err == nil || !strings.Contains(err.Error(), "verification") {
		fail("health check: wants unhealthy because of verification, got %v", err)
	}
	b.judge(r, "derp/", "ipv6")
}

// casePublished asks from this machine, through ports published the way a user does.
func casePublished(ctx context.Context, b *bed) {
	c := b.run(ctx, container.Spec{Ports: []container.Port{httpsPort, httpPort, stunPort}, Env: []string{open}})
	c.ready(ctx)
	port := func(p container.Port) int { return int(must.Get(c.Addr(p)).Port()) }
	t := probe.Target{
		Host: "127.0.0.1", Port: port(httpsPort), HTTPPort: port(httpPort), STUNPort: port(stunPort),
		CertName: c.derpMap(ctx).CertName, Timeout: checkPatience, Via: c.Via(), Home: probe.HomeDefault,
	}
	b.judge(probe.Run(ctx, t), "ipv6")
}

// caseHardened runs the relay as a user without any right, and asks it everything all the same.
func caseHardened(ctx context.Context, b *bed) {
	const uid = 65532
	dir := b.volume("certs")
	docker := b.runner.String() == "docker"
	if docker {
		// As the owner of a volume would have it.
		must.Do(os.Chown(dir, uid, uid))
		must.Do(os.Chmod(dir, 0o700))
	}
	c := b.healthy(ctx, container.Spec{
		User: fmt.Sprintf("%d:%[1]d", uid), ReadOnly: true, NoCaps: true, NoNewPrivs: true,
		Volumes: []container.Volume{{Host: dir, Container: "/root/derper-certs"}},
	}, open)
	p := c.derper(ctx)
	if !docker {
		p.UID = uid // which the container's only user is in there, though not as seen from here
	}
	if p.UID != uid || strings.Trim(p.CapEff, "0") != "" || p.NoNewPrivs != "1" {
		fail("not hardened: uid %d, capabilities %s, no-new-privileges %s", p.UID, p.CapEff, p.NoNewPrivs)
	}
	if out, err := c.Exec(ctx, "/entrypoint", "env"); err != nil || out.Code != 0 {
		fail("env: code %d, %v: %s", out.Code, err, out.Stderr)
	}
	names, err := os.ReadDir(dir)
	if err != nil || !slices.ContainsFunc(names, func(e os.DirEntry) bool { return e.Name() == "127.0.0.1.crt" }) {
		fail("the volume has %v, wants the certificate: %v", names, err)
	}
	c.probe(ctx, probe.Target{Host: "127.0.0.1"}, "ipv6")
}
