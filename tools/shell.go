package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

const shellUsage = `usage: sh [-aefnuxi] [-o OPTION] [-c COMMAND [NAME [ARGUMENT]…] | -s [ARGUMENT]… | SCRIPT [ARGUMENT]…]

The shell is mvdan.cc/sh: POSIX, and most of what bash has. It does not have:
  job control (Ctrl-Z, jobs, fg, bg); background jobs get Ctrl-C, too, and those that
    are more than a program end with the shell
  numbers of processes in $!, which is only good for wait; wait -n
  file descriptors above 2 (exec 3>FILE, >&3), which end a script; <>, >|
  traps of signals (trap … EXIT and trap … ERR work), umask, ulimit, times, fc
  set -C, -m and -v; read -t and -n; printf %q
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
		_, err := io.WriteString(os.Stdout, shellUsage)
		return err
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
		interp.CallHandler(s.call),
		interp.ExecHandlers(s.exec),
		interp.Params(append(append(line.options, "--"), line.args...)...),
	)
	if err != nil {
		return usageError{err}
	}
	if in != os.Stdin {
		return s.run(ctx, in, name)
	}
	if err := s.name(name); err != nil {
		return err
	}
	if line.interactive && term.IsTerminal(int(os.Stdin.Fd())) {
		return s.talk()
	}
	return s.follow(in)
}

// run runs a script to its end, or to the line that is wrong.
func (s *session) run(ctx context.Context, in io.Reader, name string) error {
	file := &syntax.File{Name: name}
	parser := syntax.NewParser()
	var wrong error
	for statements, err := range parseLines(parser, func() (string, error) { return nextLine(in) }) {
		if wrong = err; err != nil {
			break
		}
		if !parser.Incomplete() {
			file.Stmts = append(file.Stmts, statements...)
		}
	}
	err := s.runner.Run(ctx, file)
	if wrong != nil && !s.runner.Exited() {
		fmt.Fprintf(os.Stderr, "sh: %s:%v\n", name, wrong)
		return status(2)
	}
	return exitCode(err)
}

// follow runs what comes on standard input, line by line.
func (s *session) follow(in io.Reader) error {
	parser := syntax.NewParser()
	for statements, err := range parseLines(parser, func() (string, error) { return nextLine(in) }) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "sh:", err)
			return s.exit("exit 2")
		}
		if parser.Incomplete() {
			continue
		}
		if exited, err := s.statements(statements); exited {
			return exitCode(err)
		}
	}
	return s.exit("exit")
}

// exit runs the command exit, which runs what is trapped.
func (s *session) exit(command string) error {
	return s.run(context.Background(), strings.NewReader(command), "sh")
}

// parseLines parses a line at a time, as InteractiveSeq of the parser does.
func parseLines(parser *syntax.Parser, line func() (string, error)) iter.Seq2[[]*syntax.Stmt, error] {
	return func(yield func([]*syntax.Stmt, error) bool) {
		for statements, err := range parser.InteractiveSeq(&lineReader{line: line}) {
			if err == nil && !parser.Incomplete() {
				err = unsupported(statements)
			}
			if !yield(statements, err) {
				return
			}
		}
	}
}

// unsupported finds file descriptors that the interpreter would complain about and go on.
func unsupported(statements []*syntax.Stmt) (err error) {
	check := func(fd *syntax.Lit) {
		if fd == nil {
			return
		}
		if number, _ := strconv.Atoi(fd.Value); number > 2 || strings.HasPrefix(fd.Value, "{") {
			err = fmt.Errorf("%v: no file descriptors above 2: %s", fd.Pos(), fd.Value)
		}
	}
	for _, statement := range statements {
		syntax.Walk(statement, func(node syntax.Node) bool {
			if redirect, ok := node.(*syntax.Redirect); ok {
				check(redirect.N)
				if redirect.Op == syntax.DplIn || redirect.Op == syntax.DplOut {
					check(&syntax.Lit{ValuePos: redirect.Word.Pos(), Value: redirect.Word.Lit()})
				}
			}
			return true
		})
	}
	return err
}

// nextLine reads a line byte by byte, because what follows it may be what its programs read.
func nextLine(in io.Reader) (string, error) {
	var line []byte
	for char := make([]byte, 1); ; {
		n, err := in.Read(char)
		switch {
		case n > 0 && char[0] != '\n':
			line = append(line, char[0])
		case n > 0, err == io.EOF && len(line) > 0:
			return string(line), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// lineReader has the parser read lines. Each ends with a newline, without which the parser would
// keep the last one, and comes as a whole, because the parser errs where a backslash is the last
// thing it has read.
type lineReader struct {
	line func() (string, error)
	rest string // of the line that was read last
}

func (r *lineReader) Read(p []byte) (int, error) {
	if r.rest == "" {
		line, err := r.line()
		if err != nil {
			return 0, err
		}
		r.rest = line + "\n"
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
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

// call changes what the interpreter is about to call.
func (s *session) call(ctx context.Context, args []string) ([]string, error) {
	hc := interp.HandlerCtx(ctx)
	switch args[0] {
	case "kill": // which the interpreter knows of only by name
		if program, err := interp.LookPathDir(hc.Dir, hc.Env, "kill"); err == nil {
			return append([]string{program}, args[1:]...), nil
		}
	case "echo", "printf", "pwd", "type": // the interpreter does not see that writing fails
		if broken(hc.Stdout) {
			return []string{"exit", fmt.Sprint(128 + int(syscall.SIGPIPE))}, nil
		}
	case "read":
		if stdin, ok := hc.Stdin.(*os.File); ok && s.terminal {
			return waitForLine(ctx, stdin, hc.Stdout, args)
		}
	}
	return args, nil
}

// broken is whether w is a pipe that nobody reads from any more.
func broken(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && poll(file, 0, 0)&unix.POLLERR != 0
}

// waitForLine waits until there is something to read, which Ctrl-C ends: a read from a terminal
// that has begun would go on. The prompt of read is what it shows before. Without an echo (-s), a
// line is waited for in read.
func waitForLine(ctx context.Context, stdin *os.File, stdout io.Writer, args []string) ([]string, error) {
	if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-") && strings.Contains(arg, "s") }) {
		return args, nil
	}
	left := args[:1:1]
	for i := 1; i < len(args); i++ {
		flags, ok := strings.CutPrefix(args[i], "-")
		switch {
		case ok && strings.HasSuffix(flags, "p") && i+1 < len(args):
			fmt.Fprint(stdout, args[i+1])
			if i++; flags != "p" {
				left = append(left, "-"+strings.TrimSuffix(flags, "p"))
			}
		default:
			left = append(left, args[i])
		}
	}
	for poll(stdin, unix.POLLIN, 100) == 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// poll waits for events of a file, for so many milliseconds.
func poll(file *os.File, events int16, timeout int) int16 {
	conn, err := file.SyscallConn()
	if err != nil {
		return 0
	}
	fds := []unix.PollFd{{Events: events}}
	conn.Control(func(fd uintptr) { //nolint:errcheck // of a file that is closed, nothing is known
		fds[0].Fd = int32(fd)
		unix.Poll(fds, timeout) //nolint:errcheck // then there are no events
	})
	return fds[0].Revents
}

// quits gets SIGQUIT, for which Go would print what all goroutines do. It ends a tool as it ends
// other programs, but not the shell at a terminal.
var quits = make(chan os.Signal, 1)

func quitQuietly() {
	signal.Notify(quits, syscall.SIGQUIT)
	go func() {
		<-quits
		os.Exit(128 + int(syscall.SIGQUIT))
	}()
}
