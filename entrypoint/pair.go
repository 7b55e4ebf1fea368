package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/check"
	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/localapi"
)

// pairState is what is known of the pair of files that derper serves. A zero
// one is for a derper that has its certificates from a CA by itself.
type pairState struct {
	served    *certificate.Certificate // with which derper was started
	candidate *certificate.Certificate // that was there at the last look
	onDisk    string                   // what is wrong with the one that is there now
	muted     map[string]bool          // what is wrong and was logged
	staged    string                   // directory with a copy of served
	shown     string                   // the node that was logged
}

// certDir is where derper finds the pair that it is to serve. That is CERT_DIR,
// unless the pair there was made unusable since it was proven: derper would end
// on it, so it gets a copy of the one that it had.
func (p *pod) certDir() string {
	dir := p.relay.Get("CERT_DIR")
	if p.pair.served == nil {
		return dir
	}
	cert, err := p.load()
	if err == nil {
		if !cert.Same(*p.pair.served) {
			p.serve(cert, "derper is started with it")
		}
		p.unstage()
		return dir
	}
	if p.pair.staged == "" {
		staged, stageErr := p.stage()
		if stageErr != nil {
			logf("warning: certificate: %v; and the one that derper had cannot be kept: %v", err, stageErr)
			return dir
		}
		p.pair.staged = staged
	}
	logf("warning: certificate: %v; derper is started with the one that it had", err)
	return p.pair.staged
}

// load returns the pair on the disk, or why derper is not to be started with it.
func (p *pod) load() (certificate.Certificate, error) {
	cert, err := p.relay.Pair().Load()
	switch {
	case errors.Is(err, certificate.ErrMissing):
		return cert, fmt.Errorf("%s and its key are gone", p.relay.Pair().Crt)
	case err != nil || cert.Same(*p.pair.served):
		return cert, err
	}
	return cert, cert.Replaces(*p.pair.served, time.Now())
}

// stage stores the served pair in a directory of its own: in memory, which
// containers can write to that have no writable disk.
func (p *pod) stage() (string, error) {
	var errs []error
	for _, parent := range []string{"/dev/shm", "", p.relay.Get("CERT_DIR")} {
		dir, err := os.MkdirTemp(parent, ".derper-pair")
		if err == nil {
			if err = p.pair.served.Store(certificate.At(dir, p.relay.Get("HOSTNAME"))); err == nil {
				return dir, nil
			}
			os.RemoveAll(dir)
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func (p *pod) unstage() {
	if p.pair.staged != "" {
		os.RemoveAll(p.pair.staged)
		p.pair.staged = ""
	}
}

// watchPair has the loop look at the pair every now and then. It reads the files
// first, outside of the loop: where their disk hangs, as one of the network may,
// the loop goes on.
func (p *pod) watchPair() {
	watch := time.NewTicker(watchInterval)
	for {
		select {
		case <-watch.C:
			p.relay.Pair().Load() //nolint:errcheck // that is for the loop
			p.do(func() { p.lookAtPair(false) })
		case <-p.over:
			return
		}
	}
}

// lookAtPair takes a new pair and restarts derper with it, if it is proven. A
// pair that is being replaced is whole for a moment before its chain is, so it
// has to be there twice, unless somebody said that it is complete. What is wrong
// is logged once.
func (p *pod) lookAtPair(complete bool) (taken bool) {
	s := &p.pair
	if s.served == nil || p.ending {
		return false
	}
	cert, err := p.load()
	if err == nil && cert.Same(*s.served) {
		s.candidate, s.onDisk = nil, ""
		clear(s.muted)
		return false
	}
	if err == nil {
		err = p.restartable()
	}
	if err != nil {
		s.candidate, s.onDisk = nil, err.Error()
		if !s.muted[s.onDisk] {
			logf("warning: certificate: %v; derper keeps the one it has, until the container is started again", err)
			s.muted[s.onDisk] = true
		}
		return false
	}
	if !complete && (s.candidate == nil || !cert.Same(*s.candidate)) {
		s.candidate = &cert
		return false
	}
	p.take(cert)
	return true
}

// restartable says what else than the pair would end derper at its next start.
func (p *pod) restartable() error {
	if problems := check.Restart(p.relay); len(problems) > 0 {
		return fmt.Errorf("a new one needs a restart of derper, which would end on this: %w", problems[0])
	}
	return nil
}

// take has derper serve another pair.
func (p *pod) take(cert certificate.Certificate) {
	p.serve(cert, "restarting derper")
	p.derper.Renew(grace)
}

// serve takes notice of the pair that derper has from its next start on.
func (p *pod) serve(cert certificate.Certificate, how string) {
	p.pair.served, p.pair.candidate, p.pair.onDisk = &cert, nil, ""
	clear(p.pair.muted)
	p.unstage() // that is a copy of the one before
	logf("certificate: new one, valid until %s; %s", cert.Leaf.NotAfter.UTC().Format("2006-01-02"), how)
	for _, n := range cert.Notes {
		logf("warning: certificate: %s", n)
	}
	p.showNode()
}

// renew makes a new self-signed pair and has derper serve it.
func (p *pod) renew() localapi.Answer {
	if err := p.restartable(); err != nil {
		return failed("renew", err)
	}
	a := renewAnswer(p.relay, p.pair.served)
	if a.Code == 0 {
		p.lookAtPair(true)
	}
	return a
}

func (p *pod) warnOfExpiry(now time.Time) {
	if p.pair.served != nil {
		if w := p.pair.served.Warning(now); w != "" {
			logf("warning: certificate: %s", w)
		}
	}
}

// showNode logs the node for the tailnet policy when it is another one.
func (p *pod) showNode() {
	if p.relay.Bool("DEV") {
		return
	}
	node := p.relay.Node(p.pair.served).JSON()
	if node == p.pair.shown {
		return
	}
	if p.pair.shown != "" {
		logf("derp map: THE NODE HAS CHANGED; until the tailnet policy has the new CertName, clients do not accept this relay")
	}
	p.pair.shown = node
	logf("derp map: the node for the tailnet policy is %s", node)
	for _, line := range p.relay.Ports() {
		logf("derp map: %s", line)
	}
}

// subject is the relay as the health check sees it.
func (p *pod) subject() (s health.Subject) {
	s.Relay, s.ACME = p.relay, &p.acme // all that counts when the loop has ended
	p.do(func() {
		s = health.Subject{
			Relay: p.relay, Served: p.pair.served, OnDisk: p.pair.onDisk,
			Verifier: p.verifier, Nodes: p.nodes, ACME: &p.acme,
		}
	})
	return s
}
