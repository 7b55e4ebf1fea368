package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dagger.io/dagger"
	"golang.org/x/sync/errgroup"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
)

// volume names the cache on the engine. Every checkout shares it: what is in it is
// known by everything that decides about it.
const volume = "derper"

// An engine runs steps.
type engine struct {
	client  *dagger.Client
	o       *options
	program *dagger.File
	lock    *dagger.File
	layout  *dagger.Directory // once it was made
	relay   *dagger.Service   // once there is an image to run
	release *dagger.Directory // the release's folder, as the last step left it
}

// carryOut runs the command's pipeline and prints what came out.
func carryOut(ctx context.Context, client *dagger.Client, o *options, stdout, stderr io.Writer) error {
	platform, err := client.DefaultPlatform(ctx)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "derper-ci-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	built, err := program(ctx, work, string(platform))
	if err != nil {
		return err
	}
	e := &engine{client: client, o: o}
	// An include list keeps everything else on the client.
	e.program = client.Host().Directory(filepath.Dir(built), dagger.HostDirectoryOpts{Include: []string{filepath.Base(built)}}).File(filepath.Base(built))
	e.lock = client.Host().Directory(filepath.Dir(o.lockFile), dagger.HostDirectoryOpts{Include: []string{filepath.Base(o.lockFile)}}).File(filepath.Base(o.lockFile))
	host, err := lock.ParsePlatform(string(platform))
	if err != nil {
		return fmt.Errorf("the engine: %w", err)
	}
	p := compose(o, host)
	if o.command != "build" && o.command != "verify" && !slices.Contains(o.platforms, host) {
		fmt.Fprintf(stderr, "ci: probe: NOT RUN: the engine runs %s, which is not among %v\n", host, o.platforms)
	}
	if err := os.MkdirAll(o.reports, 0o755); err != nil {
		return err
	}
	journal := filepath.Join(o.reports, filepath.Base(releaseDir)) // that an earlier run left
	if _, err := os.Stat(journal); err == nil {
		e.release = client.Host().Directory(journal)
	}

	g, gctx := errgroup.WithContext(ctx)
	for _, s := range p.compile {
		g.Go(func() error {
			_, err := e.run(gctx, s)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, s := range p.after {
		c, err := e.run(ctx, s)
		if err == nil && s.makes == layoutDir {
			e.layout = c.Directory(s.makes)
			if err := e.takeLayout(ctx, stdout); err != nil {
				return err
			}
			continue
		}
		if err == nil && s.makes == tarballFile {
			e.relay = service(client, c.File(s.makes))
			continue
		}
		if c != nil && s.makes != "" && (err == nil || s.live) {
			// A step that failed and made something all the same made it for the next
			// run: the journal of a release. Its layouts are larger than all else.
			made := c.Directory(s.makes)
			if s.makes == releaseDir {
				e.release, made = made, made.Filter(dagger.DirectoryFilterOpts{Exclude: []string{"dist*"}})
			}
			if _, eerr := made.Export(ctx, filepath.Join(o.reports, filepath.Base(s.makes))); eerr != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", s.name, eerr))
			}
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%-14s ok (%s)\n", s.name, filepath.Join(o.reports, s.report()))
		if s.name == "release update" {
			var r release.Result
			if err := reportOf(o, s, &r); err != nil {
				return err
			}
			if !r.Needed {
				fmt.Fprintf(stdout, "nothing to do: %s is published or withdrawn\n", r.Version)
				return nil
			}
		}
	}
	return nil
}

// reportOf reads what a step said.
func reportOf(o *options, s step, into any) error {
	data, err := os.ReadFile(filepath.Join(o.reports, s.report()))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("%s: report: %w", s.name, err)
	}
	return nil
}

// run runs a step and writes its report.
func (e *engine) run(ctx context.Context, s step) (*dagger.Container, error) {
	c, err := e.container(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	var failed error
	report, err := c.Stdout(ctx)
	if exec := (*dagger.ExecError)(nil); errors.As(err, &exec) {
		report, err = exec.Stdout, nil
		failed = why(s, exec.Stderr, exec.ExitCode)
	}
	if err == nil && s.live {
		// A failure of such a step is an answer, too.
		var code int
		if code, err = c.ExitCode(ctx); err == nil && code != 0 {
			var said string
			said, err = c.Stderr(ctx)
			failed = why(s, said, code)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if err := atomicfile.Write(filepath.Join(e.o.reports, s.report()), []byte(report)); err != nil {
		return nil, err
	}
	return c, failed
}

// container is the container of a step, with what it runs.
func (e *engine) container(ctx context.Context, s step) (*dagger.Container, error) {
	c := e.client.Container().
		WithFile(programFile, e.program, dagger.ContainerWithFileOpts{Permissions: 0o755}).
		WithFile(lockFile, e.lock)
	if s.cache {
		c = c.WithMountedTemp(scratchDir) // in memory: what takes room is in the cache
	} else {
		c = c.WithDirectory(scratchDir, e.client.Directory())
	}
	// What build takes from its surroundings: the module proxy, and the CA roots of a
	// network that has its own. GOPROXY can have a password in it, and decides about the
	// way only, never about what comes out.
	if os.Getenv("GOPROXY") != "" {
		c = e.secretVariable(c, "GOPROXY", "GOPROXY")
	}
	if name := os.Getenv("SSL_CERT_FILE"); name != "" {
		name, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		c = c.WithMountedFile(name, e.client.Host().File(name)).WithEnvVariable("SSL_CERT_FILE", name)
	}
	if s.cache {
		// Programs in several containers share it as they do on one machine: by locks
		// on files, and by names that appear when what they name is whole.
		c = c.WithMountedCache(cacheDir, e.client.CacheVolume(volume), dagger.ContainerWithMountedCacheOpts{Sharing: dagger.CacheSharingModeShared})
	}
	if s.makes == releaseDir && e.release != nil {
		c = c.WithDirectory(releaseDir, e.release)
	}
	if s.layout {
		c = c.WithMountedDirectory(layoutDir, e.layout)
	}
	if s.relay {
		c = c.WithServiceBinding(relayName, e.relay)
	}
	if s.secrets {
		var err error
		if c, err = e.credentials(e.forward(c), s); err != nil {
			return nil, err
		}
	}
	opts := dagger.ContainerWithExecOpts{InsecureRootCapabilities: s.privileged}
	if s.live {
		opts.Expect = dagger.ReturnTypeAny
		c = c.WithEnvVariable("CI_RUN", strconv.FormatInt(time.Now().UnixNano(), 36))
	}
	return c.WithExec(append([]string{programFile}, s.args...), opts), nil
}

// secretVariable gives a container a variable with the value of one of this program's.
// Another value of it is no reason to run anything again.
func (e *engine) secretVariable(c *dagger.Container, inside, here string) *dagger.Container {
	return c.WithSecretVariable(inside, e.client.Secret("env://"+here, dagger.SecretOpts{CacheKey: here}))
}

// service is the image as a relay that lets everybody in. Nothing but the tests'
// containers reaches it.
func service(client *dagger.Client, tarball *dagger.File) *dagger.Service {
	return client.Container().Import(tarball).
		WithEnvVariable("VERIFY_CLIENTS", "false").
		WithEnvVariable("HOSTNAME", relayName).
		WithExposedPort(443).
		WithExposedPort(80).
		AsService(dagger.ContainerAsServiceOpts{UseEntrypoint: true})
}

// why is what the build program said at its end: the error and its hint.
func why(s step, messages string, code int) error {
	err, hint := fmt.Errorf("%s: exit code %d", s.name, code), ""
	for line := range strings.SplitSeq(messages, "\n") {
		if text, ok := strings.CutPrefix(line, "build: "); ok {
			err, hint = fmt.Errorf("%s: %s", s.name, text), ""
		}
		if text, ok := strings.CutPrefix(line, "hint: "); ok {
			hint = text
		}
	}
	return cli.Coded(code, err, hint)
}

// program compiles the build program for a platform of an engine, as linux/amd64, into
// the folder dir. It needs nothing beside it, so a container may be empty but for it;
// which Go compiles it has no bearing on what it builds.
func program(ctx context.Context, dir, platform string) (string, error) {
	words := strings.Split(platform, "/")
	if len(words) < 2 || words[0] != "linux" {
		return "", fmt.Errorf("the engine runs containers of %s, wants linux", platform)
	}
	name := filepath.Join(dir, "build")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", name, derper.Module+"/cmd/build")
	// Two clients compile the same bytes: the engine then has them already.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+words[1], "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", cli.Failed(fmt.Errorf("compile the build program: %w\n%s", err, strings.TrimSpace(string(out))),
			"run it in a checkout, with Go in PATH")
	}
	return name, nil
}
