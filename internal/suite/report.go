package suite

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/probe"
	"github.com/xavieralpha/derper/internal/progress"
)

// A Report is what came out for the images of a source, one for each platform.
type Report struct {
	Source    string     `json:"source"`
	Passed    bool       `json:"passed"`
	Platforms []*Results `json:"platforms"`
}

// Failed counts the cases that failed, of how many, and names the first of them.
func (r *Report) Failed() (first string, failed, of int) {
	for _, p := range r.Platforms {
		for _, row := range p.Rows {
			if of++; row.Result == probe.Fail {
				first = cmp.Or(first, row.Name)
				failed++
			}
		}
	}
	return first, failed, of
}

// RunAll tests images one after the other. Rows are written to text as they are known; what
// the containers of a failed case wrote goes to the display. Both are for people.
func RunAll(ctx context.Context, cfg Config, source string, images []v1.Image, text io.Writer, display *progress.Display) (*Report, error) {
	report := &Report{Source: source, Passed: true}
	for _, img := range images {
		file, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		name := nameOf(file.Platform().String(), image.VariantOf(file.Config.Labels))
		task := display.Start(fmt.Sprintf("%s: test with %s", name, cfg.Runner), "cases")
		cfg.Image = img
		cfg.Progress = func(row Row, done, of int) {
			task.Set(int64(done), int64(of))
			fmt.Fprintln(text, row.Text(NameWidth))
			if row.Result == probe.Fail && row.Log != "" {
				display.Printf("%s: %s: log of its containers:\n%s", name, row.Name, strings.TrimRight(row.Log, "\n"))
			}
		}
		r, err := Run(ctx, cfg)
		task.End(err)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(text, r.Summary())
		report.Platforms = append(report.Platforms, r)
		report.Passed = report.Passed && r.OK()
		if ctx.Err() != nil {
			break
		}
	}
	return report, nil
}

// Tests are the results as they are attested, by a version of this project's program.
func (r *Report) Tests(version string) []attest.Tests {
	list := []attest.Tests{} // not null in JSON
	for _, p := range r.Platforms {
		t := attest.Tests{
			Digest: p.Digest, Platform: lock.Platform(p.Platform),
			TestedBy: attest.TestedBy{Runner: p.Runner, Host: runtime.GOOS + "/" + runtime.GOARCH, Version: version},
		}
		for _, row := range p.Rows {
			switch row.Result {
			case probe.Pass:
				t.Passed = append(t.Passed, row.Name)
			case probe.Skip:
				t.Skipped = append(t.Skipped, row.Name)
			case probe.Fail:
				t.Failed = append(t.Failed, row.Name)
			}
		}
		list = append(list, t)
	}
	return list
}
