// Package confine runs a program that is not to be trusted with this machine: another
// revision of this project's own, which only builds.
//
// What it promises everywhere: an environment built from nothing, no input, an end after a
// time, and bounds on what is kept of its words. On Linux it promises more, as far as the
// kernel offers it: the program has no network, and of the file system it reads and writes
// only what it is given, so that neither the user's secrets nor the files of other programs
// are in its reach; nor are their sockets, such as Docker's, and their processes. Its own
// processes end with it. [Command.Run] says whether there was all of this. What is left is
// that it may change the mode and the times of files, as its user may, and fill the disk.
package confine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

// A Command is a run of a program.
type Command struct {
	Program string // the path of its file
	Args    []string
	Env     []string
	// Dir is where it runs. It may write to that folder, with all below.
	Dir string
	// Read are other files and folders that it may read, and run; Write are others that it
	// may also write to.
	Read, Write []string
	// Limit is how long it may take.
	Limit time.Duration
}

// ErrSlow says that a program took longer than it may, and was ended.
var ErrSlow = errors.New("took too long")

// maxWords is how much is kept of what a program says, in bytes: its end.
const maxWords = 4 << 10

// Run runs the program to its end. Closed reports whether it had neither network nor other
// programs' files, sockets and processes. The error is [ErrSlow], that of ctx, or has the program's last words.
func (c Command) Run(ctx context.Context) (closed bool, err error) {
	slow := fmt.Errorf("%w: more than %s", ErrSlow, c.Limit)
	within, cancel := context.WithTimeoutCause(ctx, c.Limit, slow)
	defer cancel()
	// A thread that has given up its rights does nothing else, and ends with its goroutine. The
	// program dies with the thread that starts it, so that one must not end before:
	// go.dev/issue/27505.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		closed, err = c.run(within)
	}()
	<-done
	switch {
	case ctx.Err() != nil:
		return closed, context.Cause(ctx)
	case within.Err() != nil:
		return closed, slow
	}
	return closed, err
}

// command is the program as it is about to run, and the end of what it says.
func (c Command) command(ctx context.Context) (*exec.Cmd, *tail) {
	cmd := exec.CommandContext(ctx, c.Program, c.Args...)
	said := &tail{}
	cmd.Dir, cmd.Env = c.Dir, append([]string{}, c.Env...) // empty, not inherited
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = 5 * time.Second
	return cmd, said
}

// failed is the error of a program that did not end well.
func failed(err error, said *tail) error {
	if words := said.String(); err != nil && words != "" {
		return fmt.Errorf("%w: %s", err, words)
	}
	return err
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p[max(0, len(p)-maxWords):]...)
	if more := len(t.kept) - maxWords; more > 0 {
		t.kept = append(t.kept[:0], t.kept[more:]...)
	}
	return len(p), nil
}

// String is the last lines that say something.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(string(bytes.TrimSpace(t.kept)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
