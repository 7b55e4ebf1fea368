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
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// wanted is the release of Dagger whose API this program speaks, that of its SDK.
const wanted = "v0.21.8"

// Exit codes are build's, and what a command of build ended with is passed on.
var ci = &cli.Program{
	Name: "ci", Self: "go run ./ci", Start: start,
	Kept: func([]string) string {
		return "what was finished is kept in the engine; the next run goes on from there"
	},
	// The engine stops what runs when its client is gone, so nothing is lost when
	// taking leave of it takes too long.
	Leave: func([]string) { time.Sleep(10 * time.Second) },
}

func main() { ci.Main() }

// options are the command line.
type options struct {
	command   string
	lockFile  string
	release   string // tailscale's, that the lock has
	asked     string // the platforms as they were asked for
	platforms []lock.Platform
	output    string // folder for the layout
	reports   string // folder for the reports
	passed    []string
	key       string // the private key among what is passed on
	ports     []int  // of this machine's loopback, for registries among what is passed on
}

type command struct{ name, summary string }

// commands names what the pipeline does, and what it hands arguments on to.
var commands = []command{
	{"build", "build the image: a container for each platform, then the layout; what happens when no command is named"},
	{"test", "build it, ask it as a service what clients need of it, and run build test in a container"},
	{"verify", "run build verify in a container; arguments after -- are for it"},
	{"release", "build it, ask it as a service, and run build release in a container; arguments after -- are for it"},
}

// parse reads the command line.
func parse(args []string, stdout io.Writer) (*options, error) {
	o := &options{command: "build"}
	f := flag.NewFlagSet("ci", flag.ContinueOnError)
	f.StringVar(&o.lockFile, "lock", lock.File, "the lock `file`")
	f.StringVar(&o.asked, "platform", "all", "`platforms`, separated by commas; host is this machine's, all is every one in the lock")
	f.StringVar(&o.output, "output", "dist", "`folder` for the OCI layout")
	f.StringVar(&o.reports, "reports", "reports", "`folder` for the steps' reports")
	f.Usage = func() { usage(stdout, f) }
	if i := slices.Index(args, "--"); i >= 0 {
		args, o.passed = args[:i], args[i+1:]
	}
	rest, err := cli.Parse(f, args)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		o.command = rest[0]
	}
	switch {
	case !slices.ContainsFunc(commands, func(c command) bool { return c.name == o.command }):
		return nil, cli.Usage("unknown command %q", o.command)
	case len(rest) > 1:
		return nil, cli.Usage("unexpected argument %q: what build %s is to get comes after --", rest[1], o.command)
	case len(o.passed) > 0 && (o.command == "build" || o.command == "test"):
		return nil, cli.Usage("%s takes no arguments after --", o.command)
	}
	if err := o.take(); err != nil {
		return nil, err
	}
	l, err := lock.Read(o.lockFile)
	if err != nil {
		return nil, cli.Failed(err, "run it in a checkout, or name the lock with --lock")
	}
	o.release = l.Inputs.Tailscale.Short()
	if o.platforms, err = lock.ParsePlatforms(o.asked, l.Inputs.Platforms); err != nil {
		return nil, cli.Usage("--platform: %w", err)
	}
	if o.command == "release" && len(o.platforms) < len(l.Inputs.Platforms) {
		return nil, cli.Usage("a release has all platforms of the lock: leave out --platform")
	}
	return o, nil
}

// start carries out the command line.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stdout)
	if err != nil {
		return err
	}
	if o.command != "verify" {
		if err := image.CheckLayout(o.output); err != nil { // before, and not after minutes of work
			return cli.Failed(err, "name another folder with --output, or remove this one yourself")
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
`, wanted, cli.ExitInterrupted)
}
