package main

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/xavieralpha/derper/entrypoint/admission"
	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/localapi"
	"github.com/xavieralpha/derper/entrypoint/supervisor"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// How long things may take. A stop has 3 seconds in all: Docker kills after
// ten, Kubernetes after thirty, and people press Ctrl-C again after five.
const (
	grace          = 2 * time.Second // for a program to end
	watchInterval  = 2 * time.Second // for a changed certificate
	expiryInterval = 24 * time.Hour
	// A derper that ends sooner than this has not worked.
	infancy = time.Second
	// So often in a row derper may end in its infancy, or not start at all. With
	// the pauses in between that takes seven seconds.
	maxFailures = 5
)

// A pod is all that runs in the container, and what is known of it. Its state
// belongs to the loop; others reach it with do.
type pod struct {
	launch
	*supervisor.Supervisor
	calls chan func()
	over  chan struct{} // closed when the loop has ended
	late  sync.Mutex    // held by who has the state since

	derper   *supervisor.Child
	failures int               // of derper in a row
	sidecar  *supervisor.Child // nil if no tailscaled is wanted
	place    tailscaled.Place
	printed  struct{ derper, tailscaled output }

	pair     pairState
	nodes    *admission.Nodes // nil without VERIFY_NODES
	acme     health.ACME
	verdict  verdictState
	verifier tailscaled.Verifier

	ending bool
	code   int
}

// The loop has the first thread for itself, which is the one that the kernel gives
// signals to: it would keep them, unheard, while it waited for a disk that hangs.
func init() { runtime.LockOSThread() }

// newPod prepares all that derper is started with.
func newPod(l launch, cert *certificate.Certificate) (*pod, error) {
	p := &pod{
		launch: l, Supervisor: supervisor.New(), calls: make(chan func()), over: make(chan struct{}),
		pair: pairState{served: cert, muted: make(map[string]bool)}, verdict: newVerdict(),
	}
	p.derper = supervisor.NewChild(p.startDerper)
	r := &p.relay
	if r.Sidecar() {
		var err error
		if p.place, err = tailscaled.Choose(r.Get("CERT_DIR")); err != nil {
			return nil, err
		}
		if p.place.State == "" {
			logf("warning: tailscaled: CERT_DIR is not writable, so it joins as a new ephemeral node at each start")
		}
		p.sidecar = supervisor.NewChild(p.startTailscaled)
		if err := p.printed.tailscaled.follow(nil); err != nil {
			return nil, err
		}
	}
	switch {
	case r.Verifies() && r.Sidecar():
		r.Set = r.With("SOCKET", p.place.Socket, "of the tailscaled in this image")
	case r.Verifies():
		r.Set = r.With("SOCKET", r.HostSocket(), "")
	}
	p.verifier = tailscaled.Verifier{Socket: r.Get("SOCKET"), Own: r.Sidecar(), HasAuthKey: r.Get("TS_AUTHKEY") != "", HasURL: r.Get("VERIFY_CLIENT_URL") != "", PeerRelay: r.PeerRelay()}
	if path := r.Get("VERIFY_NODES"); path != "" {
		p.nodes = admission.NewNodes(path, logf)
		url, err := p.nodes.Listen()
		if err != nil {
			return nil, err
		}
		r.Set = r.With("VERIFY_CLIENT_URL", url, "of the entrypoint itself, which answers from VERIFY_NODES")
	}
	return p, p.printed.derper.follow(p.heard)
}

// do has the loop carry out f, and waits for it. Once the loop has ended, and
// until the program does, the state is whose turn it is.
func (p *pod) do(f func()) {
	done := make(chan struct{})
	select {
	case p.calls <- func() { f(); close(done) }:
		<-done
	case <-p.over:
		p.late.Lock()
		defer p.late.Unlock()
		f()
	}
}

// run runs derper until it is to end, and returns the exit code.
func (p *pod) run() int {
	if _, err := localapi.Serve(p.answer); err != nil {
		logf("warning: commands, the health check among them: %v", err)
	}
	p.showNode()
	p.launched("derper", p.derper.Start())
	if p.sidecar != nil {
		p.launched("tailscaled", p.sidecar.Start())
	}
	debug.SetGCPercent(20) // from now on little is live, and nothing is in a hurry
	if addr := p.relay.Get("METRICS_ADDR"); addr != "" {
		go p.serveMetrics(addr)
	}
	if p.pair.served != nil {
		go p.watchPair()
	}
	go p.watchVerification()
	p.loop()
	close(p.over)
	p.cleanUp()
	return p.code
}

// loop ends when everything has.
func (p *pod) loop() {
	expiry := time.NewTicker(expiryInterval)
	for !p.ending || p.derper.Running() || p.sidecar.Running() {
		select {
		case sig := <-supervisor.Signals:
			p.signal(sig.(syscall.Signal))
		case <-p.derper.Done():
			p.derperEnded()
		case <-p.derper.Due():
			p.launched("derper", p.derper.Again())
		case <-p.derper.Overdue():
			p.derper.Kill()
		case <-p.sidecar.Done():
			p.sidecarEnded()
		case <-p.sidecar.Due():
			p.launched("tailscaled", p.sidecar.Again())
		case <-p.sidecar.Overdue():
			p.sidecar.Kill()
		case f := <-p.calls:
			f()
		case now := <-expiry.C:
			p.warnOfExpiry(now)
		}
	}
}

