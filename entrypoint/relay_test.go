package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/net/stun"
)

// A started is an entrypoint that a test started, in a mount namespace of its
// own, as in a container.
type started struct {
	cmd   *exec.Cmd
	env   []string
	args  []string
	dir   string
	log   *logBuffer
	ended chan struct{}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// ports returns an environment in which a relay has ports of its own.
func ports(t testing.TB) []string {
	return []string{
		fmt.Sprintf("ADDR=127.0.0.1:%d", freePort(t)),
		fmt.Sprintf("HTTP_PORT=%d", freePort(t)),
		fmt.Sprintf("STUN_PORT=%d", freePort(t)),
	}
}

// baseEnv is what any program here gets: tailscaled must upload no logs and
// map no ports.
func baseEnv(dir string) []string {
	return []string{
		"HOME=" + dir, "PATH=" + binDir + ":/usr/bin:/bin",
		"TS_NO_LOGS_NO_SUPPORT=true", "TS_DISABLE_PORTMAPPER=true", "TS_DEBUG_DISABLE_PORTLIST=true",
	}
}

// start starts the entrypoint in dir and ends it with the test.
func start(t testing.TB, dir string, env []string, args ...string) *started {
	t.Helper()
	return startProgram(t, entrypointBinary(t), dir, env, args...)
}

// startProgram starts another entrypoint than that of the release.
func startProgram(t testing.TB, path, dir string, env []string, args ...string) *started {
	t.Helper()
	s := &started{env: append(baseEnv(dir), env...), args: args, dir: dir, log: new(logBuffer), ended: make(chan struct{})}
	s.cmd = exec.Command(path, args...)
	s.cmd.Dir, s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = dir, s.env, s.log, s.log
	ownMounts(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.cmd.Wait(); close(s.ended) }()
	t.Cleanup(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.ended:
		case <-time.After(stopLimit):
			s.cmd.Process.Kill()
			t.Errorf("the entrypoint did not end on SIGTERM")
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	return s
}

// command runs a command of the entrypoint beside the relay, as docker exec does.
func (s *started) command(args ...string) (string, error) {
	cmd := exec.Command("nsenter", s.beside(args...)...)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// beside are the arguments with which nsenter runs a command of the entrypoint in the
// relay's mount namespace.
func (s *started) beside(args ...string) []string {
	enter := []string{"--target", fmt.Sprint(s.cmd.Process.Pid), "--mount", "--wd=" + s.dir, filepath.Join(binDir, "entrypoint")}
	return append(enter, args...)
}

// kill sends a signal to a program below the relay that has been running for a while.
func (s *started) kill(t testing.TB, name string, sig syscall.Signal) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		pid := pidOf(t, s, name)
		fi, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		if err != nil {
			return err
		}
		if age := time.Since(fi.ModTime()); age < 1500*time.Millisecond {
			return fmt.Errorf("%s runs for %v only", name, age)
		}
		return syscall.Kill(pid, sig)
	})
}

func (s *started) healthcheck() (string, error) { return s.command("healthcheck") }

// eventually waits for a condition, and fails with what it last said.
func eventually(t testing.TB, patience time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *started) healthy(t testing.TB) string {
	t.Helper()
	var out string
	eventually(t, time.Minute, func() (err error) {
		if out, err = s.healthcheck(); err != nil {
			return fmt.Errorf("not healthy: %s", out)
		}
		return nil
	})
	return out
}

func (s *started) unhealthy(t testing.TB, pattern string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		out, err := s.healthcheck()
		if err == nil || !regexp.MustCompile(pattern).MatchString(out) {
			return fmt.Errorf("healthcheck says %q, want a failure that matches %q; the log:\n%s", out, pattern, s.log)
		}
		return nil
	})
}

func (s *started) logged(t testing.TB, pattern string) {
	t.Helper()
	eventually(t, 2*time.Minute, func() error {
		if !regexp.MustCompile(pattern).MatchString(s.log.String()) {
			return fmt.Errorf("the log has nothing that matches %q:\n%s", pattern, s.log)
		}
		return nil
	})
}

// program is the name of the program that the started process now is.
func (s *started) program(t testing.TB) string {
	t.Helper()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(exe)
}

// children returns the programs below the process.
func (s *started) children(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	for _, path := range tasks {
		if c, err := os.ReadFile(path); err == nil && !strings.Contains(path, fmt.Sprintf("task/%d/", s.cmd.Process.Pid)) {
			b = append(b, c...)
		}
	}
	var names []string
	for _, pid := range strings.Fields(string(b)) {
		if exe, err := os.Readlink("/proc/" + pid + "/exe"); err == nil {
			names = append(names, filepath.Base(exe))
		}
	}
	return names
}

func (s *started) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// stops waits for the end and checks the exit code. The suite measures the three
// seconds that it may take; here other tests run at the same time.
func (s *started) stops(t testing.TB, code int) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		t.Fatalf("still runs after %v", stopLimit)
	}
	state := s.cmd.ProcessState
	got := state.ExitCode()
	if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() {
		got = 128 + int(ws.Signal())
	}
	if got != code {
		t.Errorf("exit code %d, want %d\n%s", got, code, s.log)
	}
}

// stopLimit is short of the time that Docker leaves before it kills.
const stopLimit = 9 * time.Second

// get returns a variable of the environment.
func (s *started) get(name string) string { return lookup(s.env, name) }

func lookup(env []string, name string) string {
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// askSTUN asks the way Tailscale's own clients do.
func askSTUN(addr string, patience time.Duration) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	id := stun.NewTxID()
	if _, err := conn.Write(stun.Request(id)); err != nil {
		return err
	}
	b := make([]byte, 1500)
	n, err := conn.Read(b)
	if err != nil {
		return err
	}
	got, _, err := stun.ParseResponse(b[:n])
	if err == nil && got != id {
		err = fmt.Errorf("another transaction")
	}
	return err
}
