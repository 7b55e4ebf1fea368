// Package supervisor starts processes and, as process 1 must, reaps every
// process that ends below it, its own or inherited.
//
// It reaps with wait4(-1). So nothing else in the program may wait for a
// process while a Supervisor lives: no os/exec, no os.Process.
package supervisor

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Signals are those that this program has got. They are caught as soon as the
// package is initialized, a millisecond after the start and before larger
// packages are: until then, process 1 does not hear a signal, or ends on it with
// the code that the Go runtime has for that. SIGPIPE is among them because who
// reads the log may go away.
var Signals = func() <-chan os.Signal {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		time.Sleep(stopLimit)
		if s := current.Load(); s != nil {
			s.kill()
		}
		os.Exit(0)
	}()
	return c
}()

// stopLimit is when the program ends after a SIGTERM, whatever it waits for then:
// a disk of the network, a pipe, or somebody who reads its log.
const stopLimit = 2800 * time.Millisecond

var current atomic.Pointer[Supervisor]

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
	current.Store(s)
	ended := make(chan os.Signal, 1) // one pending SIGCHLD stands for any number
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		s.reap() // what an init left before this program
		for range ended {
			s.reap()
		}
	}()
	return s
}

// kill ends all that it has started, unless one is being started.
func (s *Supervisor) kill() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	for pid := range s.children {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
	}
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

// A Command is what to start.
type Command struct {
	Path    string
	Args    []string // without the path
	Environ []string
	Files   []*os.File // inherited as 3 and up
	Stdout  *os.File   // nil is that of this program
	Stderr  *os.File   // nil is that of this program
}

// Start starts a program. It gets no standard input.
func (s *Supervisor) Start(c Command) (*Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	fds := []uintptr{null.Fd(), 1, 2}
	for i, f := range []*os.File{c.Stdout, c.Stderr} {
		if f != nil {
			fds[1+i] = f.Fd()
		}
	}
	for _, f := range c.Files {
		fds = append(fds, f.Fd())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(c.Path, append([]string{c.Path}, c.Args...), &syscall.ProcAttr{
		Env:   c.Environ,
		Files: fds,
		// A group of its own: Ctrl-C on a terminal then reaches only the
		// entrypoint, which ends the processes in their order.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	p := &Process{Pid: pid, done: make(chan struct{})}
	s.children[pid] = p
	return p, nil
}

// Output starts a program and returns what it prints on standard error and
// output, at most 4 KiB. It is killed after the given time.
func (s *Supervisor) Output(c Command, patience time.Duration) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	p, err := s.Start(c)
	w.Close()
	if err != nil {
		return "", err
	}
	timer := time.AfterFunc(patience, func() { p.Signal(syscall.SIGKILL) })
	defer timer.Stop()
	text, err := io.ReadAll(io.LimitReader(r, 4<<10))
	r.Close() // more than that is not read, and must not hold it up
	<-p.Done()
	if err != nil {
		return "", err
	}
	if code := p.Code(); code != 0 {
		return "", fmt.Errorf("%s ended with code %d: %s", c.Path, code, text)
	}
	return string(text), nil
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

// Code is the exit code as a shell reports it. It may be called when Done is
// closed.
func (p *Process) Code() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}
