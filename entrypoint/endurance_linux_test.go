package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

var (
	endureRenewals = flag.Int("endure.renewals", 3, "how often TestEndurance replaces the certificate")
	endureKills    = flag.Int("endure.kills", 2, "how often it kills derper, and how often tailscaled")
	endureMinutes  = flag.Float64("endure.minutes", 0.1, "for how many minutes clients talk at least")
)

const (
	maxAway     = 15 * time.Second // of a client that was dropped; Tailscale's wait up to 7.5 s between two tries
	maxGrowthKB = 1 << 10          // of the entrypoint's anonymous memory, from its start to its end
	maxEnd      = 3 * time.Second  // from SIGTERM on
)

// An endurance is a relay with all that can be switched on, and what is done to it.
type endurance struct {
	*testing.T
	*traffic
	*container
	inside               *started // the entrypoint as process 1
	ca                   *authority
	crt, key             string // paths
	served               []byte // the certificate
	addr, host           string // of derper
	metrics              string
	one                  key.NodePrivate // of a client that comes and goes
	causes               []*cause
	memory               [][2]int // kB, resident and anonymous
	scrapes              int
	descriptors, threads int
}

// A cause is something that is done to the relay.
type cause struct {
	what                         string
	renewals, derper, tailscaled int // of each time: how often derper gets a certificate, and which program is killed
	times, drops                 int
	slowest                      time.Duration // that a client was away
}

// works is what the health check says.
const works = "ok: stun, https, derp, verification, peer relay"

// What the entrypoint says of each.
const (
	saysRenewal    = `entrypoint: certificate: new one, valid until \S+; restarting derper\n`
	saysDerper     = `entrypoint: derper: ended with code 137; starting it again( in \d+s)?\n`
	saysTailscaled = `entrypoint: tailscaled: ended with code 137; starting it again( in \d+s)?\n`
	saysKept       = `entrypoint: warning: certificate: .*; derper keeps the one it has, until the container is started again\n`
	saysUnchanged  = `entrypoint: certificate: hang-up signal: derper keeps the one that it has\n`
)

// The mistake it guards: a relay that works, until its certificate has been renewed for
// some time, or what runs in it has ended now and then: it drops clients for no reason,
// leaves a process or a file behind each time, or takes more memory with each.
func TestEndurance(t *testing.T) {
	e := startEndurance(t)
	whole, hangUp, halves := &cause{what: "renewal", renewals: 1}, &cause{what: "renewal and SIGHUP", renewals: 1}, &cause{what: "renewal, half by half", renewals: 1}
	derper, half := &cause{what: "derper killed", derper: 1}, &cause{what: "derper killed between halves", derper: 1}
	tailscaled, both := &cause{what: "tailscaled killed", tailscaled: 1}, &cause{what: "both killed at once", derper: 1, tailscaled: 1}
	e.causes = []*cause{whole, hangUp, halves, derper, half, tailscaled, both}

	type step struct {
		at float64 // of the whole time
		c  *cause
		do func()
	}
	var steps []step
	for i := range *endureRenewals {
		at := (float64(i) + 0.5) / float64(*endureRenewals)
		switch i % 4 {
		case 0:
			steps = append(steps, step{at, whole, func() { e.replace(e.newPair()) }})
		case 1:
			steps = append(steps, step{at, halves, func() { e.replaceHalves(e.crt, e.key) }})
		case 2:
			steps = append(steps, step{at, hangUp, func() { e.replace(e.newPair()); e.inside.signal(t, syscall.SIGHUP) }})
		case 3:
			steps = append(steps, step{at, halves, func() { e.replaceHalves(e.key, e.crt) }})
		}
	}
	for i := range *endureKills {
		at := (float64(i) + 0.25) / float64(*endureKills)
		later := at + 0.5/float64(*endureKills)
		switch i % 3 {
		case 0:
			steps = append(steps, step{at, derper, func() { e.kill("derper") }}, step{later, tailscaled, func() { e.kill("tailscaled") }})
		case 1:
			steps = append(steps, step{at, half, e.killBetweenHalves}, step{later, tailscaled, func() { e.kill("tailscaled") }})
		case 2:
			steps = append(steps, step{at, both, e.killBoth})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int((a.at - b.at) * 1e6) })
	began, all := time.Now(), time.Duration(*endureMinutes*float64(time.Minute))
	for i, s := range steps {
		e.rest(time.Until(began.Add(time.Duration(s.at * float64(all)))))
		e.cause(s.c, s.do)
		if *endureMinutes >= 1 {
			t.Logf("endure: %v: %d of %d: %s", time.Since(began).Round(time.Second), i+1, len(steps), s.c.what)
		}
	}
	e.rest(time.Until(began.Add(all)))
	e.end(time.Since(began))
}

