// Package suite tests an image of the relay: it runs it in containers and looks at it from outside, as a Tailscale
// client, an operator and a container runtime do.
//
// It promises that every case has a row in the results, that a case that fails says why and shows the log of its
// containers, and that nothing stays behind, also when the tester is interrupted; what a killed one left, the next run
// removes. No container has a network but its own loopback and what a case gives it of this machine's, so no program in
// it can reach anybody else.
//
// It does not judge speed, and it trusts the image: it is for one that was just built, not for one of a stranger.
//
// A program that uses it calls Init first thing in main, and a test in TestMain.
package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"regexp"
	"runtime"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"tailscale.com/net/netns"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/probe"
)

// A Case is one thing that the image must do.
type Case struct {
	Name       string
	Rows       []string // of the results; empty is one, the name
	Everywhere bool     // on every platform; others only where programs run at full speed
	// Needs are variables of flags that a release may lack, or have as something else: then
	// there is no such case. Without others, such as HOSTNAME, nothing is a relay.
	Needs []string
	run   func(context.Context, *bed)
}

// rows are the names under which the case is reported.
func (c Case) rows() []string {
	if len(c.Rows) == 0 {
		return []string{c.Name}
	}
	return c.Rows
}

// Cases are all cases for an image whose derper has the flags of a release, in the order in
// which they run.
func Cases(r setting.Release) []Case {
	table := r.Table()
	cases := slices.Concat(probeCases, lifeCases, healthCases, tableCases(table), flagCases(r), verifyCases, networkCases)
	return slices.DeleteFunc(cases, func(c Case) bool {
		return slices.ContainsFunc(c.Needs, func(name string) bool { return !table.IsKnown(name) })
	})
}

// A Config says what to test, and how.
type Config struct {
	Image   v1.Image
	Runner  container.Runner
	Run     *regexp.Regexp // names of the rows to run; nil is all
	Timeout time.Duration  // of a case, three times as long on another platform than this machine's; 0 is 2 minutes

	Progress func(Row, int, int) // called after each row, with how many are done, and of how many

	patience time.Duration // see bed; tests of what is broken have less
}

// Ours returns nil if the image is one of this project, else an error that says why not.
func Ours(img v1.Image) error {
	file, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("image config: %w", err)
	}
	c, why := file.Config, ""
	switch {
	case c.Labels[image.LabelGo] == "":
		why = "it has no label " + image.LabelGo
	case !slices.Equal(c.Entrypoint, []string{"/entrypoint"}):
		why = fmt.Sprintf("its entrypoint is %q", c.Entrypoint)
	default:
		return nil
	}
	return errors.New("is not an image that build made: " + why)
}

// Run tests an image. Failures are in the results; an error means that the image could not be tested.
func Run(ctx context.Context, cfg Config) (_ *Results, err error) {
	log.SetOutput(io.Discard) // tailscale's packages log what is in the results anyway
	netns.SetEnabled(false)   // we are not tailscaled: dial by the routes that any program takes

	if err := Ours(cfg.Image); err != nil {
		return nil, err
	}
	file, err := cfg.Image.ConfigFile()
	if err != nil {
		return nil, err
	}
	platform := *file.Platform()
	if err := container.Runnable(platform); err != nil {
		return nil, err
	}
	foreign := platform.Architecture != runtime.GOARCH
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Minute)
	cfg.patience = cmp.Or(cfg.patience, 20*time.Second)
	cfg.Run = cmp.Or(cfg.Run, regexp.MustCompile(""))
	if foreign {
		cfg.Timeout, cfg.patience = 3*cfg.Timeout, 3*cfg.patience
	}
	flags, err := flags.Of(ctx, cfg.Image)
	if err != nil {
		return nil, fmt.Errorf("derper's flags: %w", err)
	}
	chosen, total := choose(Cases(flags), cfg.Run, foreign)
	if total == 0 {
		return nil, fmt.Errorf("no case for %s matches %q", platform, cfg.Run)
	}
	release, err := cfg.Runner.Keep(ctx, cfg.Image)
	if err != nil {
		return nil, err
	}
	defer func() {
		if rerr := release(); rerr != nil && err == nil {
			err = fmt.Errorf("clean up: %w", rerr)
		}
	}()
	digest, err := cfg.Image.Digest()
	if err != nil {
		return nil, err
	}
	r := &Results{Platform: platform.String(), Digest: digest.String(), Variant: image.VariantOf(file.Config.Labels), Runner: cfg.Runner.String(), Time: time.Now()}
	for _, c := range chosen {
		for _, row := range runCase(ctx, cfg, c, foreign) {
			if !cfg.Run.MatchString(row.Name) {
				continue
			}
			r.Rows = append(r.Rows, row)
			if cfg.Progress != nil {
				cfg.Progress(row, len(r.Rows), total)
			}
		}
	}
	r.Took = time.Since(r.Time)
	return r, nil
}

// choose returns the cases that have a matching row, and the number of these rows.
func choose(cases []Case, re *regexp.Regexp, foreign bool) (chosen []Case, rows int) {
	for _, c := range cases {
		n := 0
		for _, name := range c.rows() {
			if re.MatchString(name) {
				n++
			}
		}
		if n > 0 && (c.Everywhere || !foreign) {
			chosen = append(chosen, c)
			rows += n
		}
	}
	return chosen, rows
}

// runCase runs one case and returns its rows, each of them.
func runCase(ctx context.Context, cfg Config, c Case, foreign bool) []Row {
	began := time.Now()
	b := &bed{image: cfg.Image, runner: cfg.Runner, foreign: foreign, patience: cfg.patience, results: map[string]error{}}
	cctx, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, fmt.Errorf("not done within %v", cfg.Timeout))
	err := ctx.Err()
	if err == nil {
		err = probe.Caught(func() {
			b.open()
			c.run(cctx, b)
		})
	}
	if err != nil && ctx.Err() == nil && cctx.Err() != nil {
		err = fmt.Errorf("timeout: %w: %w", context.Cause(cctx), err)
	}
	logs := b.logs()
	cancel()
	if cerr := b.close(); cerr != nil && err == nil {
		err = fmt.Errorf("clean up: %w", cerr)
	}
	took := time.Since(began).Round(time.Millisecond)

	var rows []Row
	for _, name := range c.rows() {
		row := Row{Name: name, Took: took}
		seen, asked := b.results[name]
		switch own := name == c.Name && len(c.Rows) == 0; {
		case ctx.Err() != nil:
			row.Result, row.Reason = probe.Skip, "interrupted"
		case asked:
			row.Result, row.Reason = probe.Judge(seen)
		case own || err != nil:
			row.Result, row.Reason = probe.Judge(err)
		default:
			row.Result, row.Reason = probe.Fail, "no result reported for this row"
		}
		if row.Result == probe.Pass && row.Reason == "" {
			row.Reason = b.note
		}
		if row.Result == probe.Fail {
			row.Log = logs
		}
		rows = append(rows, row)
	}
	return rows
}
