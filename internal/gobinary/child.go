package gobinary

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/xavieralpha/derper/internal/limit"
)

// Limits of the process that takes programs apart.
const (
	// MaxProgram is the most that a program may have to be taken apart, in bytes; derper
	// has 18 MB.
	MaxProgram = 64 << 20

	maxMemory = 512 << 20 // bytes
	maxAnswer = 1 << 20   // bytes
)

// maxTime is from when it has all that it is to read. Tests have less patience.
var maxTime = time.Minute

// childName is how this program calls itself to take programs apart: its argument 0.
const childName = "derper-gobinary"

// ready is set once Init has run: without it, the child would be all of this program again.
var ready bool

// jobs are what the child can do, by name.
var jobs = map[string]func(io.Reader, io.Writer) error{}

// Init takes programs apart where this program was called by itself to do that, and then
// does not return. Otherwise it does nothing. It is called first thing in main, and in
// TestMain.
func Init() {
	if ready = true; len(os.Args) != 2 || os.Args[0] != childName {
		return
	}
	err := confine()
	if work := jobs[os.Args[1]]; err == nil && work != nil {
		err = work(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A Job is work on programs, whose result is an A.
//
// A program may be made to harm whoever takes it apart: one number in it makes debug/gosym
// ask for more memory than there is, which ends a program. So a process of its own does it,
// in which this program calls itself, with bounds of memory and of time; the error says when
// it reached them.
type Job[A any] struct{ name string }

// NewJob makes a job of a name that no other has, when a package is initialized. The result
// passes through JSON.
func NewJob[A any](name string, work func(r io.Reader) (A, error)) Job[A] {
	jobs[name] = func(r io.Reader, w io.Writer) error {
		a, err := work(r)
		if err != nil {
			return err
		}
		return json.NewEncoder(w).Encode(a)
	}
	return Job[A]{name}
}

// Run does the job with what r gives. The error is also r's, and ctx's.
func (j Job[A]) Run(ctx context.Context, r io.Reader) (a A, err error) {
	exe, err := os.Executable()
	if err == nil && !ready {
		err = errors.New("gobinary.Init was not called")
	}
	if err != nil {
		return a, err
	}
	slow := fmt.Errorf("it took longer than %s", maxTime)
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The time of the network, which brings the programs, has bounds of its own.
	all := &atEnd{Reader: r, end: func() { time.AfterFunc(maxTime, func() { cancel(slow) }) }}
	out, said := &limit.Buffer{Max: maxAnswer}, &limit.Buffer{Max: 64 << 10}
	cmd := exec.CommandContext(within, exe)
	cmd.Args, cmd.Env = []string{childName, j.name}, []string{"GOTRACEBACK=none"} // it needs nothing from here
	cmd.Stdin, cmd.Stdout, cmd.Stderr = all, out, said
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return a, context.Cause(ctx)
	case within.Err() != nil:
		return a, context.Cause(within)
	case all.err.Load() != nil:
		return a, *all.err.Load()
	case err != nil && outOfMemory(said.String()):
		return a, fmt.Errorf("it took more than %d MiB of memory", maxMemory>>20)
	case err != nil:
		first, _, _ := strings.Cut(said.String(), "\n")
		return a, fmt.Errorf("taking it apart failed: %s", short(cmp.Or(first, err.Error())))
	}
	if err := json.Unmarshal([]byte(out.String()), &a); err != nil {
		return a, fmt.Errorf("taking it apart gave no answer: %w", err)
	}
	return a, nil
}

// outOfMemory reports whether a Go program ended because it could get no more memory, for
// itself or for the stack of a thread. Its runtime does not look at everything that it asks
// the kernel for, and then stumbles itself: not as a panic, which is a fault of the program.
func outOfMemory(said string) bool {
	return strings.HasPrefix(said, "SIGSEGV: segmentation violation") || slices.ContainsFunc([]string{"out of memory", "cannot allocate memory", "pthread_create failed", "new OS thread"},
		func(s string) bool { return strings.Contains(said, s) })
}

// atEnd calls end when all was read, and keeps the error that something could not be.
type atEnd struct {
	io.Reader
	end func()
	err atomic.Pointer[error]
}

func (r *atEnd) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	switch {
	case err == io.EOF:
		r.end()
	case err != nil:
		r.err.Store(&err)
	}
	return n, err
}
