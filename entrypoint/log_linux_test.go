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

	"github.com/xavieralpha/derper/internal/testing/need"
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
	if err := p.printed.derper.follow(p.heard); err != nil {
		t.Fatal(err)
	}
	p.printed.derper.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for range 100 { // more than the pipe holds
		if _, err := p.printed.derper.WriteString(strings.Repeat("x", 8<<10) + "\n"); err != nil {
			t.Fatalf("derper's output is not read: %v", err)
		}
	}
	p.printed.derper.Close()
	<-p.printed.derper.drained
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

// The mistake it guards: a relay that is reported as broken, and started again, because the
// disk of its certificates hangs, as one of the network does.
func TestDiskHangs(t *testing.T) {
	dir := t.TempDir()
	certs, good, hangs := filepath.Join(dir, "certs"), filepath.Join(dir, "good"), filepath.Join(dir, "hangs")
	if err := errors.Join(os.Mkdir(good, 0o700), os.Mkdir(hangs, 0o700), os.Symlink(good, certs)); err != nil {
		t.Fatal(err)
	}
	nobody, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		need.Missing(t, "FUSE", fmt.Sprintf("load the kernel's module fuse, or start the container with --privileged (%v)", err))
	}
	defer nobody.Close()
	if err := syscall.Mount("nobody", hangs, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", nobody.Fd())); err != nil {
		need.Missing(t, "FUSE", fmt.Sprintf("start the container with --privileged (%v)", err))
	}
	t.Cleanup(func() { syscall.Unmount(hangs, syscall.MNT_DETACH) })
	s := start(t, dir, append(ports(t), "VERIFY_CLIENTS=false", "CERT_DIR="+certs))
	s.healthy(t)
	if err := errors.Join(os.Remove(certs), os.Symlink(hangs, certs)); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() error {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
		for _, stat := range stats {
			if b, err := os.ReadFile(stat); err == nil && strings.Contains(string(b), ") D ") { // proc(5)
				return nil
			}
		}
		return errors.New("nobody waits for the disk")
	})
	if out, err := s.command("healthcheck"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	s.signal(t, syscall.SIGTERM)
	s.stops(t, 0)
}
