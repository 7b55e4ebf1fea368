package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/supervisor"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// How long things may take. A stop has 3 seconds in all: Docker kills after
// ten, Kubernetes after thirty, and people press Ctrl-C again after five.
const (
	derperGrace     = 1500 * time.Millisecond
	tailscaledGrace = 1 * time.Second
	joinPatience    = 30 * time.Second // derper then starts anyway: STUN works
	watchInterval   = 2 * time.Second  // for a changed certificate
	remindInterval  = time.Minute
	expiryInterval  = 24 * time.Hour
)

// A pod is what runs in the container when the entrypoint stays.
type pod struct {
	launch
	*supervisor.Supervisor
	cert *certificate.Certificate // that derper serves; nil if it is none of ours
	mute map[string]bool          // certificate errors that were logged

	derper     *supervisor.Process
	sidecar    *supervisor.Process
	place      tailscaled.Place
	started    time.Time // of sidecar
	backoff    supervisor.Backoff
	restart    <-chan time.Time // when to start the sidecar again
	loginShown string
}

func supervise(l launch, cert *certificate.Certificate) int {
	debug.SetGCPercent(20) // little is live, and nothing is in a hurry
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	p := &pod{launch: l, Supervisor: supervisor.New(), cert: cert, mute: make(map[string]bool)}
	if l.relay.Sidecar() {
		if code, ok := p.join(signals); !ok {
			return code
		}
	}
	return p.loop(signals)
}

// join starts tailscaled and waits until it runs. It returns false if the
// program is to end.
func (p *pod) join(signals <-chan os.Signal) (code int, ok bool) {
	place, err := tailscaled.Choose(p.relay.Get("CERT_DIR"))
	if err != nil {
		logf("%v", err)
		return 1, false
	}
	if place.State == "" {
		logf("warning: tailscaled: CERT_DIR is not writable, so it joins as a new ephemeral node at each start")
	}
	p.place = place
	p.relay.Set = p.relay.With("SOCKET", place.Socket)
	if err := p.startSidecar(); err != nil {
		logf("tailscaled: %v", err)
		return 1, false
	}
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	patience := time.NewTimer(joinPatience)
	defer patience.Stop()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				continue
			}
			logf("tailscaled: %v, not waiting any longer", sig)
			p.stopSidecar()
			return 0, false // as derper does
		case <-p.sidecar.Done():
			p.sidecarEnded()
		case <-p.restart:
			p.restartSidecar()
		case <-patience.C:
			logf("tailscaled: is not ready after %v; derper starts, but lets no client in", joinPatience)
			return 0, true
		case <-poll.C:
			if status, err := ask(place.Socket); err == nil {
				if status.Ready() {
					logf("tailscaled: %s is ready to verify clients", status.Version)
					return 0, true
				}
				p.showLogin(status)
			}
		}
	}
}

// showLogin prints the URL at which to log in, if tailscaled waits for that.
func (p *pod) showLogin(status tailscaled.Status) {
	if status.BackendState != "NeedsLogin" || p.relay.Get("TS_AUTHKEY") != "" {
		return
	}
	if status.AuthURL == "" {
		if p.loginShown == "" {
			p.loginShown = "asked"
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := tailscaled.Login(ctx, p.place.Socket); err != nil {
				p.loginShown = ""
			}
		}
		return
	}
	if status.AuthURL != p.loginShown {
		p.loginShown = status.AuthURL
		logf("tailscaled: log in at %s", status.AuthURL)
	}
}

func (p *pod) startSidecar() error {
	config, err := filled(tailscaled.Config(tailscaled.Options{
		AuthKey:     p.relay.Get("TS_AUTHKEY"),
		LoginServer: p.relay.Get("TS_LOGIN_SERVER"),
		Hostname:    p.relay.Get("TS_HOSTNAME"),
	}))
	if err != nil {
		return err
	}
	defer config.Close()
	p.started = time.Now()
	p.sidecar, err = p.Start(program("tailscaled"), p.place.Args("/proc/self/fd/3"), p.place.Environ(p.environ), config)
	return err
}

func (p *pod) sidecarEnded() {
	wait := p.backoff.Next(time.Since(p.started))
	logf("tailscaled: ended with code %d; next start in %v", p.sidecar.Code(), wait)
	p.sidecar = nil
	p.restart = time.After(wait)
}

