// Package cli is what the command lines of this repository's programs share: exit codes,
// errors with a hint, the form of the help, and how a program ends.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xavieralpha/derper/entrypoint/printable"
)

// The order of commands in the help means something.
func init() { cobra.EnableCommandSorting = false }

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

// A Program is a program with a command line.
type Program struct {
	// Self is how it was started, for commands that a user can copy.
	Self string
	// Root makes the command line, with what its commands write to: what a terminal would
	// carry out is made visible there. Main and Run give it the form that all programs have.
	Root func(stdout, stderr io.Writer) *cobra.Command
	// Explain completes an error, with its hint and its exit code; nil leaves it as it is.
	Explain func(error) error
	// Kept is the hint when a command was interrupted, "" for none.
	Kept func(command string) string
	// Leave waits, after a signal, for as long as a command may take to end.
	Leave func(command string)
}

// Main runs the program for the command line that it was started with.
func (p *Program) Main() {
	args := os.Args[1:]
	log.SetOutput(printable.NewWriter(os.Stderr)) // of libraries
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program immediately
		c, _, _ := p.Root(io.Discard, io.Discard).Find(args)
		p.Leave(c.Name())
		os.Exit(p.interrupted(c, os.Stderr))
	}()
	os.Exit(p.Run(ctx, args, os.Stdout, os.Stderr))
}

// Run runs the program and returns its exit code.
func (p *Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	stdout, stderr = printable.NewWriter(stdout), printable.NewWriter(stderr)
	root := p.Root(stdout, stderr)
	complete(root, args)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	c, err := root.ExecuteContextC(ctx)
	if p.Explain != nil {
		err = p.Explain(err)
	}
	coded, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return ExitOK
	case ok && coded.Code == ExitNew: // no failure
		return ExitNew
	case ctx.Err() != nil:
		return p.interrupted(c, stderr)
	case !ok:
		coded = &Error{err, ExitFailed, ""}
	}
	hint := coded.Hint
	if hint == "" && coded.Code == ExitUsage {
		_, path, _ := strings.Cut(c.CommandPath()+" ", " ")
		hint = p.Self + " " + path + "-h shows how it is used"
	}
	say(root, stderr, err, hint)
	return coded.Code
}

func (p *Program) interrupted(c *cobra.Command, stderr io.Writer) int {
	say(c.Root(), stderr, "interrupted", p.Kept(c.Name()))
	return ExitInterrupted
}

// say writes an error and its hint. Further lines of either are indented: only this program
// begins a line with its name, or with hint.
func say(root *cobra.Command, stderr io.Writer, what any, hint string) {
	fmt.Fprintf(stderr, "%s: %s\n", root.Name(), indented(fmt.Sprint(what)))
	if hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", indented(hint))
	}
}

func indented(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }

// Check returns what is wrong with a command line, without carrying it out: it parses the
// flags, and asks the command's own checks, Args and PreRunE.
func Check(root *cobra.Command, args []string) error {
	complete(root, args)
	c, rest, err := root.Find(args)
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err != nil {
		return Usage("%w", err)
	}
	words := c.Flags().Args()
	if err := c.ValidateArgs(words); err != nil || c.PreRunE == nil {
		return err
	}
	return c.PreRunE(c, words)
}

// complete gives a command line the form that all programs have: their help, their voice,
// and the command help. args are those that it is going to get.
func complete(root *cobra.Command, args []string) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().BoolP("help", "h", false, "show this help")
	root.SetHelpTemplate(helpText)
	if root.InitDefaultVersionFlag(); root.Version != "" {
		root.Flags().Lookup("version").Usage = "print the version of this program"
	}
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		forShells(root)
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return flagError(c, args, err) })
	root.SetHelpCommand(newHelp(root))
}

// flagError is what is wrong with the flags of a command line.
func flagError(c *cobra.Command, args []string, err error) error {
	if words := c.Flags().Args(); c.HasSubCommands() && len(words) > 0 {
		return Unknown(c, words) // the flag is that of a command that was mistyped
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return Usage("%s%w", prefix(c), err)
	}
	// Go's own programs accept a long flag with one dash, too, and so did this one.
	for _, arg := range args {
		word, single := strings.CutPrefix(arg, "-")
		name, _, _ := strings.Cut(word, "=")
		if short := unknown.GetSpecifiedShortnames(); short != "" && single && len(name) > 1 && strings.HasSuffix(word, short) && c.Flags().Lookup(name) != nil {
			return Coded(ExitUsage, fmt.Errorf("%sunknown flag -%s", prefix(c), name), "a long flag has two dashes: --"+name)
		}
	}
	name := "-" + unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() == "" {
		name = "-" + name
	}
	return Usage("%sunknown flag %s", prefix(c), name)
}

// prefix begins an error about a command: its name, with those of the commands above it.
func prefix(c *cobra.Command) string {
	if _, path, ok := strings.Cut(c.CommandPath(), " "); ok {
		return path + ": "
	}
	return ""
}

// Group makes c a command that does nothing by itself: one of those below it must be named.
func Group(c *cobra.Command) *cobra.Command {
	c.Args = Unknown
	c.RunE = func(c *cobra.Command, _ []string) error {
		var names []string
		for _, sub := range c.Commands() {
			names = append(names, sub.Name())
		}
		return Usage("%sno command given, expected %s", prefix(c), strings.Join(names, " or "))
	}
	return c
}

// Unknown refuses words that are no command of c, and names the nearest one.
func Unknown(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2 // edits, of which cobra accepts none by itself
	_, path, _ := strings.Cut(c.CommandPath()+" ", " ")
	err := fmt.Errorf("unknown command %q", path+args[0])
	near := c.SuggestionsFor(args[0])
	switch {
	case args[0] == "":
	case slices.Contains(near, args[0]): // it came after --
		return Coded(ExitUsage, err, "a command comes before --")
	case len(near) > 0:
		return Coded(ExitUsage, err, "did you mean "+strings.Join(near, " or ")+"?")
	}
	return Coded(ExitUsage, err, "")
}

// None is for a command without arguments.
func None(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage("%sunexpected argument %q", prefix(c), args[0])
	}
	return nil
}

// Some is for a command that takes at least one; what is the word for several of them.
func Some(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return Usage("%sno %s given", prefix(c), what)
		}
		return nil
	}
}

// AtMostOne is for a command that takes one, or none.
func AtMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return Usage("%sunexpected argument %q: %d %s given, expected one", prefix(c), args[1], len(args), what)
		}
		return nil
	}
}

// One is for a command that takes one.
func One(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return Usage("%s0 %s given, expected one", prefix(c), what)
		}
		return AtMostOne(what)(c, args)
	}
}