func startEndurance(t *testing.T) *endurance {
	const host = "derp.example.com"
	port := freePort(t)
	c := tailnet(t, port)
	c.DERPMap.Regions[900].Nodes[0].HostName = host // its address is there, too
	e := &endurance{T: t, host: host, addr: fmt.Sprintf("127.0.0.1:%d", port), metrics: fmt.Sprintf("127.0.0.1:%d", freePort(t)), one: key.NewNode()}
	var err error
	if e.ca, err = newAuthority(); err != nil {
		t.Fatal(err)
	}
	volume := t.TempDir()
	e.crt, e.key = filepath.Join(volume, host+".crt"), filepath.Join(volume, host+".key")
	e.replace(e.newPair())
	endpoint := netip.AddrPortFrom(public, uint16(freePort(t)))
	env := slices.DeleteFunc(tailnetEnv(t, port, c.BaseURL()), func(kv string) bool { return strings.HasPrefix(kv, "HOSTNAME=") })
	e.container = runContainer(t, volume, 65532, "read-only", append(env,
		"HOSTNAME="+host, "METRICS_ADDR="+e.metrics,
		fmt.Sprintf("PEER_RELAY_PORT=%d", endpoint.Port()), "PEER_RELAY_ENDPOINTS="+endpoint.String()))
	e.healthy(t, works)
	process, err := os.FindProcess(e.pid1(t))
	if err != nil {
		t.Fatal(err)
	}
	e.inside = &started{cmd: &exec.Cmd{Process: process}, log: e.log}
	e.confined()

	roots := x509.NewCertPool()
	roots.AddCert(e.ca.cert)
	keys := make([]key.NodePrivate, 6)
	for i := range keys {
		keys[i] = key.NewNode()
	}
	join(c, append(keys, e.one)...)
	node := &tailcfg.DERPNode{Name: "900a", RegionID: 900, HostName: host, IPv4: "127.0.0.1", IPv6: "none", DERPPort: port, STUNPort: -1}
	e.traffic = startTraffic(t, &tailcfg.DERPRegion{RegionID: 900, RegionCode: "test", Nodes: []*tailcfg.DERPNode{node}}, &tls.Config{RootCAs: roots}, keys)
	e.settle()
	e.memory = nil
	for range 5 {
		e.look()
	}
	e.descriptors, e.threads = e.count("fd"), e.count("task")
	return e
}

// confined makes sure that the relay has no more rights than it is said to have.
func (e *endurance) confined() {
	e.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.inside.cmd.Process.Pid))
	if err != nil {
		e.Fatal(err)
	}
	for _, line := range []string{"Uid:\t65532\t65532\t65532\t65532", "NoNewPrivs:\t1", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"} {
		if !strings.Contains(string(b), line+"\n") {
			e.Errorf("process 1 has no %q:\n%s", line, b)
		}
	}
	if f, err := os.Create(fmt.Sprintf("/proc/%d/root/usr/new", e.inside.cmd.Process.Pid)); !errors.Is(err, syscall.EROFS) {
		f.Close()
		e.Errorf("the root file system is not read-only: %v", err)
	}
}

// cause does something to the relay, and waits until everybody is served again. Whoever
// was dropped before, or is dropped without a line in the log that tells why, fails the
// test.
func (e *endurance) cause(c *cause, do func()) {
	e.Helper()
	before := e.did()
	if err := e.check(before.renewals+before.derper, 0); err != nil {
		e.Fatalf("before %s: %v", c.what, err)
	}
	do()
	c.times++
	e.settle()
	for _, client := range e.talkers {
		client.mu.Lock()
		for _, d := range client.drops[before.renewals+before.derper:] {
			c.drops, c.slowest = c.drops+1, max(c.slowest, d.away)
		}
		client.mu.Unlock()
	}
	if c.slowest > maxAway {
		e.Errorf("%s: a client was away for %v", c.what, c.slowest)
	}
}

// did is how often all was done.
func (e *endurance) did() (sum cause) {
	for _, c := range e.causes {
		sum.renewals += c.times * c.renewals
		sum.derper += c.times * c.derper
		sum.tailscaled += c.times * c.tailscaled
	}
	return sum
}

// settle waits until the log, the metrics and the clients agree with what was done, and
// the relay works.
func (e *endurance) settle() {
	e.Helper()
	did := e.did()
	for pattern, n := range map[string]int{saysRenewal: did.renewals, saysDerper: did.derper, saysTailscaled: did.tailscaled} {
		e.saysTimes(pattern, n)
	}
	eventually(e, time.Minute, e.serves)
	e.flows(e.T, did.renewals+did.derper)
	eventually(e, time.Minute, func() error { return e.admits(e.one) })
	e.healthy(e.T, works)
	eventually(e, time.Minute, func() error {
		text, err := e.look()
		for _, want := range []string{
			"relay_up 1\n", "relay_verification_ok 1\n",
			fmt.Sprintf("relay_restarts_total{program=\"derper\"} %d\n", did.renewals+did.derper),
			fmt.Sprintf("relay_restarts_total{program=\"tailscaled\"} %d\n", did.tailscaled),
		} {
			if err == nil && !strings.Contains(text, want) {
				err = fmt.Errorf("/metrics has no %q:\n%s", want, text)
			}
		}
		return err
	})
	e.tidy()
}

