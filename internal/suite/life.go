package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
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
	{Name: "hardened", Everywhere: true, run: caseHardened},
	{Name: "sigterm", Everywhere: true, run: caseSIGTERM},
	{Name: "sigterm/tailscaled", run: caseSIGTERMTailscaled},
	{Name: "new-container", run: caseNewContainer},
	{Name: "rate-limit", run: caseRateLimit},
}

// healthCases break a relay and expect the health check to notice.
var healthCases = []Case{
	{Name: "health/hung", run: caseHung},
	{Name: "health/stun-port-taken", run: caseSTUNPortTaken},
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

// caseSIGTERM stops a relay in the forms that it has without a tailnet: derper alone, below the entrypoint, and before
// there is a tailscaled.
func caseSIGTERM(ctx context.Context, b *bed) {
	var errs []error
	var notes []string
	for _, form := range []struct {
		name string
		env  []string
	}{
		{"alone", []string{open}},
		{"supervised", []string{open, "HOSTNAME=relay.example"}},
		{"without tailscaled", nil},
	} {
		took, err := stopTime(ctx, func() *box {
			c := b.relay(ctx, container.Spec{}, form.env...)
			c.logged(ctx, "serving on ")
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
	c := b.healthy(ctx, container.Spec{Volumes: []container.Volume{{Host: dir, Container: "/config"}}}, open, "RATE_CONFIG=/config/rate.json")
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

// healthLimit is the timeout of the image's health check.
const healthLimit = 5 * time.Second

// caseHung stops derper as if it hung.
func caseHung(ctx context.Context, b *bed) {
	c := b.healthy(ctx, container.Spec{}, open)
	must.Do(c.Signal(syscall.SIGSTOP))
	var said string
	took := fastest(healthLimit, func() time.Duration {
		began := time.Now()
		var err error
		if said, err = c.healthcheck(ctx); !errors.Is(err, errUnhealthy) {
			fail("derper hangs, and the health check says %q, %v", said, err)
		}
		return time.Since(began)
	})
	if took > healthLimit {
		fail("the health check took %v of the %v that it has", took.Round(time.Millisecond), healthLimit)
	}
	must.Do(c.Signal(syscall.SIGCONT))
	if err := probe.Caught(func() { c.ready(ctx) }); err != nil {
		fail("derper goes on: %w", err)
	}
	b.note = strings.ReplaceAll(said, "\n", "; ")
}

// caseSTUNPortTaken takes the STUN port in the moment in which derper is restarted. derper itself does not say a word.
func caseSTUNPortTaken(ctx context.Context, b *bed) {
	c := b.healthy(ctx, container.Spec{}, open, "HOSTNAME=relay.example")
	hctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said, held := make(words, 10), make(chan error, 1)
	go func() { held <- runWorker(hctx, c, "hold", stunPort.Number, said) }()
	// next is whether the worker has said one more word: first that it waits for the port, then that it has it.
	next := func(patience time.Duration) bool {
		select {
		case <-said:
			return true
		case <-ctx.Done():
		case <-time.After(patience):
		}
		return false
	}
	if !next(b.patience) {
		fail("the worker that takes the STUN port does not start")
	}
	b.eventually(ctx, func() {
		must.Do(c.Signal(syscall.SIGHUP)) // a new certificate, maybe: restarts derper
		if !next(time.Second) {
			fail("derper always got its STUN port back before it could be taken")
		}
	})
	if err := probe.Caught(func() { b.eventually(ctx, func() { c.get(ctx, "/derp/probe", 200) }) }); err != nil {
		fail("derper did not come back: %w", err)
	}
	if said, err := c.healthcheck(ctx); err == nil || !strings.Contains(err.Error(), "stun") {
		fail("the STUN port is another program's, and the health check says %q, %v", said, err)
	}
	cancel()
	<-held
}

// words are what is written, one by one.
type words chan string

func (w words) Write(p []byte) (int, error) {
	for _, word := range strings.Fields(string(p)) {
		w <- word
	}
	return len(p), nil
}
