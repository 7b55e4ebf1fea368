package main

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/health"
)

// lostPatience is how long verification may be lost before the relay is not
// ready: no client that it has is hurt by that.
const lostPatience = time.Minute

// serveMetrics serves what orchestrators ask for, and nothing else.
func (p *pod) serveMetrics(addr string) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", p.metrics)
	mux.HandleFunc("GET /livez", p.livez)
	mux.HandleFunc("GET /readyz", p.readyz)
	server := &http.Server{Addr: addr, Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	for {
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			err = server.Serve(ln)
		}
		logf("warning: METRICS_ADDR: %v; next try in %v", err, remindInterval)
		select {
		case <-time.After(remindInterval):
		case <-p.over:
			return
		}
	}
}

// livez says whether derper runs and answers here. What a control server, a
// certificate or verification can take away does not count: to start the relay
// again would give none of them back.
func (p *pod) livez(w http.ResponseWriter, r *http.Request) {
	if err := health.Alive(r.Context(), p.relay); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// readyz is the health check, patient with verification that is lost.
func (p *pod) readyz(w http.ResponseWriter, r *http.Request) {
	results := health.Check(r.Context(), p.subject())
	p.do(func() { p.verdict.forgive(results, time.Now()) })
	a := healthAnswer(results)
	if a.Code != 0 {
		http.Error(w, strings.TrimSuffix(a.Err, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, a.Out)
}

// forgive turns a verification that fails into a note, if it worked just now.
func (v *verdictState) forgive(results []health.Result, now time.Time) {
	for i, result := range results {
		switch result.Part {
		case health.Verification, health.VerifyURL, health.VerifyNodes:
			if result.Err == nil {
				v.verified[result.Part] = now
			} else if now.Sub(v.verified[result.Part]) < lostPatience {
				results[i].Note, results[i].Err = result.Err.Error(), nil
			}
		}
	}
}

// metrics are derper's variables, which it shows to loopback only, and ours.
// Source: https://prometheus.io/docs/instrumenting/exposition_formats/.
func (p *pod) metrics(w http.ResponseWriter, r *http.Request) {
	s := p.subject()
	alive := health.Alive(r.Context(), s.Relay)
	theirs, err := health.Variables(r.Context(), s.Relay)
	if err != nil {
		theirs = fmt.Sprintf("# derper's own: %v\n", err)
	}
	if s.Verifier.DerperVersion == "" {
		p.learnVersion()
	}
	until, known := validUntil(s) // reads a file, which the loop must not wait for
	var b strings.Builder
	metric := func(name, kind, help string, samples ...string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		for _, s := range samples {
			fmt.Fprintf(&b, "%s%s\n", name, s)
		}
	}
	p.do(func() {
		metric("relay_info", "gauge", "Versions of derper and of the Go that compiled the entrypoint.",
			fmt.Sprintf("{derper=%q,go=%q,hostname=%q} 1", p.verifier.DerperVersion, runtime.Version(), p.relay.Get("HOSTNAME")))
		metric("relay_up", "gauge", "Whether derper answers.", fmt.Sprintf(" %d", asNumber(alive == nil)))
		if known {
			metric("relay_certificate_expires_days", "gauge", "Days until the certificate that derper serves expires.", fmt.Sprintf(" %.2f", time.Until(until).Hours()/24))
		}
		metric("relay_verification_ok", "gauge", "Whether clients can be verified; 1 where nobody verifies them.", fmt.Sprintf(" %d", asNumber(len(p.verdict.failing) == 0)))
		restarts := []string{fmt.Sprintf("{program=\"derper\"} %d", p.derper.Restarts)}
		if p.sidecar != nil {
			restarts = append(restarts, fmt.Sprintf("{program=\"tailscaled\"} %d", p.sidecar.Restarts))
		}
		metric("relay_restarts_total", "counter", "How often a program was started again.", restarts...)
	})
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprint(w, strings.TrimSuffix(theirs, "\n"), "\n", b.String())
}

// validUntil is when the certificate that derper serves expires, if that is known.
func validUntil(s health.Subject) (time.Time, bool) {
	if s.Served != nil {
		return s.Served.Leaf.NotAfter, true
	}
	return certificate.Cached(s.Get("CERT_DIR"), s.Get("HOSTNAME"), time.Now())
}

func asNumber(b bool) int {
	if b {
		return 1
	}
	return 0
}
