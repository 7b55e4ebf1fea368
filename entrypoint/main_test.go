package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/freeport"
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

// TestMain runs the tests in a network namespace of their own without a way
// out: no test can send a packet to anybody, and the real ports, 443 and the
// like, are free.
func TestMain(m *testing.M) {
	if dir := os.Getenv(isolated); dir != "" {
		os.Unsetenv(isolated)
		binDir = dir
		l, err := lock.Read("../" + lock.File)
		if err == nil {
			release = l.Inputs.Tailscale
			err = deadEnd()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "entrypoint test:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := runIsolated()
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint test:", err)
	}
	os.Exit(code)
}

func runIsolated() (code int, err error) {
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
		return 1, fmt.Errorf("no network namespace for the tests: %w; run them as root", err)
	}
	return 0, nil
}

func entrypointBinary(t testing.TB) string { return binary(t, "entrypoint") }
func derperBinary(t testing.TB) string     { return binary(t, "derper") }

func binary(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(binDir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("program under test: %v", err)
	}
	return path
}

// deadEnd brings up loopback, and an interface with a default route that ends
// in nothing: tailscaled logs in nowhere, not even over loopback, as long as
// the machine has no network.
func deadEnd() error {
	for _, args := range []string{
		"link set lo up",
		"link add dead0 type veth peer name dead1",
		"addr add 192.0.2.1/24 dev dead0",
		"link set dead0 up",
		"link set dead1 up",
		"route add default via 192.0.2.2 dev dead0",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s; the tests need iproute2", args, err, out)
		}
	}
	return nil
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := freeport.Choose("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return port
}
