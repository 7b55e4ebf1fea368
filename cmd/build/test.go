package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/probe"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/suite"
)

const testSynopsis = `test runs the image in containers and tests it as the relay that it is: what clients, operators and
container runtimes need of it, a row per case. It takes an OCI layout (dist if none is named) or a
reference in a registry. Platforms other than this machine's run in an emulator, and only the cases
that every platform must pass. The native runner needs Linux, and neither Docker nor root; the docker
runner needs root. The exit code is not 0 if a case failed; its containers' log is shown.`

const testExample = `  build test --platform all --junit report.xml
  build test --runner docker --run 'verify|mesh' registry.example.com/derper:1.102.3`

// testResult is what build test says, in JSON.
type testResult struct {
	Source    string           `json:"source"`
	Passed    bool             `json:"passed"`
	Platforms []*suite.Results `json:"platforms"`
}

// testOptions are the flags of build test.
type testOptions struct {
	runner, junit, run string
	asJSON             bool
	timeout            time.Duration
}

// runTest is build test. Rows come on stdout as they are known, or with --json one result at the end.
func runTest(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o testOptions
	fs := newFlags("test [flags] [LAYOUT|REF]", testSynopsis, testExample, stdout)
	names := fs.String("platform", "host", "`platforms`, separated by commas; host is this machine's, all is every one that an image is built for")
	fs.StringVar(&o.runner, "runner", "native", "what runs the image: native or docker")
	fs.StringVar(&o.junit, "junit", "", "also write the result to `file`, in JUnit's form")
	fs.BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	fs.StringVar(&o.run, "run", "", "test only what matches this regular `expression`, such as probe/")
	fs.DurationVar(&o.timeout, "timeout", 2*time.Minute, "`time` for a case; another platform than this machine's gets three times as long")
	source, err := fs.parseOne(args, "images", "dist")
	if err != nil {
		return err
	}
	// An image is tested without its lock, so all are those that could be in it.
	platforms, err := lock.ParsePlatforms(*names, lock.Known)
	if err != nil {
		return cli.Usage("--platform: %w", err)
	}
	return o.test(ctx, source, platforms, stdout, stderr)
}

// test tests the images of source for these platforms.
func (o testOptions) test(ctx context.Context, source string, platforms []lock.Platform, stdout, stderr io.Writer) (err error) {
	runners := map[string]container.Runner{"native": container.Native(), "docker": container.Docker()}
	cfg := suite.Config{Runner: runners[o.runner], Timeout: o.timeout}
	switch cfg.Run, err = regexp.Compile(o.run); {
	case cfg.Runner == nil:
		return cli.Usage("--runner: %q is neither native nor docker", o.runner)
	case o.timeout <= 0:
		return cli.Usage("--timeout: %v is no time", o.timeout)
	case err != nil:
		return cli.Usage("--run: %w", err)
	}
	images, err := openImages(ctx, source, platforms)
	if err != nil {
		return err
	}
	// What an earlier run was killed with is in nobody's use.
	if err := cfg.Runner.Sweep(ctx); err != nil {
		return fmt.Errorf("test: remove what an earlier run left: %w", err)
	}
	result, err := testImages(ctx, cfg, source, images, o, stdout, stderr)
	if err == nil && o.junit != "" {
		var report bytes.Buffer
		err = errors.Join(suite.WriteJUnit(&report, source, result.Platforms), atomicfile.Write(o.junit, report.Bytes()))
	}
	if err == nil && o.asJSON {
		err = printJSON(stdout, result)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("test: %w", err)
	}
	if result.Passed {
		return nil
	}
	first, failed, of := "", 0, 0
	for _, p := range result.Platforms {
		for _, row := range p.Rows {
			if of++; row.Result == probe.Fail {
				first = cmp.Or(first, row.Name)
				failed++
			}
		}
	}
	if failed == 0 {
		return fmt.Errorf("test: %s: nothing was tested", source)
	}
	return cli.Failed(fmt.Errorf("test: %s: %d of %d cases failed", source, failed, of),
		"the log of each failed case is above; --run '^"+first+"$' runs only that one")
}

// openImages opens the images of all platforms, and refuses what cannot be tested, before anything is.
func openImages(ctx context.Context, source string, platforms []lock.Platform) ([]v1.Image, error) {
	if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) && !strings.ContainsAny(source, "/:@.") {
		return nil, cli.Failed(fmt.Errorf("test: %s: no such layout", source),
			"make it with "+self()+", or name a layout or a reference such as registry.example.com/derper:1.102.3")
	}
	keychain, err := imageKeychain([]string{source})
	if err != nil {
		return nil, err
	}
	var wanted []v1.Platform
	for _, p := range platforms {
		wanted = append(wanted, v1.Platform{OS: p.OS(), Architecture: p.Arch(), Variant: p.Variant()})
	}
	images, err := container.Open(ctx, source, keychain, wanted...)
	if err != nil {
		hint := "name a layout that " + self() + " made, or a reference in a registry that can be reached"
		if info, err := os.Stat(source); err == nil && info.IsDir() {
			hint = self() + " --platform all makes a layout with every platform"
		}
		return nil, cli.Failed(fmt.Errorf("test: %w", err), hint)
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

// testImages tests the images one after the other.
func testImages(ctx context.Context, cfg suite.Config, source string, images []v1.Image, o testOptions, stdout, stderr io.Writer) (*testResult, error) {
	display := progress.New(stderr)
	defer display.Close()
	result := &testResult{Source: source, Passed: true}
	for _, img := range images {
		file, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		task := display.Start(fmt.Sprintf("%s: test with %s", file.Platform(), cfg.Runner), "cases")
		cfg.Image = img
		cfg.Progress = func(row suite.Row, done, of int) {
			task.Set(int64(done), int64(of))
			if !o.asJSON {
				fmt.Fprintln(stdout, row.Text(suite.NameWidth))
			}
			if row.Result == probe.Fail && row.Log != "" {
				display.Printf("%s: %s: log of its containers:\n%s", file.Platform(), row.Name, "    "+strings.ReplaceAll(strings.TrimRight(row.Log, "\n"), "\n", "\n    "))
			}
		}
		r, err := suite.Run(ctx, cfg)
		task.End(err)
		if err != nil {
			return nil, err
		}
		if !o.asJSON {
			fmt.Fprintln(stdout, r.Summary())
		}
		result.Platforms = append(result.Platforms, r)
		result.Passed = result.Passed && r.OK()
		if ctx.Err() != nil {
			break
		}
	}
	return result, nil
}
