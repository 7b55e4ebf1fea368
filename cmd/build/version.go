package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/verify"
)

// versionResult is what build version says.
type versionResult struct {
	verify.Program
	Go string `json:"go"`
	// Schema and Format are the newest of a lock and of an image that this program knows.
	Schema int `json:"lockSchema"`
	Format int `json:"imageFormat"`
}

const versionText = `build   {{.Version}}{{with .Revision}} ({{.}}){{end}}
host    {{.Host}}
go      {{.Go}}
lock    schema {{.Schema}}
image   format {{.Format}}
`

// version is this program's version in a word.
func version() string { return verify.ThisProgram().Version }

func newVersion(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "print the version of this program",
		Long: `version prints the version of this program and the commit that it was built
from, as far as Go knows them; the Go that compiled it; and the newest schema of
a lock and format of an image that it knows.`,
		Example:           "  build version --json",
		Args:              cli.None,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	out := newPrinter(e, c)
	c.RunE = func(*cobra.Command, []string) error {
		return out.print(versionResult{verify.ThisProgram(), runtime.Version(), lock.SchemaVersion, lock.Format}, versionText)
	}
	return c
}