func (p *pod) restartSidecar() {
	p.restart = nil
	if err := p.startSidecar(); err != nil {
		logf("tailscaled: %v", err)
		p.restart = time.After(p.backoff.Next(0))
	}
}

func (p *pod) stopSidecar() {
	p.sidecar.Stop(tailscaledGrace)
	if dir := filepath.Dir(p.place.Socket); p.place.Socket != "" && dir != p.place.State {
		os.RemoveAll(dir)
	}
}

func (p *pod) startDerper() error {
	flags, files, err := p.secrets(func(i int, _ *os.File) uintptr { return uintptr(3 + i) })
	for _, f := range files {
		defer f.Close()
	}
	if err != nil {
		return err
	}
	p.derper, err = p.Start(program("derper"), append(p.relay.Flags(), flags...), p.environ, files...)
	return err
}

// loop runs until derper has ended and returns its code.
func (p *pod) loop(signals <-chan os.Signal) int {
	if err := p.startDerper(); err != nil {
		logf("derper: %v", err)
		p.stopSidecar()
		return 1
	}
	watch := time.NewTicker(watchInterval)
	remind := time.NewTicker(remindInterval)
	expiry := time.NewTicker(expiryInterval)
	p.remind()
	for {
		select {
		case sig := <-signals:
			switch sig {
			case syscall.SIGTERM, syscall.SIGINT:
				p.derper.Stop(derperGrace)
			case syscall.SIGHUP:
				p.hangUp()
			default:
				p.derper.Signal(sig.(syscall.Signal))
			}
		case <-p.derper.Done():
			p.stopSidecar()
			if code := p.derper.Code(); code != 0 {
				logf("derper: ended with code %d", code)
				return code
			}
			return 0
		case <-p.sidecar.Done():
			p.sidecarEnded()
		case <-p.restart:
			p.restartSidecar()
		case <-watch.C:
			if p.newPair() {
				p.restartDerper()
			}
		case <-remind.C:
			p.remind()
		case now := <-expiry.C:
			if p.cert != nil {
				if w := p.cert.Warning(now); w != "" {
					logf("warning: certificate: %s", w)
				}
			}
		}
	}
}

// hangUp takes SIGHUP as a request to read everything again. derper does so
// itself for RATE_CONFIG, and would end on the signal without it.
func (p *pod) hangUp() {
	switch {
	case p.newPair():
		p.restartDerper()
	case p.relay.Get("RATE_CONFIG") != "":
		p.derper.Signal(syscall.SIGHUP)
	case p.cert != nil:
		logf("certificate: hang-up signal, restarting derper")
		p.restartDerper()
	}
}

// newPair reports whether there is another pair than the one that derper
// serves, and makes it the current one. A pair that is being replaced does not
// fit together for a moment; a broken one is logged once and left alone.
func (p *pod) newPair() bool {
	if p.cert == nil {
		return false
	}
	cert, err := p.relay.Pair().Load()
	if err != nil {
		if !p.mute[err.Error()] {
			logf("warning: certificate: %v; derper keeps the one it has", err)
			p.mute[err.Error()] = true
		}
		return false
	}
	clear(p.mute)
	if cert.Same(*p.cert) {
		return false
	}
	p.cert = &cert
	logf("certificate: new one, valid until %s; restarting derper", cert.Leaf.NotAfter.UTC().Format("2006-01-02"))
	return true
}

func (p *pod) restartDerper() {
	p.derper.Stop(derperGrace)
	if err := p.startDerper(); err != nil {
		logf("derper: %v", err) // Done of the old process ends the loop
	}
}

// remind says what keeps clients out, as long as it does.
func (p *pod) remind() {
	if !p.relay.Verifies() {
		return
	}
	d := tailscaled.Diagnose(context.Background(), tailscaled.Verifier{
		Socket:     p.relay.Get("SOCKET"),
		Own:        p.relay.Sidecar(),
		HasAuthKey: p.relay.Get("TS_AUTHKEY") != "",
		HasURL:     p.relay.Get("VERIFY_CLIENT_URL") != "",
	})
	if p.relay.Sidecar() {
		p.showLogin(d.Status)
	}
	if d.Reason == nil {
		return
	}
	logf("NO CLIENT IS LET IN: %s", d.Reason.What)
	if d.Reason.Hint != "" {
		hint("%s", d.Reason.Hint)
	}
}

// ask is for those who ask again soon.
func ask(socket string) (tailscaled.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return tailscaled.Ask(ctx, socket)
}