// saysTimes waits until the log has a line as often as that. That it has it too often
// is an error.
func (e *endurance) saysTimes(pattern string, n int) {
	e.Helper()
	eventually(e, time.Minute, func() error {
		if got := e.said(pattern); got != n {
			return fmt.Errorf("the log says %d times, not %d: %s", got, n, pattern)
		}
		return nil
	})
}

func (e *endurance) said(pattern string) int {
	return len(regexp.MustCompile(pattern).FindAllString(e.log.String(), -1))
}

// serves says whether derper has the certificate that it is to have.
func (e *endurance) serves() error { return servesLeaf(e.addr, e.host, e.served) }

// tidy makes sure that there is no process but those that are to be, dead or alive.
func (e *endurance) tidy() {
	e.Helper()
	eventually(e, time.Minute, func() error {
		pids, names := pidsBelow(e, e.inside), e.inside.children(e)
		slices.Sort(names)
		if len(pids) != 2 || !slices.Equal(names, []string{"derper", "tailscaled"}) {
			return fmt.Errorf("below process 1 are %d processes: %q", len(pids), names)
		}
		return nil
	})
}

// rest does nothing to the relay for a while but to ask it, as an orchestrator does.
func (e *endurance) rest(d time.Duration) {
	const interval = time.Second
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(min(interval, time.Until(end))) {
		if _, err := e.look(); err != nil {
			e.Error(err)
		}
	}
}

// look asks for the metrics, and takes the entrypoint's memory down.
func (e *endurance) look() (string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var text []byte
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		r, err := client.Get("http://" + e.metrics + path)
		if err != nil {
			return "", err
		}
		text, err = io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK {
			return "", fmt.Errorf("%s: %s: %s (%v)", path, r.Status, text, err)
		}
	}
	e.scrapes++
	resident, anonymous := memoryKB(e.T, e.inside.cmd.Process.Pid)
	e.memory = append(e.memory, [2]int{resident, anonymous})
	return string(text), nil
}

// count is how many files, or threads, process 1 has.
func (e *endurance) count(what string) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", e.inside.cmd.Process.Pid, what))
	if err != nil {
		e.Fatal(err)
	}
	return len(entries)
}

// end stops the relay, and reports.
func (e *endurance) end(took time.Duration) {
	did := e.did()
	e.settle()
	eventually(e, time.Minute, func() error {
		if n := e.count("fd"); n > e.descriptors {
			return fmt.Errorf("process 1 has %d open files, at first it had %d", n, e.descriptors)
		}
		return nil
	})
	descriptors, threads := e.count("fd"), e.count("task")
	unexplained := e.drops()
	stopped := e.stop(e.T)
	if code := e.cmd.ProcessState.ExitCode(); code != 0 || stopped > maxEnd {
		e.Errorf("the end: code %d after %v, want 0 within %v", code, stopped, maxEnd)
	}

	e.Logf("endure: %d renewals, derper killed %d times, tailscaled %d times, in %v; %d clients received %d packets; metrics and probes were asked %d times",
		did.renewals, did.derper, did.tailscaled, took.Round(time.Second), len(e.talkers), e.received.Load(), e.scrapes)
	e.Logf("endure: %-30s %6s %6s %s", "cause", "times", "drops", "slowest reconnect")
	for _, c := range e.causes {
		unexplained -= c.drops
		e.Logf("endure: %-30s %6d %6d %v", c.what, c.times, c.drops, c.slowest.Round(time.Millisecond))
	}
	e.Logf("endure: %-30s %6s %6d", "none in the log", "", unexplained)
	if unexplained != 0 {
		e.Error("clients were dropped without a cause in the log")
	}
	var start, end [2]int
	for i, what := range []string{"resident", "anonymous"} {
		var kB []int
		for _, m := range e.memory {
			kB = append(kB, m[i])
		}
		n := len(kB)
		start[i], end[i] = median(kB[:5]), median(kB[n-5:])
		e.Logf("endure: the entrypoint's %s memory: %d kB at the start, %d kB in the middle, %d kB at the end, %d kB at most",
			what, start[i], median(kB[n/2-2:n/2+3]), end[i], slices.Max(kB))
	}
	e.Logf("endure: process 1: %d open files at the start, %d at the end; %d threads, %d; it ended within %v", e.descriptors, descriptors, e.threads, threads, stopped.Round(time.Millisecond))
	if end[1]-start[1] > maxGrowthKB || end[0] > maxResidentKB {
		e.Errorf("memory: grew by %d kB, want at most %d; %d kB resident, want at most %d", end[1]-start[1], maxGrowthKB, end[0], maxResidentKB)
	}
}
