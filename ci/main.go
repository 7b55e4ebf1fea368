// Ci carries out the stages of the build on a Dagger Engine, on this machine or
// elsewhere, and gives the same digests as build on its own does.
//
// Its contract: it composes, and the program in cmd/build does the work. It
// compiles that program for the engine, puts it into containers made of nothing
// else, and runs its commands there: for each platform a container of its own, all
// side by side, then one that makes the layout of what they left in the cache, then
// the image as a service and a client that asks it, then the rest. No image is pulled,
// and none is exported or published by the engine: that would date it. The layout
// and a report of each step come to the client, where the layout's content is checked
// against its digests before it takes its place.
//
// Results go to stdout; progress, which the engine reports, and errors go to stderr.
// An error is one line, ci: what: why, and where there is something to do, a line
// that begins with hint:.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// Exit codes are build's, and what a command of build ended with is passed on.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// wanted is the release of Dagger whose API this program speaks, that of its SDK.
const wanted = "v0.21.8"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program at once
		// The engine stops what runs when its client is gone, so nothing is lost
		// when taking leave of it takes too long.
		time.Sleep(10 * time.Second)
		os.Exit(interrupted(os.Stderr))
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the program and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := start(ctx, args, stdout, stderr)
	var coded *codedError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case ctx.Err() != nil:
		return interrupted(stderr)
	case errors.As(err, &coded):
		fmt.Fprintf(stderr, "ci: %v\n", err)
		if coded.hint != "" {
			fmt.Fprintf(stderr, "hint: %s\n", coded.hint)
		}
		return coded.code
	}
	fmt.Fprintf(stderr, "ci: %v\n", err)
	return exitFailed
}

func interrupted(stderr io.Writer) int {
	fmt.Fprintln(stderr, "ci: interrupted\nhint: what was finished is kept in the engine; the next run goes on from there")
	return exitInterrupted
}

// codedError is an error with an exit code and a hint of its own.
type codedError struct {
	error
	code int
	hint string
}

func (e *codedError) Unwrap() error { return e.error }

func usageError(format string, args ...any) error {
	return &codedError{fmt.Errorf(format, args...), exitUsage, "go run ./ci -h shows how it is used"}
}

// options are the command line.
type options struct {
	command   string
	lockFile  string
	asked     string // the platforms as they were asked for
	platforms []lock.Platform
	output    string // folder for the layout
	reports   string // folder for the reports
	passed    []string
	key       string // the private key among what is passed on
	ports     []int  // of this machine's loopback, for registries among what is passed on
}

// commands names what the pipeline does, and what it hands arguments on to.
var commands = []struct{ name, summary string }{
	{"build", "build the image: a container for each platform, then the layout; what happens when no command is named"},
	{"test", "build it, ask it as a service what clients need of it, and run build test in a container"},
	{"verify", "run build verify in a container; arguments after -- are for it"},
	{"release", "build it, ask it as a service, and run build release in a container; arguments after -- are for it"},
}

// parse reads the command line.
func parse(args []string, stdout io.Writer) (*options, error) {
	o := &options{command: "build"}
	f := flag.NewFlagSet("ci", flag.ContinueOnError)
	f.SetOutput(io.Discard) // what is wrong is in the error
	f.Usage = func() {}
	f.StringVar(&o.lockFile, "lock", lock.File, "the lock `file`")
	f.StringVar(&o.asked, "platform", "all", "`platforms`, separated by commas; host is this machine's, all is every one in the lock")
	f.StringVar(&o.output, "output", "dist", "`folder` for the OCI layout")
	f.StringVar(&o.reports, "reports", "reports", "`folder` for the steps' reports")
	if i := slices.Index(args, "--"); i >= 0 {
		args, o.passed = args[:i], args[i+1:]
	}
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				usage(stdout, f)
				return nil, err
			}
			return nil, usageError("%w", err)
		}
		if f.NArg() == 0 {
			break
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
	if len(rest) > 0 {
		o.command = rest[0]
	}
	known := false
	for _, c := range commands {
		known = known || c.name == o.command
	}
	switch {
	case !known:
		return nil, usageError("unknown command %q", o.command)
	case len(rest) > 1:
		return nil, usageError("unexpected argument %q: what build %s is to get comes after --", rest[1], o.command)
	case len(o.passed) > 0 && (o.command == "build" || o.command == "test"):
		return nil, usageError("%s takes no arguments after --", o.command)
	case o.command == "release" && slices.ContainsFunc(o.passed, isUpdate):
		return nil, usageError("--update: the engine builds what the lock names by now: run build update before")
	}
	if err := o.takeKey(); err != nil {
		return nil, err
	}
	o.takeLoopback()
	return o, o.choose()
}

func isUpdate(arg string) bool {
	name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return strings.HasPrefix(arg, "-") && name == "update" && value != "false"
}

// takeKey takes the file of a private key from the arguments that are passed on, and
// names in them where the container has it.
func (o *options) takeKey() error {
	for i, arg := range o.passed {
		name, value, ok := strings.Cut(arg, "=")
		if name != "--key" && name != "-key" {
			continue
		}
		switch {
		case ok:
			o.passed[i] = name + "=" + keyFile
		case i+1 < len(o.passed):
			value, o.passed[i+1] = o.passed[i+1], keyFile
		default:
			return usageError("%s: no file given", arg)
		}
		key, err := os.ReadFile(value)
		if err != nil {
			return &codedError{fmt.Errorf("%s: %w", name, err), exitFailed, ""}
		}
		o.key = string(key)
	}
	return nil
}

// choose reads the lock and takes those of its platforms that are asked for, in its
// order.
func (o *options) choose() error {
	l, err := lock.Read(o.lockFile)
	if err != nil {
		return &codedError{err, exitFailed, "run it in a checkout, or name the lock with --lock"}
	}
	if o.platforms, err = lock.ParsePlatforms(o.asked, l.Inputs.Platforms); err != nil {
		return usageError("--platform: %w", err)
	}
	if o.command == "release" && len(o.platforms) < len(l.Inputs.Platforms) {
		return usageError("a release has all platforms of the lock: leave out --platform")
	}
	return nil
}

// start carries out the command line.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stdout)
	if err != nil {
		return err
	}
	if o.command != "verify" {
		if err := image.CheckLayout(o.output); err != nil { // before, and not after minutes of work
			return &codedError{err, exitFailed, "name another folder with --output, or remove this one yourself"}
		}
	}
	for _, name := range []*string{&o.lockFile, &o.output, &o.reports} {
		if *name, err = filepath.Abs(*name); err != nil {
			return err
		}
	}
	client, err := connect(ctx, stderr)
	if err != nil {
		return err
	}
	defer client.Close()
	return carryOut(ctx, client, o, stdout, stderr)
}

func usage(w io.Writer, f *flag.FlagSet) {
	fmt.Fprintf(w, "ci carries out the stages of the build on a Dagger Engine.\n\n"+
		"usage: go run ./ci [command] [flags] [-- arguments of build]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.summary)
	}
	fmt.Fprintln(w)
	f.SetOutput(w)
	f.PrintDefaults()
	fmt.Fprintf(w, `
examples:
  go run ./ci build --platform linux/amd64,linux/arm64
  dagger run go run ./ci release -- --key cosign.key --repo registry.example.com/derper

It wants the Dagger CLI %s and an engine of that release; docs/dagger.md says how to reach one.
The exit code is that of the command of build that failed, %d when it was interrupted.
`, wanted, exitInterrupted)
}
