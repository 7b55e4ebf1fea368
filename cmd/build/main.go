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
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // to reach a proxy from an empty container

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/suite"
)

func main() {
	suite.Init()    // this program is also what runs in a container's network
	gobinary.Init() // and what takes programs apart
	standard().program().Main()
}

// program is the command line in an environment.
func (e env) program() *cli.Program {
	return &cli.Program{
		Self: self(), Root: e.commands, Explain: func(err error) error { return explain(err, generalHints) },
		Kept: func(command string) string {
			if command == "verify" { // which begins from nothing
				return ""
			}
			return "what was finished is kept; the next run goes on from there"
		},
		// Compilers are dead by then, and containers are being removed, for which Docker
		// needs some time, as is a cache of its own that verify has filled. What takes longer
		// is not waited for, but for tags that move: the next run removes what it leaves.
		Leave: func(command string) {
			patience := 2 * time.Second
			if slices.Contains([]string{"test", "release", "verify"}, command) {
				patience = 15 * time.Second
			}
			time.Sleep(patience)
			registry.Settle()
		},
	}
}

// commands is the command without a name, which builds, with all others below it.
func (e env) commands(stdout, stderr io.Writer) *cobra.Command {
	e.stdout, e.stderr = stdout, stderr
	root := newImage(&e)
	root.Use, root.Args = "build [COMMAND] [flags]", cli.Unknown
	root.Long = `build makes the derper image from the lock, versions.json. Without a command it
does what build image does: lock → plan → fetch → compile → assemble → layout.`
	root.Example = `  build                    this machine's platform → dist/, an OCI layout
  build --platform all     every platform of the lock, one multi-arch index
  build --load             and load it into Docker`
	root.Annotations = map[string]string{cli.After: exitCodes}
	root.Version = version()
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.PersistentFlags().BoolVarP(&e.quiet, "quiet", "q", false, "show no progress: only the result, warnings and errors")
	root.AddCommand(newImage(&e), newTest(&e), newVerify(&e), newProbe(&e), newPush(&e), newSign(&e), newVerifySignature(&e),
		newAttest(&e), newRelease(&e), newUpdate(&e), newGitHub(&e), newPlan(&e), newSize(&e), newScan(&e), newCache(&e), newVersion(&e), cli.NewCompletion("build"))
	return root
}

// exitCodes end the help of the program.
var exitCodes = fmt.Sprintf(`build COMMAND -h shows the flags of a command and an example.

exit codes:
  %3d  it worked
  %3d  it did not
  %3d  the command line is wrong
  %3d  what was built is not what the lock records
  %3d  update --check found something new
  %3d  interrupted`, cli.ExitOK, cli.ExitFailed, cli.ExitUsage, cli.ExitDiffers, cli.ExitNew, cli.ExitInterrupted)

// self is how this program was started, for commands that a user can copy.
func self() string {
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "go-build") {
		return "go run ./cmd/build"
	}
	return filepath.Base(os.Args[0])
}
