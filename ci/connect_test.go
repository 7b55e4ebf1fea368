package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/cli"
)

// surroundings are those of a machine with nothing of Dagger's on it. A CLI that
// is a shell script goes into the folder that it returns, the only one in PATH.
func surroundings(t *testing.T) string {
	for _, name := range []string{cliVariable, runnerVariable, sessionVariable} {
		t.Setenv(name, "") // so that it is set back
		os.Unsetenv(name)
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	return dir
}

func script(t *testing.T, name, text string) string {
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// silent listens and never answers.
func silent(t *testing.T, network, address string) net.Addr {
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr()
}

// TestNoEngine guards against a download, a wait of minutes, or a message that leaves
// people alone, where the CLI or the engine is missing, of another release, or dead.
func TestNoEngine(t *testing.T) {
	if p := standard().patience; p >= 10*time.Second {
		t.Fatalf("patience: %v", p)
	}
	e := env{patience: 2 * time.Second}
	fakeCLI := func(text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { script(t, filepath.Join(dir, "dagger"), text) }
	}
	version := func(v string) string { return fmt.Sprintf("echo 'dagger %s (image://somewhere) linux/amd64'", v) }
	for _, test := range []struct {
		name string
		set  func(t *testing.T, dir string)
		want string
		hint string
	}{
		{"no CLI", func(*testing.T, string) {}, "no CLI", "install the Dagger CLI " + wanted},
		{"named CLI missing", func(t *testing.T, dir string) {
			fakeCLI(version(wanted))(t, dir)
			t.Setenv(cliVariable, filepath.Join(dir, "elsewhere"))
		}, "elsewhere", "install the Dagger CLI " + wanted},
		{"old CLI", fakeCLI(version("v0.18.3")), "is v0.18.3, wants " + wanted, "install the Dagger CLI " + wanted},
		{"new CLI", fakeCLI(version("v0.22.0")), "is v0.22.0, wants " + wanted, "install the Dagger CLI " + wanted},
		{"another dagger", fakeCLI("echo Dagger 2 annotation processor"), "is not the CLI of Dagger", "install the Dagger CLI " + wanted},
		{"broken CLI", fakeCLI("exit 3"), "exit status 3", "install the Dagger CLI " + wanted},
		{"CLI that hangs", fakeCLI("kill -STOP $$"), "did not answer", "install the Dagger CLI " + wanted},
		{"nothing to start an engine with", fakeCLI(version(wanted)), "there is none of docker, ", runnerVariable},
		{"no socket", func(t *testing.T, dir string) {
			fakeCLI(version(wanted))(t, dir)
			t.Setenv(runnerVariable, "unix://"+filepath.Join(dir, "none.sock"))
		}, "none.sock", runnerVariable},
		{"nobody listens", func(t *testing.T, dir string) {
			fakeCLI(version(wanted))(t, dir)
			t.Setenv(runnerVariable, "tcp://127.0.0.1:1") // no port that anybody is given
		}, "connection refused", runnerVariable},
		{"no kubectl", func(t *testing.T, dir string) {
			fakeCLI(version(wanted))(t, dir)
			t.Setenv(runnerVariable, "kube-pod://engine?namespace=dagger")
		}, `"kubectl": executable file not found`, runnerVariable},
		{"engine that never answers", func(t *testing.T, dir string) {
			fakeCLI("case $1 in version) "+version(wanted)+";; *) read line;; esac")(t, dir)
			socket := filepath.Join(dir, "engine.sock")
			silent(t, "unix", socket)
			t.Setenv(runnerVariable, "unix://"+socket)
		}, "did not answer within", runnerVariable},
		{"CLI that cannot connect", func(t *testing.T, dir string) {
			fakeCLI("case $1 in version) "+version(wanted)+";; *) echo no such driver >&2; exit 1;; esac")(t, dir)
			t.Setenv(runnerVariable, "carrier-pigeon://engine")
		}, "failed to read session params", runnerVariable},
		{"session that never answers", func(t *testing.T, dir string) {
			_, port, _ := net.SplitHostPort(silent(t, "tcp", "127.0.0.1:0").String())
			t.Setenv(sessionVariable, port)
			t.Setenv("DAGGER_SESSION_TOKEN", "token")
		}, "did not answer within", runnerVariable},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.set(t, surroundings(t))
			// Many times what the program allows for itself, in case the machine is busy.
			ctx, cancel := context.WithTimeout(t.Context(), 20*e.patience)
			defer cancel()
			_, err := e.connect(ctx, os.Stderr)
			if err == nil {
				t.Fatal("connected")
			}
			hint := ""
			if c, ok := err.(*cli.Error); ok {
				hint = c.Hint
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(hint, test.hint) {
				t.Errorf("%v\nhint: %s\nwant %q and %q", err, hint, test.want, test.hint)
			}
		})
	}
}

// TestInterruptedConnect guards against a Ctrl-C that has to wait for an engine.
func TestInterruptedConnect(t *testing.T) {
	dir := surroundings(t)
	script(t, filepath.Join(dir, "dagger"), "case $1 in version) echo 'dagger "+wanted+" (x) linux/amd64';; *) read line;; esac")
	socket := filepath.Join(dir, "engine.sock")
	silent(t, "unix", socket)
	t.Setenv(runnerVariable, "unix://"+socket)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	var stderr strings.Builder
	if code := run(ctx, []string{"--lock", checkedIn, "--output", t.TempDir()}, &stderr, &stderr); code != cli.ExitInterrupted {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

func TestFits(t *testing.T) {
	for version, want := range map[string]bool{
		"v0.21.8": true, "v0.21.9": true, "v0.21.7": false, "v0.22.0": false, "v0.20.8": false, "v1.21.8": false, "v0.21.8-dev-1": false,
	} {
		if fits(version) != want {
			t.Errorf("fits(%s): %v", version, !want)
		}
	}
}
