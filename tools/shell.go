package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

const shellUsage = `usage: sh [-aefnuxi] [-o OPTION] [-c COMMAND [NAME [ARGUMENT]…] | -s [ARGUMENT]… | SCRIPT [ARGUMENT]…]

The shell is mvdan.cc/sh: POSIX, and most of what bash has. It does not have:
  job control (Ctrl-Z, jobs, fg, bg); background jobs get Ctrl-C, too
  numbers of processes in $!, which is only good for wait
  traps of signals (trap … EXIT and trap … ERR work), umask, ulimit, times, fc
At a terminal, lines are edited with the keys of readline, Tab completes the names of
files, and the history is that of this shell. Keys: arrows, Ctrl-A E K U W L, Ctrl-C, Ctrl-D.
`

// A shellLine is the command line of a shell.
type shellLine struct {
	command          *string  // of -c
	stdin            bool     // -s
	options          []string // of the set builtin
	args             []string
	interactive, end bool // -i, --help
}

// shellArgs parses the command line of a shell.
func shellArgs(args []string) (l shellLine, err error) {
	wantCommand := false
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" || arg == "-" {
			args = args[1:]
			break
		}
		if arg == "--help" {
			return shellLine{end: true}, nil
		}
		if len(arg) < 2 || arg[0] != '-' && arg[0] != '+' {
			break
		}
		args = args[1:]
		for _, letter := range arg[1:] {
			switch {
			case letter == 'c':
				wantCommand = true
			case letter == 's':
				l.stdin = true
			case letter == 'i':
				l.interactive = true
			case letter == 'l': // a login shell has no files to read here
			case letter == 'o' && len(args) > 0:
				l.options, args = append(l.options, arg[:1]+"o", args[0]), args[1:]
			default:
				l.options = append(l.options, arg[:1]+string(letter))
			}
		}
	}
	if wantCommand {
		if len(args) == 0 {
			return l, errors.New("-c requires a command")
		}
		l.command, args = &args[0], args[1:]
	}
	l.args = args
	return l, nil
}

// shell is the tool sh.
func shell(args []string) error {
	line, err := shellArgs(args)
	if err != nil {
		return usageError{err}
	}
	if line.end {
		fmt.Print(shellUsage)
		return nil
	}
	var in io.Reader = os.Stdin
	name := "sh"
	switch {
	case line.command != nil:
		in = strings.NewReader(*line.command)
		if len(line.args) > 0 {
			name, line.args = line.args[0], line.args[1:]
		}
	case !line.stdin && len(line.args) > 0:
		name, line.args = line.args[0], line.args[1:]
		script, err := os.Open(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "sh:", err)
			return status(map[bool]int{true: 127, false: 126}[errors.Is(err, fs.ErrNotExist)])
		}
		defer script.Close()
		in = script
	default:
		line.interactive = line.interactive || term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
	}
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	s := &session{interrupt: interrupt}
	s.runner, err = interp.New(
		interp.StdIO(os.Stdin, os.Stdout, os.Stderr),
		interp.Interactive(line.interactive),
		interp.CallHandler(replaceBuiltins),
		interp.ExecHandlers(s.exec),
		interp.Params(append(append(line.options, "--"), line.args...)...),
	)
	if err != nil {
		return usageError{err}
	}
	if line.interactive && in == os.Stdin && term.IsTerminal(int(os.Stdin.Fd())) {
		return s.talk()
	}
	return s.run(ctx, in, name)
}

// run runs a script to its end.
func (s *session) run(ctx context.Context, in io.Reader, name string) error {
	file, err := syntax.NewParser().Parse(in, name)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sh:", err)
		return status(2)
	}
	return exitCode(s.runner.Run(ctx, file))
}

// exitCode is what a shell ends with, of what the interpreter returns.
func exitCode(err error) error {
	var exit interp.ExitStatus
	switch {
	case errors.As(err, &exit):
		return status(exit)
	case errors.Is(err, context.Canceled):
		return status(interrupted)
	}
	return err
}

// replaceBuiltins has programs do what the interpreter knows of only by name.
func replaceBuiltins(ctx context.Context, args []string) ([]string, error) {
	if hc := interp.HandlerCtx(ctx); args[0] == "kill" {
		if program, err := interp.LookPathDir(hc.Dir, hc.Env, "kill"); err == nil {
			return append([]string{program}, args[1:]...), nil
		}
	}
	return args, nil
}
