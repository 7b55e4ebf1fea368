package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"tailscale.com/types/key"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/probe"
)

// lifeCases are about starting, stopping and starting again.
var lifeCases = []Case{
	{Name: "versions", Everywhere: true, run: caseVersions},
	{Name: "env/defaults", run: caseDefaults},
	{Name: "hardened", Everywhere: true, run: caseHardened},
	{Name: "sigterm", Everywhere: true, run: caseSIGTERM},
	{Name: "sigterm/tailscaled", run: caseSIGTERMTailscaled},
	{Name: "new-container", run: caseNewContainer},
	{Name: "rate-limit", Needs: []string{"RATE_CONFIG"}, run: caseRateLimit},
}

var (
	derperCommit     = regexp.MustCompile(`-t([0-9a-f]{9})`)
	tailscaledCommit = regexp.MustCompile(`tailscale commit: ([0-9a-f]{40})`)
)

// caseVersions expects one commit: in derper, in tailscaled and in the label.
func caseVersions(ctx context.Context, b *bed) {
	labels := must.Get(b.image.ConfigFile()).Config.Labels
	label := labels[image.LabelCommit]
	if len(label) != 40 {
		fail("label %s is %q, wants a commit", image.LabelCommit, label)
	}
	v, err := lock.ParseImageVersion(labels[image.LabelVersion])
	if err != nil {
		fail("label %s: %w", image.LabelVersion, err)
	}
	version := strings.TrimPrefix(v.Tailscale, "v")
	var errs []error
	for _, p := range []struct {
		program string
		commit  *regexp.Regexp
	}{{"derper", derperCommit}, {"tailscaled", tailscaledCommit}} {
		c := b.start(ctx, container.Spec{Args: []string{p.program, "-version"}})
		code, err := c.code(ctx)
		if err != nil {
			fail("%s -version: %w", p.program, err)
		}
		said := strings.TrimSpace(c.Logs())
		m := p.commit.FindStringSubmatch(said)
		switch {
		case code != 0 || m == nil:
			errs = append(errs, fmt.Errorf("%s -version: code %d, wants a commit: %s", p.program, code, said))
		case !strings.HasPrefix(label, m[1]):
			errs = append(errs, fmt.Errorf("%s is of commit %s, the label says %s", p.program, m[1], label))
		case !strings.HasPrefix(said, version):
			errs = append(errs, fmt.Errorf("%s is %q, the label says version %s", p.program, said, version))
		}
	}
	b.note = labels[image.LabelVersion] + ", commit " + label
	must.Do(errors.Join(errs...))
}

// caseDefaults expects the defaults in the program, not in the image: who makes a container anew keeps the environment
// of the old image. The command env says where each value comes from.
func caseDefaults(ctx context.Context, b *bed) {
	if env := must.Get(b.image.ConfigFile()).Config.Env; !slices.Equal(env, []string{"PATH=/usr/local/bin"}) {
		fail("the image's environment is %q, wants nothing but PATH", env)
	}
	c := b.healthy(ctx, container.Spec{Args: []string{"-stun-port=3479"}, Ports: []container.Port{httpsPort, httpPort, udp(3479)}},
		open)
	out := must.Get(c.Exec(ctx, "/entrypoint", "env"))
	said := map[string]string{}
	for line := range strings.Lines(out.Stdout) {
		if f := strings.Fields(line); len(f) > 1 {
			said[f[0]] = strings.Join(f[1:], " ")
		}
	}
	var errs []error
	for value, origin := range map[string]string{
		"STUN_PORT=3479": "argument", "VERIFY_CLIENTS=false": "environment",
		"ADDR=:443": "default", "CERT_MODE=manual": "default", "RUN_DERP=true": "default",
	} {
		if !strings.HasPrefix(said[value], origin) {
			errs = append(errs, fmt.Errorf("env does not say that %s is from %s: %s%s", value, origin, out.Stdout, out.Stderr))
		}
	}
	// The runtime sets HOSTNAME to the container's own name, which is none of a relay.
	if _, ok := said["HOSTNAME=127.0.0.1"]; !ok {
		errs = append(errs, fmt.Errorf("env does not say HOSTNAME=127.0.0.1: %s", out.Stdout))
	}
	must.Do(errors.Join(errs...))
}

