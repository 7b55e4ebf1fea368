package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/admission"
	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

const (
	verifyInterval = 5 * time.Second // between two looks at the tailscaled
	remindInterval = time.Minute     // while no client is let in; and between two questions to VERIFY_CLIENT_URL
	// A tailscaled of our own that has just been started may take this long to
	// join before that is worth a word.
	joinPatience = 15 * time.Second
)

// verdictState is what is known of whether clients can be verified.
type verdictState struct {
	tailscaled.Diagnosis
	known    bool                 // there was a first one
	verified map[string]time.Time // part of the health check → the last time that it could
	failing  map[string]time.Time // who cannot verify → since when
	reminded map[string]time.Time // and when that was last said
	warned   map[string]time.Time
	login    string // URL that was logged
}

func newVerdict() verdictState {
	return verdictState{verified: make(map[string]time.Time), failing: make(map[string]time.Time), reminded: make(map[string]time.Time), warned: make(map[string]time.Time)}
}

// address is where the tailnet policy finds our tailscaled, or "".
func (v verdictState) address() string {
	if self := v.Status.Self; len(self.Tags) > 0 {
		return self.Tags[0]
	} else if len(self.IPs) > 0 {
		return self.IPs[0]
	}
	return ""
}

// learnVersion asks derper for its version. Nothing waits for that.
func (p *pod) learnVersion() {
	version, err := derperVersion(p.Supervisor)
	p.do(func() {
		if err != nil && !p.ending {
			logf("warning: %v", err)
		}
		if version != "" {
			p.verifier.DerperVersion = version
		}
	})
}

// watchVerification looks after whoever verifies clients, until the loop ends.
func (p *pod) watchVerification() {
	ctx := context.Background()
	url := p.relay.Get("VERIFY_CLIENT_URL")
	rule := admission.Rule{FailOpen: p.relay.Bool("VERIFY_FAIL_OPEN"), Tailscaled: p.relay.Verifies()}
	// A login that is under way does not show at once. A second one would give the
	// relay a second node.
	var asked time.Time
	askedOf := -1 // the start of tailscaled
	look := func() {
		if !p.relay.Verifies() && p.sidecar == nil {
			return
		}
		var v tailscaled.Verifier
		starts := 0
		p.do(func() {
			if v = p.verifier; p.sidecar != nil {
				starts = p.sidecar.Restarts
			}
		})
		d := tailscaled.Diagnose(ctx, v)
		if p.sidecar != nil && d.Status.NeedsURL() && p.relay.Get("TS_AUTHKEY") == "" && (starts != askedOf || time.Since(asked) > remindInterval) {
			ctx, cancel := context.WithTimeout(ctx, tailscaled.Patience)
			err := tailscaled.Login(ctx, v.Socket)
			cancel()
			if asked, askedOf = time.Now(), starts; err != nil {
				d.Reason.What += ": " + err.Error()
				askedOf = -1
			}
		}
		p.do(func() { p.judge(d) })
	}
	ask := func() {
		switch {
		case p.nodes != nil:
			err := p.nodes.Err()
			p.do(func() {
				if _, known := p.verdict.failing["VERIFY_NODES"]; err != nil && !known {
					p.verdict.reminded["VERIFY_NODES"] = time.Now() // the list has just said so itself
				}
				p.verifies("VERIFY_NODES", err, "")
			})
		case url != "":
			err := admission.Ask(ctx, url, rule)
			p.do(func() { p.verifies("VERIFY_CLIENT_URL", err, "") })
		}
	}
	look()
	ask()
	select { // a second derper would take the first one's time while it starts
	case <-time.After(time.Second):
	case <-p.over:
		return
	}
	p.learnVersion()
	look()
	soon, later := time.NewTicker(verifyInterval), time.NewTicker(remindInterval)
	for {
		select {
		case <-soon.C:
			look()
		case <-later.C:
			ask()
		case <-p.over:
			return
		}
	}
}

// judge takes notice of what the tailscaled says.
func (p *pod) judge(d tailscaled.Diagnosis) {
	if p.ending {
		return // it was stopped
	}
	v := &p.verdict
	before := v.Diagnosis
	v.Diagnosis = d
	if url := d.Status.AuthURL; p.sidecar != nil && d.Reason != nil && url != "" && url != v.login {
		v.login = url
		logf("tailscaled: log in at %s", url)
	}
	if d.Reason == nil && (before.Reason != nil || !v.known) && p.sidecar != nil {
		what := "ready to verify clients"
		if !p.relay.Verifies() {
			what = "in the tailnet"
		}
		logf("tailscaled: %s is %s", d.Status.Version, what)
	}
	v.known = true
	for _, w := range d.Warnings {
		p.warn(w)
	}
	if !p.relay.Verifies() {
		return // it is there for the peer relay
	}
	switch {
	case d.Reason == nil:
		v.verified[health.Verification] = time.Now()
		if d.Alone != nil {
			p.verifies("tailscaled", errors.New(d.Alone.What), d.Alone.Hint)
			return
		}
		p.verifies("tailscaled", nil, "")
	case p.sidecar != nil && p.sidecar.Uptime() < joinPatience && p.sidecar.Restarts == 0 && d.Status.LoginError == "" && v.login == "":
	default:
		p.verifies("tailscaled", errors.New(d.Reason.What), d.Reason.Hint)
	}
}

// verifies says what keeps clients out, each minute as long as it does, and
// once when it no longer does.
func (p *pod) verifies(who string, err error, remedy string) {
	if p.ending {
		return
	}
	v := &p.verdict
	now := time.Now()
	if err == nil {
		if _, failed := v.failing[who]; failed {
			logf("%s: clients can be verified again", who)
		}
		delete(v.failing, who)
		delete(v.reminded, who)
		return
	}
	if _, ok := v.failing[who]; !ok {
		v.failing[who] = now
	}
	if now.Sub(v.reminded[who]) < remindInterval {
		return
	}
	v.reminded[who] = now
	var controller *admission.Problem
	if errors.As(err, &controller) && controller.Open {
		who := "EVERY CLIENT IS LET IN"
		if p.relay.Verifies() {
			who = "THE TAILSCALED ALONE DECIDES WHO IS LET IN"
		}
		logf("%s: %v", who, err)
		return
	}
	logf("NO CLIENT IS LET IN: %v", err)
	if remedy != "" {
		hint("%s", remedy)
	}
}

// warn logs a warning at most once a day.
func (p *pod) warn(w tailscaled.Reason) {
	if time.Since(p.verdict.warned[w.What]) < expiryInterval {
		return
	}
	p.verdict.warned[w.What] = time.Now()
	text := w.What
	if w.Hint != "" {
		text += "; " + w.Hint
	}
	logf("warning: %s", strings.TrimSpace(text))
}
