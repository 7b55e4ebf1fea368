package diff

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
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

// Limits of the process that takes two programs apart.
const (
	// MaxProgram is the most that a program may have to be taken apart, in bytes; derper
	// has 18 MB.
	MaxProgram = 64 << 20

	maxMemory = 512 << 20 // bytes
	maxAnswer = 1 << 20   // bytes
)

// maxTime is from when it has both programs. Tests have less patience.
var maxTime = time.Minute

// childName is how this program calls itself to take programs apart: its argument 0.
const childName = "derper-diff"

// ready is set once Init has run: without it, the child would be all of this program again.
var ready bool

// Init takes programs apart where this program was called by itself to do that, and then
// does not return. Otherwise it does nothing. It is called first thing in main, and in
// TestMain.
func Init() {
	if ready = true; len(os.Args) == 0 || os.Args[0] != childName {
		return
	}
	err := confine()
	if err == nil {
		err = child(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// answer is what the child says.
type answer struct {
	Summary string
	Details []string
}

// child compares two programs from r, the wanted one behind its size in eight bytes, and
// writes an answer to w.
func child(r io.Reader, w io.Writer) error {
	var size uint64
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		return err
	}
	if size > MaxProgram {
		return fmt.Errorf("rebuilt program: %w: %d bytes", limit.Err, size)
	}
	want := make([]byte, size)
	if _, err := io.ReadFull(r, want); err != nil {
		return fmt.Errorf("rebuilt program: %w", err)
	}
	got, err := limit.ReadAll(r, MaxProgram)
	if err != nil {
		return err
	}
	var a answer
	if a.Summary, a.Details, err = compare(want, got); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(a)
}

// Programs says how two compiled programs differ, the wanted one of so many bytes: in a
// sentence or two for people, and in lines, the most telling first.
//
// A program may be made to harm whoever takes it apart: one number in it makes debug/gosym
// ask for more memory than there is, which ends a program. So a process of its own does it,
// in which this program calls itself, with bounds of memory and of time; the error says when
// it reached them. It says nothing of the programs. The error is also ctx's.
func Programs(ctx context.Context, want io.Reader, size int64, got io.Reader) (summary string, details []string, err error) {
	exe, err := os.Executable()
	if err == nil && !ready {
		err = errors.New("diff.Init was not called")
	}
	if err != nil {
		return "", nil, err
	}
	slow := fmt.Errorf("it took longer than %s", maxTime)
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The time of the network, which brings the programs, has bounds of its own.
	head := binary.BigEndian.AppendUint64(nil, uint64(size))
	all := &atEnd{Reader: io.MultiReader(bytes.NewReader(head), want, got), end: func() {
		time.AfterFunc(maxTime, func() { cancel(slow) })
	}}
	out, said := &limit.Buffer{Max: maxAnswer}, &limit.Buffer{Max: 64 << 10}
	cmd := exec.CommandContext(within, exe)
	cmd.Args, cmd.Env = []string{childName}, []string{"GOTRACEBACK=none"} // it needs nothing from here
	cmd.Stdin, cmd.Stdout, cmd.Stderr = all, out, said
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	var a answer
	switch {
	case ctx.Err() != nil:
		return "", nil, context.Cause(ctx)
	case within.Err() != nil:
		return "", nil, context.Cause(within)
	case all.err.Load() != nil:
		return "", nil, *all.err.Load()
	case err != nil && outOfMemory(said.String()):
		return "", nil, fmt.Errorf("it took more than %d MiB of memory", maxMemory>>20)
	case err != nil:
		first, _, _ := strings.Cut(said.String(), "\n")
		return "", nil, fmt.Errorf("taking them apart failed: %s", short(cmp.Or(first, err.Error())))
	}
	if err := json.Unmarshal([]byte(out.String()), &a); err != nil {
		return "", nil, fmt.Errorf("taking them apart gave no answer: %w", err)
	}
	return a.Summary, a.Details, nil
}

// outOfMemory reports whether a Go program ended because it could get no more memory, for
// itself or for the stack of a thread.
func outOfMemory(said string) bool {
	return slices.ContainsFunc([]string{"out of memory", "cannot allocate memory", "pthread_create failed", "new OS thread"},
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
