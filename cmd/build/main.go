// Build makes the derper image from the lock, versions.json.
//
// Its contract: the lock names every input by hash, and the same lock gives the
// same digests on any machine, as any user, in any folder, at any time. It takes
// from its surroundings only where to fetch (GOPROXY, HTTPS_PROXY and the like,
// SSL_CERT_FILE), where to keep things (the user cache directory) and how to reach
// Docker. What is fetched is checked against the Go checksum database and against
// the lock before it is used.
//
// The command line speaks with one voice: results go to stdout and nothing else
// does; progress and warnings go to stderr; an error is one line, build: what:
// where: why, and where there is something to do, a line that begins with hint:.
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

	_ "golang.org/x/crypto/x509roots/fallback" // to reach a proxy from an empty container

	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/suite"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1   // it did not work
	exitUsage       = 2   // the command line is wrong
	exitDiffers     = 3   // what was built is not what the lock records
	exitNew         = 10  // update --check found something new
	exitInterrupted = 130 // stopped by a signal
)

// A command is one of the program's commands. Its run gets the arguments after its
// name.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

// commands are listed in the order of the help. The first runs when none is named.
var commands = []command{
	{"image", "build the image; what happens when no command is named", runImage},
	{"test", "run the image in containers and test that it relays", runTest},
	{"verify", "rebuild an image from nothing and say whether it is the same, bit for bit", runVerify},
	{"probe", "ask a live relay everything that Tailscale clients need of it", runProbe},
	{"push", "push the image to registries by digest, verify it there, move the tags last", runPush},
	{"sign", "sign an image by digest, and attach signature, SBOMs and provenance to it", runSign},
	{"verify-signature", "verify the signatures of an image in a registry", runVerifySignature},
	{"attest", "write the SBOMs and the provenance of an image as files", runAttest},
	{"release", "publish the image, in steps: continues where it stopped; or withdraw a release", runRelease},
	{"update", "bring the lock up to date with tailscale's newest release", runUpdate},
	{"github", "report a failed workflow run on GitHub", runGitHub},
	{"plan", "print what a build does: actions, their inputs and keys", runPlan},
	{"cache", "remove from the cache what the lock does not need", runCache},
}

func main() {
	suite.Init() // this program is also what runs in a container's network
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program at once
		// Compilers are dead by now, and containers are being removed. What does
		// not come to an end by itself is not waited for: the next run removes
		// what it leaves.
		time.Sleep(patience(os.Args[1:]))
		registry.Settle()
		os.Exit(interrupted(os.Args[1:], os.Stderr))
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// patience is how long a command may take to end after a signal, once no tags move.
// Docker needs some time to remove a container, and a cache of its own that verify has
// filled is removed.
func patience(args []string) time.Duration {
	if len(args) > 0 && slices.Contains([]string{"test", "release", "verify"}, args[0]) {
		return 15 * time.Second
	}
	return 2 * time.Second
}

// run runs the program and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, all := commands[0], args
	if len(args) > 0 {
		switch name := args[0]; {
		case name == "-h" || name == "-help" || name == "--help" || name == "help":
			usage(stdout)
			return exitOK
		case !strings.HasPrefix(name, "-"):
			i := slices.IndexFunc(commands, func(c command) bool { return c.name == name })
			if i < 0 {
				fmt.Fprintf(stderr, "build: unknown command %q\nhint: %s -h lists the commands\n", name, self())
				return exitUsage
			}
			c, args = commands[i], args[1:]
		}
	}
	err := c.run(ctx, args, stdout, stderr)
	var coded *codedError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp), errors.Is(err, errParsed):
		return exitOK
	case errors.Is(err, errNew):
		return exitNew
	case ctx.Err() != nil:
		return interrupted(all, stderr)
	case !errors.As(err, &coded):
		coded = &codedError{err, exitFailed, hintFor(err)}
	}
	fmt.Fprintf(stderr, "build: %v\n", err)
	if coded.hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", coded.hint)
	}
	return coded.code
}

func interrupted(args []string, stderr io.Writer) int {
	fmt.Fprintln(stderr, "build: interrupted")
	if len(args) == 0 || args[0] != "verify" { // which begins from nothing
		fmt.Fprintln(stderr, "hint: what was finished is kept; the next run goes on from there")
	}
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
	return &codedError{fmt.Errorf(format, args...), exitUsage, self() + " -h shows how it is used"}
}

// self is how this program was started, for commands that a user can copy.
func self() string {
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "go-build") {
		return "go run ./cmd/build"
	}
	return filepath.Base(os.Args[0])
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "build makes the derper image from the lock, versions.json.\n\nusage: build [command] [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-16s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(w, `
build <command> -h shows the flags of a command and an example.

examples:
  build                    this machine's platform → dist/, an OCI layout
  build --platform all     every platform of the lock, one multi-arch index
  build --load             and load it into Docker

exit codes:
  %3d  it worked
  %3d  it did not
  %3d  the command line is wrong
  %3d  what was built is not what the lock records
  %3d  update --check found something new
  %3d  interrupted
`, exitOK, exitFailed, exitUsage, exitDiffers, exitNew, exitInterrupted)
}
