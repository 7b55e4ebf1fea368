package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/cli"
)

// probeArgs runs build probe and returns what it wrote. The error is what it wrote
// to stderr when it did not end well.
func probeArgs(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), append([]string{"probe"}, args...), &out, &errs); code != cli.ExitOK {
		return out.String(), "", errors.New(errs.String())
	}
	return out.String(), errs.String(), nil
}

func TestProbeBadInput(t *testing.T) {
	noKey := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(noKey, []byte("secret-but-no-key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"", "0 relays given"},
		{"a b", "2 relays given"},
		{"host:http", `"http" is not a port`},
		{"host:0", `"0" is not a port`},
		{"host:70000", `"70000" is not a port`},
		{"--cert-name relay.example host", "does not begin with sha256-raw:"},
		{"--stun-port 70000 host", "stun port 70000: not a port"},
		{"--home nice host", `home page "nice"`},
		{"--addr nowhere host", "unable to parse IP"},
		{"--node-key /no/such/file host", "no such file"},
		{"--node-key " + noKey + " host", "not a node key"},
		{"--colour host", "unknown flag --colour"},
	} {
		stdout, stderr, err := probeArgs(t, strings.Fields(tt.args)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("build probe %s: %v, want %q and a hint", tt.args, err, tt.want)
		}
		if stdout+stderr != "" {
			t.Errorf("build probe %s: wrote %s%s besides the error", tt.args, stdout, stderr)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("build probe %s: shows the content of a key file: %v", tt.args, err)
		}
	}
}

func TestProbeHelp(t *testing.T) {
	stdout, stderr, err := probeArgs(t, "-h")
	if err != nil || stderr != "" || !strings.Contains(stdout, "build probe relay.example.com") || !strings.Contains(stdout, "--cert-name") {
		t.Errorf("%v\n%s%s", err, stdout, stderr)
	}
}

// TestProbeOfNoRelay asks a web server, so that rows of each result are there.
func TestProbeOfNoRelay(t *testing.T) {
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	addr := web.Listener.Addr().String()

	stdout, _, err := probeArgs(t, addr, "--insecure", "--stun-port=-1", "--http-port=-1")
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "checks failed") {
		t.Errorf("error: %v", err)
	}
	for _, want := range []string{"pass  tcp/ipv4", "fail  derp/handshake", "skip  stun/ipv4", "passed,"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}

	stdout, stderr, err := probeArgs(t, "--json", addr)
	if err == nil || !strings.Contains(err.Error(), "hint: a relay with a certificate of its own is pinned") {
		t.Errorf("error: %v", err)
	}
	var report struct {
		Relay  string
		Checks []struct{ Name, Result, Reason string }
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("stdout is not one JSON value: %v\n%s", err, stdout)
	}
	if report.Relay != addr || len(report.Checks) == 0 || stderr != "" {
		t.Errorf("%+v\n%s", report, stderr)
	}
}

func TestProbeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"probe", "127.0.0.1:1"}, &out, &errs); code != cli.ExitInterrupted || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit code %d: %s", code, &errs)
	}
}
