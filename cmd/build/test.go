package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

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
	platforms, runner, junit, run string
	asJSON                        bool
	timeout                       time.Duration
}

// runTest is build test. Rows come on stdout as they are known, or with --json one result at the end.
func runTest(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o testOptions
	fs := newFlags("test [flags] [LAYOUT|REF]", testSynopsis, testExample, stdout)
	fs.StringVar(&o.platforms, "platform", "host", "`platforms`, separated by commas; host is this machine's, all is every one that an image is built for")
	fs.StringVar(&o.runner, "runner", "native", "what runs the image: native or docker")
	fs.StringVar(&o.junit, "junit", "", "also write the result to `file`, in JUnit's form")
	fs.BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	fs.StringVar(&o.run, "run", "", "test only what matches this regular `expression`, such as probe/")
	fs.DurationVar(&o.timeout, "timeout", 2*time.Minute, "`time` for a case; another platform than this machine's gets three times as long")
	rest, err := fs.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return usageError("test: %d images given, wants one", len(rest))
	}
	source := "dist"
	if len(rest) == 1 {
		source = rest[0]
	}
	// An image is tested without its lock, so all are those that could be in it.
	platforms, err := lock.ParsePlatforms(o.platforms, lock.Known)
	if err != nil {
		return usageError("--platform: %w", err)
	}
	return o.test(ctx, source, platforms, stdout, stderr)
}

// test tests the images of source for these platforms.
func (o testOptions) test(ctx context.Context, source string, platforms []lock.Platform, stdout, stderr io.Writer) (err error) {
	runners := map[string]container.Runner{"native": container.Native(), "docker": container.Docker()}
	runner := runners[o.runner]
	if runner == nil {
		return usageError("--runner: %q is neither native nor docker", o.runner)
	}
	cfg := suite.Config{Runner: runner, Timeout: o.timeout}
	if o.timeout <= 0 {
		return usageError("--timeout: %v is no time", o.timeout)
	}
	if o.run != "" {
		if cfg.Run, err = regexp.Compile(o.run); err != nil {
			return usageError("--run: %w", err)
		}
	}
	images, err := openImages(ctx, source, platforms)
	if err != nil {
		return err
	}
	// What an earlier run was killed with is in nobody's use.
	if err := runner.Sweep(ctx); err != nil {
		return fmt.Errorf("test: remove what an earlier run left: %w", err)
	}
	result, err := testImages(ctx, cfg, source, images, o, stdout, stderr)
	if err != nil {
		return fmt.Errorf("test: %w", err)
	}
	if o.junit != "" {
		if err := writeJUnit(o.junit, result); err != nil {
			return fmt.Errorf("test: %w", err)
		}
	}
	if o.asJSON {
		if err := printJSON(stdout, result); err != nil {
			return fmt.Errorf("test: %w", err)
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("test: %w", ctx.Err())
	}
	if !result.Passed {
		return &codedError{fmt.Errorf("test: %s: %s", source, failures(result)), exitFailed, "the log of each failed case is above; --run " + firstFailure(result) + " runs only that one"}
	}
	return nil
}

// openImages opens the images of all platforms, and refuses what cannot be tested, before anything is.
func openImages(ctx context.Context, source string, platforms []lock.Platform) ([]v1.Image, error) {
	if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) && !strings.ContainsAny(source, "/:@.") {
		return nil, &codedError{fmt.Errorf("test: %s: no such layout", source), exitFailed,
			"make it with " + self() + ", or name a layout or a reference such as registry.example.com/derper:1.102.3"}
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
		return nil, &codedError{fmt.Errorf("test: %w", err), exitFailed, openHint(source)}
	}
	for i, img := range images {
		if err := suite.Ours(img); err != nil {
			return nil, &codedError{fmt.Errorf("test: %s: %s: %w", source, platforms[i], err), exitFailed,
				"the suite is for images of this project; " + self() + " probe asks any relay that runs"}
		}
		if err := container.Runnable(wanted[i]); err != nil {
			return nil, fmt.Errorf("test: %w", err)
		}
	}
	return images, nil
}

func openHint(source string) string {
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		return self() + " --platform all makes a layout with every platform"
	}
	return "name a layout that " + self() + " made, or a reference in a registry that can be reached"
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
				display.Printf("%s: %s: log of its containers:\n%s", file.Platform(), row.Name, indent(row.Log))
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

func indent(log string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(log, "\n"), "\n", "\n    ")
}

func writeJUnit(name string, r *testResult) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(suite.WriteJUnit(f, r.Source, r.Platforms), f.Close())
}

// failures counts what failed, over all platforms.
func failures(r *testResult) string {
	failed, of := 0, 0
	for _, p := range r.Platforms {
		failed += p.Count(probe.Fail)
		of += len(p.Rows)
	}
	if failed == 0 {
		return "nothing was tested"
	}
	return fmt.Sprintf("%d of %d cases failed", failed, of)
}

func firstFailure(r *testResult) string {
	for _, p := range r.Platforms {
		for _, row := range p.Rows {
			if row.Result == probe.Fail {
				return "'^" + row.Name + "$'"
			}
		}
	}
	return "''"
}
