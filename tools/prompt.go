package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// interrupted is the exit code of what Ctrl-C ends.
const interrupted = 128 + int(syscall.SIGINT)

// A session is a shell that runs.
type session struct {
	runner   *interp.Runner
	terminal bool         // a person is at it
	code     atomic.Int32 // of the program that ended after an interrupt

	mu        sync.Mutex
	interrupt context.CancelFunc // ends what the shell is doing
}

// stop ends what the shell is doing.
func (s *session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt()
}

// exec runs programs. The terminal interrupts them itself, and those that want to go on then
// do: a shell in a shell. The rest of the line is not run in any case.
func (s *session) exec(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		hc := interp.HandlerCtx(ctx)
		if _, err := interp.LookPathDir(hc.Dir, hc.Env, args[0]); err != nil {
			file := args[0]
			if !filepath.IsAbs(file) {
				file = filepath.Join(hc.Dir, file)
			}
			if _, err := os.Stat(file); err == nil && strings.Contains(args[0], "/") {
				fmt.Fprintf(hc.Stderr, "sh: %s: not a program that may be executed\n", args[0])
				return interp.ExitStatus(126)
			}
			fmt.Fprintf(hc.Stderr, "sh: %s: not found\n", args[0])
			return interp.ExitStatus(127)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := next(context.WithoutCancel(ctx), args)
		code, _ := errors.AsType[interp.ExitStatus](err)
		if int(code) == interrupted && s.terminal { // the signal may reach this shell later
			s.stop()
		}
		s.code.Store(int32(code))
		return err
	}
}

// talk is the shell at a terminal.
func (s *session) talk() error {
	tty, err := newEditor(s.prompt, s.complete)
	if err != nil {
		return err
	}
	s.terminal = true
	// Of these, the shell ignores what comes meanwhile; programs do not inherit that.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGQUIT, syscall.SIGTSTP)
	signal.Stop(quits)
	go func() {
		for sig := range signals {
			if sig == os.Interrupt {
				s.stop()
			}
		}
	}()
	for !tty.ended {
		parser := syntax.NewParser()
		tty.more = false
		for statements, err := range parseLines(parser, tty.line) {
			if err != nil {
				if !tty.ended && !errors.Is(err, errInterrupted) {
					fmt.Fprintln(os.Stderr, "sh:", err)
					s.set(2)
				}
				break
			}
			if tty.more = parser.Incomplete(); tty.more {
				continue
			}
			if exited, err := s.statements(statements); exited {
				return exitCode(err)
			}
		}
	}
	return s.exit("exit")
}

// statements runs a line, until it ends or Ctrl-C ends it. Its background jobs go on.
func (s *session) statements(list []*syntax.Stmt) (exited bool, err error) {
	ctx, interrupt := context.WithCancel(context.Background())
	s.mu.Lock()
	s.interrupt = interrupt
	s.code.Store(0)
	s.mu.Unlock()
	for _, statement := range list {
		prepare(statement)
		err = s.runner.Run(ctx, statement)
		if ctx.Err() != nil {
			code := cmp.Or(int(s.code.Load()), interrupted)
			if s.set(code); code == interrupted {
				fmt.Fprintln(os.Stderr) // the terminal has shown ^C
			}
			return false, nil
		}
		if s.runner.Exited() {
			return true, err
		}
	}
	return false, nil
}

// set sets $?.
func (s *session) set(code int) {
	file, err := syntax.NewParser().Parse(strings.NewReader(fmt.Sprintf("(exit %d)", code)), "")
	if err == nil {
		s.runner.Run(context.Background(), file.Stmts[0]) //nolint:errcheck // it is the code
	}
}

// argv0 is a variable that stands for $0, which the interpreter knows only in files.
const argv0 = "BASH_ARGV0"

// name sets $0 of statements.
func (s *session) name(name string) error {
	quoted, err := syntax.Quote(name, syntax.LangBash)
	if err != nil {
		return err
	}
	file, err := syntax.NewParser().Parse(strings.NewReader(argv0+"="+quoted), "")
	if err != nil {
		return err
	}
	return s.runner.Run(context.Background(), file.Stmts[0])
}

// prepare makes a statement use the name that has been set, and has its background jobs read
// nothing: what is typed, or what the script goes on with, is not for them.
func prepare(statement *syntax.Stmt) {
	syntax.Walk(statement, func(node syntax.Node) bool {
		switch node := node.(type) {
		case *syntax.ParamExp:
			if node.Param != nil && node.Param.Value == "0" {
				node.Param.Value = argv0
			}
		case *syntax.Stmt:
			if node.Background {
				empty := &syntax.Redirect{Op: syntax.Hdoc, Word: &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: "END"}}}}
				node.Redirs = append([]*syntax.Redirect{empty}, node.Redirs...)
			}
		}
		return true
	})
}

// complete completes a line on Tab.
func (s *session) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	line, pos = complete(s.runner.Dir, s.runner.Vars["PATH"].String(), line, pos)
	return line, pos, true
}

// prompt is the prompt of the next line.
func (s *session) prompt() string {
	if prompt := s.runner.Vars["PS1"]; prompt.IsSet() {
		return prompt.String()
	}
	sign := "$"
	if os.Geteuid() == 0 {
		sign = "#"
	}
	return s.runner.Dir + " " + sign + " "
}

// errInterrupted says that Ctrl-C has ended a line that was being typed.
var errInterrupted = errors.New("interrupted")

// keys hands on one key at a time, so that those that were typed ahead are there for the
// program that the line starts.
type keys struct {
	*os.File
	last byte
}

func (k *keys) Read(p []byte) (int, error) {
	n, err := k.File.Read(p[:1])
	if n > 0 {
		k.last = p[0]
	}
	return n, err
}

// Write writes to the terminal even if the output goes elsewhere.
func (k *keys) Write(p []byte) (int, error) { return os.Stderr.Write(p) }
