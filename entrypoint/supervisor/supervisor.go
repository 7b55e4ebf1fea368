// Package supervisor starts processes and, as process 1 must, reaps every
// process that ends below it, its own or inherited.
//
// It reaps with wait4(-1). So nothing else in the program may wait for a
// process while a Supervisor lives: no os/exec, no os.Process.
package supervisor

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// A Supervisor starts and reaps processes.
type Supervisor struct {
	mu       sync.Mutex // held while a process starts, so that it cannot be reaped before it is known
	children map[int]*Process
}

// A Process is one that a Supervisor started.
type Process struct {
	Pid  int
	done chan struct{}
	// status is set before done is closed.
	status syscall.WaitStatus
}

// New returns a Supervisor that reaps from now on.
func New() *Supervisor {
	s := &Supervisor{children: make(map[int]*Process)}
	ended := make(chan os.Signal, 1) // one pending SIGCHLD stands for any number
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			s.reap()
		}
	}()
	return s
}

func (s *Supervisor) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := s.children[pid]; p != nil && (status.Exited() || status.Signaled()) {
			delete(s.children, pid)
			p.status = status
			close(p.done)
		}
	}
}

// Start starts a program. It inherits standard output and error, and files as
// 3 and up; it does not get standard input.
func (s *Supervisor) Start(path string, args, environ []string, files ...*os.File) (*Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	fds := []uintptr{null.Fd(), 1, 2}
	for _, f := range files {
		fds = append(fds, f.Fd())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(path, append([]string{path}, args...), &syscall.ProcAttr{
		Env:   environ,
		Files: fds,
		// A group of its own: Ctrl-C on a terminal then reaches only the
		// entrypoint, which ends the processes in their order.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p := &Process{Pid: pid, done: make(chan struct{})}
	s.children[pid] = p
	return p, nil
}

// Done is closed when the process has ended. It is nil, and so never ready,
// for a nil process.
func (p *Process) Done() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.done
}

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(sig syscall.Signal) {
	if p == nil {
		return
	}
	select {
	case <-p.done:
	default:
		syscall.Kill(p.Pid, sig) //nolint:errcheck // it may end at this moment
	}
}

// Stop ends the process: with SIGTERM, and with SIGKILL if it takes longer
// than the given time.
func (p *Process) Stop(grace time.Duration) {
	if p == nil {
		return
	}
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Signal(syscall.SIGKILL)
		<-p.done
	}
}

// Code is the exit code as a shell reports it. It may be called when Done is
// closed.
func (p *Process) Code() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// A Backoff spaces out restarts: 1 s, 2 s, 4 s and so on up to a minute. A
// process that ran for a minute starts over.
type Backoff struct{ next time.Duration }

// Next returns how long to wait after a process that ran for the given time.
func (b *Backoff) Next(ran time.Duration) time.Duration {
	if ran >= time.Minute || b.next == 0 {
		b.next = time.Second
	}
	wait := b.next
	b.next = min(2*b.next, time.Minute)
	return wait
}
