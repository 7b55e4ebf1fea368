package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// host pretends to be the host's tailscaled, of some version.
func host(t *testing.T, version string) (socket string) { return hostIn(t, version, "Running") }

// hostIn is one in another state; dead is one that was killed.
func hostIn(t *testing.T, version, state string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "host") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "tailscaled.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if state == "dead" {
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		ln.Close()
		return socket
	}
	server := &http.Server{Handler: tailscaledStatus(version, state)}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return socket
}

// tailscaledStatus answers as a tailscaled in that state, in a tailnet of two; alone is
// one that runs in a tailnet of its own.
func tailscaledStatus(version, state string) http.Handler {
	peer := fmt.Sprintf(`"nodekey:%s": {}`, strings.Repeat("cd", 32))
	if state == "alone" {
		state, peer = "Running", ""
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"Version": %q, "BackendState": %q, "Peer": {%s}, "Self": {"PublicKey": "nodekey:%s"}}`,
			version, state, peer, strings.Repeat("ab", 32))
	})
}

// The mistake it guards: a tailscaled of another version, with which
// verification fails in ways that nobody can explain.
func TestHostTailscaled(t *testing.T) {
	for version, warned := range map[string]bool{
		release.Long():                  false,
		release.Long() + "-gdeadbeef0":  false,
		"1.98.1-tdeadbeef0":             true,
		release.Short() + "-tdeadbeef0": true,
	} {
		s := start(t, t.TempDir(), append(ports(t), "SOCKET="+host(t, version)))
		if out := s.healthy(t); !strings.Contains(out, "verification") {
			t.Errorf("healthcheck leaves verification out: %s", out)
		}
		want := "warning: the host's tailscaled is " + version + ", derper is " + release.Long()
		if warned {
			s.logged(t, regexp.QuoteMeta(want))
		}
		if got := strings.Contains(s.log.String(), want); got != warned {
			t.Errorf("%s: warned %v, want %v\n%s", version, got, warned, s.log)
		}
		s.signal(t, syscall.SIGTERM)
		s.stops(t, 0)
	}
}

// The mistake it guards: a reminder that comes once and scrolls away, or one
// that goes on when all is well.
func TestReminder(t *testing.T) {
	need.Minutes(t, "waiting for reminders")
	t.Parallel()
	const missing = "NO CLIENT IS LET IN: VERIFY_CLIENTS=true, but there is no tailscaled"
	socket := filepath.Join(t.TempDir(), "s")
	s := start(t, t.TempDir(), append(ports(t), "SOCKET="+socket))
	eventually(t, 75*time.Second, func() error {
		if n := strings.Count(s.log.String(), missing); n != 2 {
			return errCount(n)
		}
		return nil
	})
	if err := os.Symlink(host(t, release.Long()), socket); err != nil {
		t.Fatal(err)
	}
	s.healthy(t)
	time.Sleep(65 * time.Second)
	if n := strings.Count(s.log.String(), "NO CLIENT IS LET IN"); n != 2 {
		t.Errorf("%d reminders, want 2: none once the tailscaled is there", n)
	}
}

type errCount int

func (n errCount) Error() string { return "the reminder came " + string(rune('0'+n)) + " times" }

// The mistake it guards: a health check that asks at loopback a relay that
// listens elsewhere, or is refused the consistency check there.
func TestHealthcheckAddress(t *testing.T) {
	for _, addr := range []string{"192.0.2.1", "[::1]", "0.0.0.0", "[::]", ""} {
		env := ports(t)
		_, port, _ := net.SplitHostPort(lookup(env, "ADDR"))
		s := start(t, t.TempDir(), append(env, "ADDR="+addr+":"+port, "SOCKET="+host(t, release.Long())))
		if out := s.healthy(t); strings.TrimSpace(out) != "ok: stun, https, derp, verification" {
			t.Errorf("%s: %s", addr, out)
		}
		s.signal(t, syscall.SIGTERM)
		s.stops(t, 0)
	}
	// Development mode has a port of its own.
	s := start(t, t.TempDir(), append(ports(t), "DEV=true", "VERIFY_CLIENTS=false"))
	s.healthy(t)
	// The parts that fail are named.
	s.kill(t, "derper", syscall.SIGSTOP)
	s.unhealthy(t, `(?s)healthcheck: stun: no answer from udp 127.0.0.1:\d+: nothing within 2s.*healthcheck: https: nothing within 2s`)
	s.kill(t, "derper", syscall.SIGCONT)
	s.signal(t, syscall.SIGTERM)
	s.stops(t, 0)
}
