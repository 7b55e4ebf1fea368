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
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // to reach a proxy from an empty container

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/suite"
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
	{"plan", "print which image a build makes, and how: inputs, commands, keys, tags", runPlan},
	{"cache", "remove from the cache what the lock does not need", runCache},
}

var program = &cli.Program{
	Name: "build", Self: self(), Start: start,
	Kept: func(args []string) string {
		if len(args) > 0 && args[0] == "verify" { // which begins from nothing
			return ""
		}
		return "what was finished is kept; the next run goes on from there"
	},
	// Compilers are dead by then, and containers are being removed, for which Docker
	// needs some time, as is a cache of its own that verify has filled. What takes longer
	// is not waited for, but for tags that move: the next run removes what it leaves.
	Leave: func(args []string) {
		patience := 2 * time.Second
		if len(args) > 0 && slices.Contains([]string{"test", "release", "verify"}, args[0]) {
			patience = 15 * time.Second
		}
		time.Sleep(patience)
		registry.Settle()
	},
}

func main() {
	suite.Init() // this program is also what runs in a container's network
	program.Main()
}

// start runs the command that the arguments name.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c := commands[0]
	if len(args) > 0 {
		switch name := args[0]; {
		case slices.Contains([]string{"-h", "-help", "--help", "help"}, name):
			usage(stdout)
			return nil
		case !strings.HasPrefix(name, "-"):
			i := slices.IndexFunc(commands, func(c command) bool { return c.name == name })
			if i < 0 {
				return cli.Coded(cli.ExitUsage, fmt.Errorf("unknown command %q", name), self()+" -h lists the commands")
			}
			c, args = commands[i], args[1:]
		}
	}
	return explain(c.run(ctx, args, stdout, stderr), generalHints)
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
`, cli.ExitOK, cli.ExitFailed, cli.ExitUsage, cli.ExitDiffers, cli.ExitNew, cli.ExitInterrupted)
}
