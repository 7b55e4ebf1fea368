package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/suite"
	"github.com/xavieralpha/derper/internal/verify"
)

// runners run images.
var runners = []string{"native", "docker"}

// testOptions are the flags of build test.
type testOptions struct {
	runner, junit, run string
	results            string
	timeout            time.Duration
}

func newTest(e *env) *cobra.Command {
	var o testOptions
	var in inputFlags
	c := &cobra.Command{
		Use:   "test [flags] [LAYOUT|REF]",
		Short: "run the image in containers and test that it relays",
		Long: `test runs the image in containers and tests it as the relay that it is: what
clients, operators and container runtimes need of it, a row per case. Its
argument is an OCI layout or an archive of one, ./dist if none is named, or a
reference in a registry: a path begins with ./, ../ or /, or ends in .tar.
Platforms other than this machine's run in an emulator, and only the cases that
every platform must pass. The native runner needs Linux, and neither Docker nor
root; the docker runner needs root. The exit code is not 0 if a case failed; its
containers' log is shown.

Either runner protects this machine's files, devices, processes, terminal and
network from a hostile image, unless the kernel has a fault: the image shares
the kernel and the processor. The native runner does not limit its memory. Test
an image that you do not trust in a virtual machine.`,
		Example: `  build test --platform all --junit report.xml
  build test --runner docker --run mesh registry.example.com/derper:1.102.3
  build test --platform all --results tests.json`,
		Args: cli.AtMostOne("images"),
	}
	in.registerPlatforms(c, "host", "that an image is built for")
	f := c.Flags()
	f.StringVar(&o.runner, "runner", "native", "`what` runs the image: native or docker")
	cli.Offer(c, "runner", runners...)
	f.StringVar(&o.junit, "junit", "", "also write the result to `file`, in JUnit's form")
	f.StringVar(&o.results, "results", "", "also write what passed, on which digest, to `file`, for build sign --tests")
	f.StringVar(&o.run, "run", "", "test only what matches this regular `expression`, such as probe/")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "`time` for a case; another platform than this machine's gets three times as long")
	out := newPrinter(e, c)
	c.PreRunE = func(*cobra.Command, []string) error {
		// An image is tested without its lock, so all are those that could be in it.
		_, err := parsePlatforms(in.platforms, lock.Known)
		return cmp.Or(err, o.check())
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		platforms, err := parsePlatforms(in.platforms, lock.Known)
		if err != nil {
			return err
		}
		rows := e.stdout
		if out.asJSON {
			rows = io.Discard
		}
		report, err := e.test(c.Context(), o, argument(args, "./dist"), platforms, rows)
		if report != nil && out.asJSON {
			err = errors.Join(out.print(report, ""), err)
		}
		return err
	}
	return c
}

// check refuses what no test can be run with.
func (o *testOptions) check() error {
	_, err := regexp.Compile(o.run)
	switch {
	case o.runner != "native" && o.runner != "docker":
		return cli.Usage("--runner: %q is neither native nor docker", o.runner)
	case o.timeout <= 0:
		return cli.Usage("--timeout: %v is no time", o.timeout)
	case err != nil:
		return cli.Usage("--run: %w", err)
	}
	return nil
}

// test tests the images of source for these platforms. Rows are written as they are known.
// The report is nil if there is none; with one, the error says how many cases failed.
func (e *env) test(ctx context.Context, o testOptions, source string, platforms []lock.Platform, rows io.Writer) (*suite.Report, error) {
	cfg := suite.Config{Runner: container.Native(), Timeout: o.timeout, Run: regexp.MustCompile(o.run)}
	if o.runner == "docker" {
		cfg.Runner = container.Docker()
	}
	images, err := e.openImages(ctx, source, platforms)
	if err != nil {
		return nil, err
	}
	// What an earlier run was killed with is in nobody's use.
	if err := cfg.Runner.Sweep(ctx); err != nil {
		return nil, fmt.Errorf("test: remove what an earlier run left: %w", err)
	}
	display := e.display()
	defer display.Close()
	fmt.Fprintln(rows, registry.Describe(source))
	report, err := suite.RunAll(ctx, cfg, source, images, rows, display)
	if err == nil && o.junit != "" {
		var junit bytes.Buffer
		err = errors.Join(suite.WriteJUnit(&junit, source, report.Platforms), atomicfile.Write(o.junit, junit.Bytes()))
	}
	if err == nil && o.results != "" {
		err = writeTests(o.results, report.Tests(verify.ThisProgram().Version))
	}
	if err != nil {
		return nil, fmt.Errorf("test: %w", err)
	}
	first, failed, of := report.Failed()
	switch {
	case ctx.Err() != nil:
		return report, fmt.Errorf("test: %w", ctx.Err())
	case report.Passed:
		return report, nil
	case failed == 0:
		return report, fmt.Errorf("test: %s: nothing was tested", source)
	}
	return report, cli.Failed(fmt.Errorf("test: %s: %d of %d cases failed", source, failed, of),
		"the log of each failed case is above; --run '^"+first+"$' runs only that one")
}

// openImages opens the images of all platforms, and refuses what cannot be tested, before anything is.
func (e *env) openImages(ctx context.Context, source string, platforms []lock.Platform) ([]v1.Image, error) {
	keychain, err := e.imageKeychain([]string{source})
	if err != nil {
		return nil, err
	}
	var wanted []v1.Platform
	for _, p := range platforms {
		wanted = append(wanted, v1.Platform{OS: p.OS(), Architecture: p.Arch(), Variant: p.Variant()})
	}
	images, err := container.Open(ctx, source, keychain, wanted...)
	if err != nil {
		hint := "name a reference in a registry that can be reached, or a layout that " + self() + " made: its path begins with ./, ../ or /"
		if registry.IsPath(source) {
			hint = self() + " --platform all makes a layout with every platform"
		}
		return nil, explain(fmt.Errorf("test: %w", err), hints{{is(registry.ErrReference), ""}, {always, hint}})
	}
	for i, img := range images {
		if err := suite.Ours(img); err != nil {
			return nil, cli.Failed(fmt.Errorf("test: %s: %s: %w", source, platforms[i], err),
				"the suite is for images of this project; "+self()+" probe asks any relay that runs")
		}
		if err := container.Runnable(wanted[i]); err != nil {
			return nil, fmt.Errorf("test: %w", err)
		}
	}
	return images, nil
}
