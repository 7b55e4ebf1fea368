package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/freeport"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// The programs under test are real: derper, tailscaled and the entrypoint as the
// image has them, built from the lock. They are built once per run, before the
// network goes away.
var (
	binDir  string // holds entrypoint, derper and tailscaled
	release lock.Tailscale
)

// isolated tells the second process of a run from the first.
const isolated = "ENTRYPOINT_TEST_BIN"

// notIsolated is why the tests run in no network namespace of their own. Then
// none of them starts the programs.
var notIsolated error

// TestMain runs the tests in a network namespace of their own without a way
// out: no test can send a packet to anybody, and the real ports, 443 and the
// like, are free.
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
	binDir = os.Getenv(isolated)
	if binDir == "" {
		return runIsolated(m)
	}
	os.Unsetenv(isolated)
	if err := deadEnd(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func runIsolated(m *testing.M) (code int, err error) {
	if notIsolated = need.HasNamespaces(); notIsolated != nil {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "entrypoint-test")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	// Tests run the programs as another user, too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	if err := releasetest.Programs(context.Background(), "..", dir); err != nil {
		return 1, err
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolated+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		// A user namespace gives an ordinary user a network namespace.
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("no network namespace for the tests: %w", err)
	}
	return 0, nil
}

func entrypointBinary(t testing.TB) string { return underTest(t, "entrypoint") }
func derperBinary(t testing.TB) string     { return underTest(t, "derper") }

func underTest(t testing.TB, name string) string {
	t.Helper()
	if notIsolated != nil {
		need.Namespaces(t)
	}
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
