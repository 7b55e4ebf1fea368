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
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// wanted is the release of Dagger whose API this program speaks, that of its SDK.
const wanted = "v0.21.8"

func main() { standard().program().Main() }

// An env is what the program finds around it that a test has otherwise.
type env struct {
	// patience is how long an engine that is said to run has to answer. Left alone, the
	// SDK waits for five minutes.
	patience time.Duration
	// carryOut carries out a command line.
	carryOut func(e env, ctx context.Context, o *options, stdout, stderr io.Writer) error
}

// standard is the environment of the program that people run.
func standard() env { return env{patience: 8 * time.Second, carryOut: env.start} }

// program is the command line in an environment. Exit codes are build's, and what a
// command of build ended with is passed on.
func (e env) program() *cli.Program {
	return &cli.Program{
		Self: "go run ./ci", Root: e.commands,
		Kept: func(string) string {
			return "what was finished is kept in the engine; the next run goes on from there"
		},
		// The engine stops what runs when its client is gone, so nothing is lost when
		// taking leave of it takes too long.
		Leave: func(string) { time.Sleep(10 * time.Second) },
	}
}

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

// commands is the command without a name, which builds, with all others below it.
func (e env) commands(stdout, stderr io.Writer) *cobra.Command {
	o := &options{}
	run := func(c *cobra.Command, args []string) error {
		o.command, o.passed = c.Name(), nil
		if c == c.Root() {
			o.command = "build"
		}
		if n := c.ArgsLenAtDash(); n >= 0 {
			o.passed = args[n:]
		}
		if err := o.complete(); err != nil {
			return err
		}
		return e.carryOut(e, c.Context(), o, stdout, stderr)
	}
	root := &cobra.Command{
		Use:  "ci [COMMAND] [flags] [-- ARGUMENTS]",
		Long: "ci carries out the stages of the build on a Dagger Engine.",
		Example: `  go run ./ci build --platform linux/amd64,linux/arm64
  dagger run go run ./ci release -- --key cosign.key --to registry.example.com/a`,
		Annotations: map[string]string{cli.After: fmt.Sprintf(`It needs the Dagger CLI %s and an engine of that release; docs/dagger.md
says how to reach one. The exit code is that of the command of build that
failed, %d when it was interrupted.`, wanted, cli.ExitInterrupted)},
		Args: beforeDash(cli.Unknown), RunE: run,
	}
	f := root.PersistentFlags()
	f.StringVar(&o.lockFile, "lock", lock.File, "the lock `file`")
	f.StringVar(&o.asked, "platform", "all", "`platforms`, separated by commas; host is this machine's, all is every one in the lock")
	f.StringVar(&o.output, "output", "dist", "`folder` for the OCI layout")
	f.StringVar(&o.reports, "reports", "reports", "`folder` for the steps' reports")
	for _, c := range []*cobra.Command{
		{Use: "build", Short: "build the image; the default when no command is named",
			Long:    "build builds the image: a container for each platform, then one for the layout.",
			Example: "  go run ./ci build --platform host"},
		{Use: "test", Short: "build the image, and test it",
			Long: `test builds the image, asks it as a service what clients need of it, and runs
build test in a container.`,
			Example: "  go run ./ci test --platform linux/amd64"},
		{Use: "verify", Short: "rebuild an image and say whether it is the same",
			Long:    "verify runs build verify in a container; arguments after -- are for it.",
			Example: "  go run ./ci verify -- docker.io/camllia/derper:latest"},
		{Use: "release", Short: "build and test the image, and publish it",
			Long: `release builds the image, asks it as a service what clients need of it, and runs
build release in a container, step by step; arguments after -- are for it.`,
			Example: "  go run ./ci release -- --key cosign.key --to registry.example.com/derper"},
	} {
		c.Args, c.RunE = beforeDash(cli.None), run
		if c.Name() == "verify" || c.Name() == "release" {
			c.Use += " [flags] [-- ARGUMENTS]"
			c.Args = beforeDash(func(c *cobra.Command, args []string) error {
				if len(args) > 0 {
					return cli.Usage("%s: unexpected argument %q: what is for build %[1]s comes after --", c.Name(), args[0])
				}
				return nil
			})
		}
		root.AddCommand(c)
	}
	return root
}

// beforeDash checks only the arguments before --: what comes after is for build.
func beforeDash(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if n := c.ArgsLenAtDash(); n >= 0 {
			args = args[:n]
		}
		return check(c, args)
	}
}

// complete checks the command line, and reads what it names.
func (o *options) complete() error {
	if len(o.passed) > 0 && (o.command == "build" || o.command == "test") {
		return cli.Usage("%s takes no arguments after --", o.command)
	}
	if err := o.take(); err != nil {
		return err
	}
	l, err := lock.Read(o.lockFile)
	if err != nil {
		return cli.Failed(err, "run it in a checkout, or name the lock with --lock")
	}
	o.release = l.Inputs.Tailscale.Short()
	if o.platforms, err = lock.ParsePlatforms(o.asked, l.Inputs.Platforms); err != nil {
		return cli.Usage("--platform: %w", err)
	}
	if o.command == "release" && len(o.platforms) < len(l.Inputs.Platforms) {
		return cli.Usage("a release has all platforms of the lock: leave out --platform")
	}
	return nil
}

// start carries out the command line on an engine.
func (e env) start(ctx context.Context, o *options, stdout, stderr io.Writer) (err error) {
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
	client, err := e.connect(ctx, stderr)
	if err != nil {
		return err
	}
	defer client.Close()
	return carryOut(ctx, client, o, stdout, stderr)
}
