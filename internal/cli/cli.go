// Package cli is what the command lines of this repository's programs share: exit codes,
// errors with a hint, flags that may come in any order, and how a program ends.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1   // it did not work
	ExitUsage       = 2   // the command line is wrong
	ExitDiffers     = 3   // what was built is not what the lock records
	ExitNew         = 10  // update --check found something new
	ExitInterrupted = 130 // stopped by a signal
)

// An Error is an error with an exit code, and a hint where there is something to do.
type Error struct {
	error
	Code int
	Hint string
}

func (e *Error) Unwrap() error { return e.error }

// Coded is err with an exit code and a hint.
func Coded(code int, err error, hint string) error { return &Error{err, code, hint} }

// Failed is err with a hint.
func Failed(err error, hint string) error { return Coded(ExitFailed, err, hint) }

// Usage is an error in the command line. Its hint names the help.
func Usage(format string, args ...any) error {
	return Coded(ExitUsage, fmt.Errorf(format, args...), "")
}

// Parse parses flags before, between and after the arguments, and returns these. For
// -h it calls f.Usage.
func Parse(f *flag.FlagSet, args []string) (rest []string, err error) {
	help := f.Usage
	f.SetOutput(io.Discard) // what is wrong is in the error
	f.Usage = func() {}
	for {
		switch err := f.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			help()
			return nil, err
		case err != nil:
			return nil, Usage("%w", err)
		case f.NArg() == 0:
			return rest, nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

// A Program is a program with a command line.
type Program struct {
	// Name begins its messages; Self is how it was started, for commands that a user
	// can copy.
	Name, Self string
	// Start carries out a command line.
	Start func(ctx context.Context, args []string, stdout, stderr io.Writer) error
	// Kept is the hint for a command line that was interrupted, "" for none.
	Kept func(args []string) string
	// Leave waits, after a signal, for as long as a command line may take to end.
	Leave func(args []string)
}

// Main runs the program for the command line that it was started with.
func (p *Program) Main() {
	args := os.Args[1:]
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program at once
		p.Leave(args)
		os.Exit(p.interrupted(args, os.Stderr))
	}()
	os.Exit(p.Run(ctx, args, os.Stdout, os.Stderr))
}

// Run runs the program and returns its exit code.
func (p *Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := p.Start(ctx, args, stdout, stderr)
	coded, ok := errors.AsType[*Error](err)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return ExitOK
	case ok && coded.Code == ExitNew: // no failure
		return ExitNew
	case ctx.Err() != nil:
		return p.interrupted(args, stderr)
	case !ok:
		coded = &Error{err, ExitFailed, ""}
	}
	hint := coded.Hint
	if hint == "" && coded.Code == ExitUsage {
		hint = p.Self + " -h shows how it is used"
	}
	p.say(stderr, err, hint)
	return coded.Code
}

func (p *Program) interrupted(args []string, stderr io.Writer) int {
	p.say(stderr, "interrupted", p.Kept(args))
	return ExitInterrupted
}

func (p *Program) say(stderr io.Writer, what any, hint string) {
	fmt.Fprintf(stderr, "%s: %v\n", p.Name, what)
	if hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
}
