package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/vex"
)

// scanResult is what build scan says, in JSON.
type scanResult struct {
	Version  string           `json:"version"` // of the image
	Variants []scannedVariant `json:"variants"`

	scans vex.Scans
}

type scannedVariant struct {
	Variant string `json:"variant"`
	vex.Summary
}

const scanText = `{{.Version}}{{range .Variants}}
{{.Variant}}: vulnerability database of {{.Database.Format "2006-01-02"}}
{{range .NewerGo}}affected	{{.ID}}	{{.Module}} {{.Version}}	fixed by a newer Go: {{.Fixed}}	{{.Summary}}
{{end}}{{range .Upstream}}affected	{{.ID}}	{{.Module}} {{.Version}}	upstream has to fix it{{with .Fixed}}: {{.}}{{end}}	{{.Summary}}
{{end}}{{range .Project}}affected	{{.ID}}	{{.Module}} {{.Version}}	this project has to fix it{{with .Fixed}}: {{.}}{{end}}	{{.Summary}}
{{end}}{{if not (or .NewerGo .Upstream .Project)}}nothing that is known affects it
{{end}}{{with .NotAffected}}{{.}} advisories about modules that it links do not affect it
{{end}}{{end}}`

func newScan(e *env) *cobra.Command {
	var in inputFlags
	var database, output string
	c := &cobra.Command{
		Use:   "scan",
		Short: "look for known vulnerabilities in what the lock builds",
		Long: `scan looks for advisories of the Go vulnerability database that concern the
programs of all variants: in their source, with the pinned govulncheck, which
says whether a program gets to the vulnerable code. Affected is what does; a
newer patch of Go fixes it, or upstream has to. What is affected is no failure:
exit code 0 says that it was found out.`,
		Example: `  build scan
  build scan --vulndb ./vulndb --output scans.json`,
		Args:              cli.None,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	in.registerLock(c)
	in.registerCache(c)
	registerVulnDB(c, &database)
	c.Flags().StringVar(&output, "output", "", "also write what was found to `file`, for build attest and build sign")
	out := newPrinter(e, c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		l, err := readLock(in.lockFile)
		if err != nil {
			return err
		}
		result, err := e.scan(c.Context(), &in, l, database)
		if err == nil && output != "" {
			err = result.scans.Write(output)
		}
		if err != nil {
			return err
		}
		return out.print(result, scanText)
	}
	return c
}

// registerVulnDB registers --vulndb.
func registerVulnDB(c *cobra.Command, database *string) {
	c.Flags().StringVar(database, "vulndb", "", "the vulnerability database, a `folder` or an address (default "+vex.Database+")")
}

// scan looks for known vulnerabilities in the programs of a lock.
func (e *env) scan(ctx context.Context, in *inputFlags, l *lock.Lock, database string) (*scanResult, error) {
	display := e.display()
	defer display.Close()
	c, err := in.openCache(display)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b := &pipeline.Builder{Inputs: l.Inputs, Cache: c, Modules: e.modules(c), Display: display}
	r := &scanResult{Version: l.Inputs.Version()}
	if r.scans, err = b.Scan(ctx, database); err != nil {
		return nil, err
	}
	for _, v := range l.Inputs.Variants {
		report, err := r.scans.Report(l.Inputs, v.Name)
		if err != nil {
			return nil, err
		}
		s := report.Summary()
		s.NewerGo, s.Upstream, s.Project = list(s.NewerGo), list(s.Upstream), list(s.Project)
		r.Variants = append(r.Variants, scannedVariant{v.Name, s})
	}
	return r, nil
}
