package suite

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
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

// healthCases break a relay and expect it to be noticed, and mended where it can be.
var healthCases = []Case{
	{Name: "health/hung", run: caseHung},
	{Name: "health/stun-port-taken", run: caseSTUNPortTaken},
	{Name: "health/restart", run: caseRestart},
	{Name: "health/metrics", run: caseMetrics},
}

// healthLimit is the timeout of the image's health check.
const healthLimit = 5 * time.Second

// caseHung stops derper as if it hung.
func caseHung(ctx context.Context, b *bed) {
	c := b.healthy(ctx, container.Spec{}, open)
	derper := c.kill(ctx, "derper", syscall.SIGSTOP)
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
	must.Do(syscall.Kill(derper.PID, syscall.SIGCONT))
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
	c.settle()
	taken := false
	for i := 0; i < tries && !taken; i++ { // no more: derper that ends again and again ends the container
		b.eventually(ctx, func() { c.kill(ctx, "derper", syscall.SIGKILL) })
		taken = next(time.Second)
	}
	if !taken {
		fail("derper always got its STUN port back before it could be taken")
	}
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

// metricsPort is where a relay serves its metrics, in cases that look at them.
var metricsPort = tcp(9100)

// metered is a relay that serves its metrics.
func (b *bed) metered(ctx context.Context, env ...string) *box {
	return b.relay(ctx, container.Spec{Ports: []container.Port{httpsPort, httpPort, stunPort, metricsPort}}, append(env, "METRICS_ADDR=:9100")...)
}

// status expects an answer of the server for orchestrators.
func (c *box) status(ctx context.Context, path string, want int) *probe.Page {
	p := c.request(ctx, "GET", "http", metricsPort, path)
	must.Do(p.Want(want))
	return p
}

// sample is a line of Prometheus's text form.
// Source: https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md.
var sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{.*\})?) (\S+)$`)

// metrics are the numbers that a relay serves, by name and labels.
func (c *box) metrics(ctx context.Context) map[string]float64 {
	p := c.status(ctx, "/metrics", http.StatusOK)
	list := map[string]float64{}
	for line := range strings.Lines(p.Text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			fail("/metrics: not a line of Prometheus's form: %q", line)
		}
		list[m[1]] = must.Get(strconv.ParseFloat(m[2], 64))
	}
	return list
}

// measures waits until a metric has a value.
func (c *box) measures(ctx context.Context, name string, want float64) {
	c.bed.eventually(ctx, func() {
		if n, ok := c.metrics(ctx)[name]; !ok || n != want {
			fail("/metrics: %s is %v, %v; wants %v", name, n, ok, want)
		}
	})
}

// caseRestart kills derper, and expects the same relay again in the same container, a word in the log, and one in the
// metrics.
func caseRestart(ctx context.Context, b *bed) {
	c := b.metered(ctx, open)
	c.ready(ctx)
	const restarts = `relay_restarts_total{program="derper"}`
	c.measures(ctx, restarts, 0)
	identity := func() (key.NodePublic, string) {
		d := must.Get(c.connect(ctx, key.NewNode()))
		defer d.Close()
		return d.ServerPublicKey(), c.leaf(ctx, c.name)
	}
	node, pin := identity()
	c.settle()
	first := c.kill(ctx, "derper", syscall.SIGKILL)
	c.logged(ctx, "derper: ended with code 137; starting it again")
	b.eventually(ctx, func() { c.get(ctx, "/derp/probe", http.StatusOK) })
	c.lives()
	if p := c.derper(ctx); p.PID == first.PID {
		fail("derper was killed, and still runs as process %d", p.PID)
	}
	if n, p := identity(); n != node || p != pin {
		fail("the node key was %v, it is %v; the certificate was %s, it is %s", node, n, pin, p)
	}
	c.measures(ctx, restarts, 1)
	c.ready(ctx)
}

// caseMetrics looks at a relay as an orchestrator does, and at what such a server must not give away.
func caseMetrics(ctx context.Context, b *bed) {
	c := b.metered(ctx, open)
	c.ready(ctx)
	b.eventually(ctx, func() { c.status(ctx, "/readyz", http.StatusOK) })
	c.status(ctx, "/livez", http.StatusOK)
	d := must.Get(c.connect(ctx, key.NewNode()))
	defer d.Close()

	if kind := c.status(ctx, "/metrics", http.StatusOK).Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
		fail("/metrics: is of type %q", kind)
	}
	all := c.metrics(ctx)
	value := func(prefix, text string) (n float64, ok bool) {
		for name := range all {
			if strings.HasPrefix(name, prefix) && strings.Contains(name, text) {
				return all[name], true
			}
		}
		return 0, false
	}
	version := must.Get(lock.ParseImageVersion(must.Get(b.image.ConfigFile()).Config.Labels[image.LabelVersion])).Tailscale
	if n, ok := value("relay_info{", `"`+strings.TrimPrefix(version, "v")); !ok || n != 1 {
		fail("/metrics: no relay_info of version %s: %v", version, all)
	}
	if n := all["relay_up"]; n != 1 {
		fail("/metrics: relay_up is %v", n)
	}
	if n := all["relay_certificate_expires_days"]; n < 1 {
		fail("/metrics: relay_certificate_expires_days is %v", n)
	}
	if n, _ := value("derp_", "current_connections"); n < 1 { // derper's own
		fail("/metrics: a client is connected, and derper's number of connections is %v: %v", n, all)
	}
	for _, path := range []string{"/", "/debug/", "/debug/vars", "/debug/varz", "/debug/pprof/", "/derp/probe", "/metrics/"} {
		c.status(ctx, path, http.StatusNotFound)
	}

	derper := c.kill(ctx, "derper", syscall.SIGSTOP)
	b.eventually(ctx, func() {
		c.status(ctx, "/livez", http.StatusServiceUnavailable)
		c.status(ctx, "/readyz", http.StatusServiceUnavailable)
	})
	c.measures(ctx, "relay_up", 0)
	must.Do(syscall.Kill(derper.PID, syscall.SIGCONT))
	b.eventually(ctx, func() { c.status(ctx, "/livez", http.StatusOK) })

	// A relay that lets nobody in is alive: to start it again would not help.
	closed := b.metered(ctx)
	closed.logged(ctx, "NO CLIENT IS LET IN")
	b.eventually(ctx, func() { closed.status(ctx, "/livez", http.StatusOK) })
	closed.measures(ctx, "relay_verification_ok", 0)
}
