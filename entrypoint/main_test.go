package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/freeport"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// The programs under test are real: derper, tailscaled and the entrypoint as the
// image has them, built from the lock. They are built once per run, before the
// network goes away.
var (
	binDir  string // holds entrypoint, derper and tailscaled
	release lock.Tailscale
)

// notIsolated is why the tests run in no network namespace of their own.
var notIsolated error

// TestMain runs the tests in a network namespace of their own without a way
// out: no test can send a packet to anybody, and the real ports, 443 and the
// like, are free. Where there can be none, the tests that start the programs
// are left out; no other test uses a network.
func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint test:", err)
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	l, err := lock.Read("../" + lock.File)
	if err != nil {
		return 1, err
	}
	release = l.Inputs.Tailscale
	return runIsolated(m)
}

func entrypointBinary(t testing.TB) string { return underTest(t, "entrypoint") }
func derperBinary(t testing.TB) string     { return underTest(t, "derper") }

func underTest(t testing.TB, name string) string {
	t.Helper()
	if notIsolated != nil {
		need.Namespaces(t)
		need.Missing(t, "a network that leads nowhere", fmt.Sprintf("load the kernel's module veth, or start the container with --privileged (%v)", notIsolated))
	}
	need.Program(t, "nsenter", "util-linux")
	path := filepath.Join(binDir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("program under test: %v", err)
	}
	return path
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := freeport.Choose("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return port
}