// end ends everything, and the loop with it.
func (p *pod) end(code int) {
	if p.ending {
		return
	}
	p.ending, p.code = true, code
	p.derper.Stop(grace)
	p.sidecar.Stop(grace)
}

func (p *pod) signal(sig syscall.Signal) {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT:
		p.end(0)
	case syscall.SIGQUIT: // derper shows what it is doing, and ends
		p.derper.Signal(sig)
		p.end(128 + int(sig))
	case syscall.SIGHUP:
		p.hangUp()
	}
}

// hangUp takes SIGHUP as a request to read everything again. derper does so
// itself for RATE_CONFIG, and would end on the signal without it.
func (p *pod) hangUp() {
	switch {
	case p.lookAtPair(true):
	case p.relay.Get("RATE_CONFIG") != "" && p.derper.Running() && p.derper.Uptime() < infancy:
		// The signal would end a derper that does not catch it yet.
		time.AfterFunc(infancy, func() { p.do(p.hangUp) })
	case p.relay.Get("RATE_CONFIG") != "" && p.derper.Running():
		p.derper.Signal(syscall.SIGHUP)
	case p.pair.served != nil:
		logf("certificate: hang-up signal: derper keeps the one that it has")
	}
}

// launched takes notice of a start.
func (p *pod) launched(name string, err error) {
	if err == nil {
		return
	}
	child := p.sidecar
	if name == "derper" {
		child = p.derper
		if p.failures++; p.failures >= maxFailures {
			logf("derper: %v; giving up", err)
			p.end(1)
			return
		}
	}
	logf("%s: %v; next start in %v", name, err, child.Wait())
}

// derperEnded starts derper again, unless it has never worked or works no more.
func (p *pod) derperEnded() {
	first := p.derper.Restarts == 0
	code, ran, asked := p.derper.Ended()
	if ran >= infancy {
		p.failures = 0
	}
	if p.ending || asked {
		return
	}
	if ran < infancy {
		p.failures++
	}
	if p.failures > 0 && (first || p.failures >= maxFailures) {
		logf("derper: ended with code %d", code)
		p.end(code)
		return
	}
	logf("derper: ended with code %d; starting it again%s", code, in(p.derper.Wait()))
}

func (p *pod) sidecarEnded() {
	code, _, asked := p.sidecar.Ended()
	if !p.ending && !asked {
		logf("tailscaled: ended with code %d; starting it again%s", code, in(p.sidecar.Wait()))
	}
}

func in(wait time.Duration) string {
	if wait == 0 {
		return ""
	}
	return " in " + wait.String()
}

func (p *pod) startDerper() (*supervisor.Process, error) {
	flags, files, err := p.secrets()
	for _, f := range files {
		defer f.Close()
	}
	if err != nil {
		return nil, err
	}
	r := p.relay
	r.Set = r.With("CERT_DIR", p.certDir(), "")
	return p.Start(supervisor.Command{
		Path: program("derper"), Args: append(r.Flags(), flags...), Environ: p.environ, Files: files, Stderr: p.printed.derper.File,
	})
}

func (p *pod) startTailscaled() (*supervisor.Process, error) {
	r := p.relay
	config, err := filled(tailscaled.Config(tailscaled.Options{
		AuthKey: r.Get("TS_AUTHKEY"), LoginServer: r.Get("TS_LOGIN_SERVER"), Hostname: r.Get("TS_HOSTNAME"),
		PeerRelayPort: r.Number("PEER_RELAY_PORT"), PeerRelayEndpoints: r.PeerRelayEndpoints(),
		// Nobody has to reach anything here through the tailnet; what would be
		// reached is this container's loopback, with derper's debug pages. A
		// peer relay needs the capabilities of the packet filter.
		ShieldsUp: !r.PeerRelay(),
	}))
	if err != nil {
		return nil, err
	}
	defer config.Close()
	return p.Start(supervisor.Command{
		Path: program("tailscaled"), Args: p.place.Args("/proc/self/fd/3"), Environ: p.place.Environ(p.environ), Files: []*os.File{config},
		Stdout: p.printed.tailscaled.File, Stderr: p.printed.tailscaled.File,
	})
}

// cleanUp leaves nothing behind, and lets both programs have their last words.
func (p *pod) cleanUp() {
	p.printed.derper.end()
	p.printed.tailscaled.end()
	if p.nodes != nil {
		p.nodes.Close() //nolint:errcheck // it ends with the program
	}
	if dir := filepath.Dir(p.place.Socket); p.place.Socket != "" && dir != p.place.State {
		os.RemoveAll(dir)
	}
	p.do(p.unstage)
}