// caseSIGTERM stops a relay in the states that it has without a tailnet: it serves, there is no tailscaled, derper does
// not answer, derper is just being started again.
func caseSIGTERM(ctx context.Context, b *bed) {
	var errs []error
	var notes []string
	derper := func(s syscall.Signal) func(*box) {
		return func(c *box) {
			c.settle()
			c.kill(ctx, "derper", s)
		}
	}
	for _, form := range []struct {
		name   string
		env    []string
		before func(*box)
	}{
		{name: "serving", env: []string{open}},
		{name: "without tailscaled"},
		{name: "derper frozen", env: []string{open}, before: derper(syscall.SIGSTOP)},
		{name: "derper killed", env: []string{open}, before: derper(syscall.SIGKILL)},
	} {
		took, err := stopTime(ctx, func() *box {
			c := b.relay(ctx, container.Spec{}, form.env...)
			c.logged(ctx, "serving on ")
			if form.before != nil {
				form.before(c)
			}
			return c
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", form.name, err))
		}
		notes = append(notes, fmt.Sprintf("%s %d ms", form.name, took.Milliseconds()))
	}
	b.note = strings.Join(notes, ", ")
	must.Do(errors.Join(errs...))
}

// caseSIGTERMTailscaled stops a relay that runs beside a tailscaled.
func caseSIGTERMTailscaled(ctx context.Context, b *bed) {
	s, at := b.control(own())
	took, err := stopTime(ctx, func() *box {
		c := b.relay(ctx, container.Spec{Reach: []netip.AddrPort{at}}, "TS_AUTHKEY="+authKey, "TS_LOGIN_SERVER="+s.BaseURL())
		c.address()
		c.ready(ctx)
		return c
	})
	b.note = fmt.Sprintf("both %d ms", took.Milliseconds())
	must.Do(err)
}

// stopTime starts a relay and stops it; if that takes too long, another one, once.
func stopTime(ctx context.Context, start func() *box) (took time.Duration, err error) {
	for range 2 {
		var c *box
		if err = probe.Caught(func() { c = start() }); err != nil {
			return 0, err
		}
		if took, err = c.stop(ctx); err == nil {
			break
		}
	}
	return took, err
}

// caseNewContainer replaces a container with the volume of the README's docker run line, by a name and by an address,
// and expects the same relay.
func caseNewContainer(ctx context.Context, b *bed) {
	for _, host := range []string{"127.0.0.1", "relay.example"} {
		s := container.Spec{Volumes: []container.Volume{{Host: b.volume(host), Container: "/root/derper-certs"}}}
		var keys []key.NodePublic
		var pins []string
		for range 2 {
			c := b.healthy(ctx, s, open, "HOSTNAME="+host)
			d := must.Get(c.connect(ctx, key.NewNode()))
			keys = append(keys, d.ServerPublicKey())
			d.Close()
			pins = append(pins, c.leaf(ctx, host))
			must.Do(c.Close())
		}
		if keys[0] != keys[1] {
			fail("%s: the node key was %v, after a new container it is %v", host, keys[0], keys[1])
		}
		if pins[0] != pins[1] {
			fail("%s: the certificate was %s, after a new container it is %s", host, pins[0], pins[1])
		}
	}
}

// caseRateLimit limits clients, measures it, and lifts the limit by SIGHUP without a new connection.
func caseRateLimit(ctx context.Context, b *bed) {
	dir := b.volume("config")
	file := filepath.Join(dir, "rate.json")
	// A bucket is never smaller than a packet of 64 KiB, so one that is emptied takes a second to fill at this rate.
	const rate = 64 << 10
	must.Do(os.WriteFile(file, fmt.Appendf(nil, `{"PerClientRateLimitBytesPerSec": %d}`, rate), 0o644))
	c := b.healthy(ctx, container.Spec{Volumes: []container.Volume{{Host: dir, Container: "/config", ReadOnly: true}}}, open, "RATE_CONFIG=/config/rate.json")
	from := must.Get(c.connect(ctx, key.NewNode()))
	defer from.Close()
	to := must.Get(c.connect(ctx, key.NewNode()))
	defer to.Close()
	measure := func(when string) time.Duration {
		began := time.Now()
		for range 6 {
			if err := probe.Relay(ctx, from, to, 32<<10); err != nil {
				fail("%s: %w", when, err)
			}
		}
		return time.Since(began)
	}
	limited := measure("with the limit")
	if limited < time.Second {
		fail("192 KiB at 64 KiB a second, the first 64 KiB free, took %v: there is no limit", limited.Round(time.Millisecond))
	}
	must.Do(os.WriteFile(file, []byte("{}"), 0o644))
	must.Do(c.Signal(syscall.SIGHUP))
	c.logged(ctx, "rate config reloaded successfully")
	lifted := fastest(limited/2, func() time.Duration { return measure("after SIGHUP") })
	if lifted > limited/2 {
		fail("192 KiB took %v with a limit, and %v after SIGHUP without: the limit was not lifted",
			limited.Round(time.Millisecond), lifted.Round(time.Millisecond))
	}
	b.note = fmt.Sprintf("192 KiB in %.2fs with the limit, in %.3fs without", limited.Seconds(), lifted.Seconds())
}

// tries is how often a case measures a time before it is too long: a machine that stands still is no fault of the image.
const tries = 3

// fastest measures until it takes no longer than a limit, at most that often, and returns the last time.
func fastest(limit time.Duration, measure func() time.Duration) (took time.Duration) {
	for range tries {
		if took = measure(); took <= limit {
			break
		}
	}
	return took
}
