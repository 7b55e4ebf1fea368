package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The mistake it guards: a log that cannot be written, as on a full disk, after which
// derper's output was read no more, and derper ended with its next line, again and again.
func TestLogFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	defer func(old *os.File) { os.Stderr = old }(os.Stderr)
	os.Stderr = full
	p := new(pod)
	if err := p.follow(); err != nil {
		t.Fatal(err)
	}
	p.output.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for range 100 { // more than the pipe holds
		if _, err := p.output.WriteString(strings.Repeat("x", 8<<10) + "\n"); err != nil {
			t.Fatalf("derper's output is not read: %v", err)
		}
	}
	p.output.Close()
	<-p.drained
}

// The mistake it guards: a process 1 that ignores SIGTERM while it waits for somebody
// to read its log, or for a file.
func TestStopWhileBlocked(t *testing.T) {
	stops := func(t *testing.T, s *exec.Cmd) {
		t.Helper()
		ended := make(chan error, 1)
		go func() { ended <- s.Wait() }()
		if err := s.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%v", err)
			}
		case <-time.After(stopLimit):
			s.Process.Kill()
			t.Error("it does not end")
		}
	}
	run := func(t *testing.T, stderr *os.File, env ...string) *exec.Cmd {
		t.Helper()
		dir := t.TempDir()
		cmd := exec.Command(entrypointBinary(t))
		cmd.Dir, cmd.Stderr = dir, stderr
		cmd.Env = append(append(baseEnv(dir), ports(t)...), append(env, "VERIFY_CLIENTS=false")...)
		ownMounts(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	t.Run("log", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		for err == nil { // until it is full
			w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_, err = w.Write([]byte("x"))
		}
		s := run(t, w)
		eventually(t, time.Minute, func() error { return waitsIn(s.Process.Pid, fmt.Sprint(syscall.SYS_WRITE)) })
		stops(t, s)
	})
	t.Run("file", func(t *testing.T) {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		s := run(t, nil, "CONFIG_PATH="+fifo)
		eventually(t, time.Minute, func() error { return waitsIn(s.Process.Pid, fmt.Sprint(syscall.SYS_OPENAT)) })
		stops(t, s)
	})
}

// waitsIn reports whether a thread of the entrypoint, and not yet of what starts it, stands
// in a system call.
// Source: /proc/pid/syscall, proc(5).
func waitsIn(pid int, number string) error {
	if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); filepath.Base(exe) != "entrypoint" {
		return errors.New("not started yet")
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, thread := range threads {
		if b, err := os.ReadFile(thread); err == nil && strings.HasPrefix(string(b), number+" ") {
			return nil
		}
	}
	return errors.New("it does not wait")
}
