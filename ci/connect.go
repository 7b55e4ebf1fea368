package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"dagger.io/dagger"
	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/cli"
)

// Variables of Dagger's own.
const (
	cliVariable     = "_EXPERIMENTAL_DAGGER_CLI_BIN"     // the CLI that the SDK starts
	runnerVariable  = "_EXPERIMENTAL_DAGGER_RUNNER_HOST" // where the engine is
	sessionVariable = "DAGGER_SESSION_PORT"              // set by dagger run
)

const installHint = "install the Dagger CLI " + wanted + " (https://docs.dagger.io/install), or name it with " + cliVariable +
	"; go run ./cmd/build builds the same image without Dagger"

const engineHint = "start an engine " + wanted + ", or name one that runs with " + runnerVariable + " (unix://, tcp://, kube-pod://); docs/dagger.md says how"

// connect connects to the engine: through the session that dagger run made, or else
// through the CLI and to the engine that Dagger's variables name.
func (e env) connect(ctx context.Context, stderr io.Writer) (*dagger.Client, error) {
	running := os.Getenv(sessionVariable) != ""
	provided := os.Getenv(runnerVariable) != ""
	if !running {
		name, err := e.findCLI(ctx)
		if err != nil {
			return nil, cli.Failed(err, installHint)
		}
		if err := e.reachable(ctx, os.Getenv(runnerVariable)); err != nil {
			return nil, cli.Failed(err, engineHint)
		}
		// The SDK looks for no CLI in PATH: it would download one.
		if err := os.Setenv(cliVariable, name); err != nil {
			return nil, err
		}
	}
	// The context lives as long as the session, so the deadline is not in it. A CLI
	// that is left behind ends with this program: it reads its standard input.
	var client *dagger.Client
	answer := make(chan error, 1)
	go func() {
		var err error
		if client, err = dagger.Connect(ctx, dagger.WithLogOutput(stderr)); err == nil {
			err = checkEngine(ctx, client)
		}
		answer <- err
	}()
	var late <-chan time.Time
	if running || provided {
		late = time.After(e.patience) // an engine that Dagger starts itself may have to be fetched
	}
	select {
	case err := <-answer:
		if err == nil {
			return client, nil
		}
		if client != nil {
			client.Close()
		}
		if _, coded := errors.AsType[*cli.Error](err); coded {
			return nil, err
		}
		return nil, cli.Failed(fmt.Errorf("dagger: %w", err), engineHint)
	case <-late:
		where := os.Getenv(runnerVariable)
		if running {
			where = "the other end of the session that dagger run made"
		}
		return nil, cli.Failed(fmt.Errorf("dagger: the engine at %s did not answer within %v", where, e.patience), engineHint)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// findCLI finds the CLI and checks its version.
func (e env) findCLI(ctx context.Context) (string, error) {
	name, err := exec.LookPath(cmp.Or(os.Getenv(cliVariable), "dagger"))
	if err != nil {
		return "", fmt.Errorf("dagger: no CLI: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, e.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", fmt.Errorf("dagger: %s version did not answer within %v", name, e.patience)
	}
	if err != nil {
		return "", fmt.Errorf("dagger: %s version: %w", name, err)
	}
	// dagger v0.21.8 (where its engine is) linux/amd64
	words := strings.Fields(string(out))
	if len(words) < 2 || words[0] != "dagger" || !semver.IsValid(words[1]) {
		return "", fmt.Errorf("dagger: %s is not the CLI of Dagger: its version is %q", name, strings.TrimSpace(string(out)))
	}
	if !fits(words[1]) {
		return "", fmt.Errorf("dagger: %s is %s, wants %s", name, words[1], wanted)
	}
	return name, nil
}

// fits reports whether a release of Dagger has the API of the wanted one: the same
// minor version, and not an older one of it.
func fits(version string) bool {
	return semver.MajorMinor(version) == semver.MajorMinor(wanted) && semver.Compare(version, wanted) >= 0
}

// checkEngine checks the version of the engine.
func checkEngine(ctx context.Context, client *dagger.Client) error {
	version, err := client.Version(ctx)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(version, "v") {
		version = "v" + version
	}
	if !fits(version) {
		return cli.Failed(fmt.Errorf("dagger: the engine is %s, wants %s", version, wanted),
			"update the engine and the CLI to "+wanted+" (https://docs.dagger.io/install)")
	}
	return nil
}

// starters are the commands with which the CLI starts an engine.
var starters = []string{"docker", "podman", "nerdctl", "finch", "container"}

// reachable reports whether there is anything at the address of an engine; "" stands
// for one that the CLI starts.
func (e env) reachable(ctx context.Context, address string) error {
	if address == "" {
		for _, name := range starters {
			if _, err := exec.LookPath(name); err == nil {
				return nil
			}
		}
		return fmt.Errorf("dagger: no engine: %s names none, and there is none of %s to start one with", runnerVariable, strings.Join(starters, ", "))
	}
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("dagger: %s: %w", runnerVariable, err)
	}
	scheme, _, _ := strings.Cut(u.Scheme, "+")
	if scheme == "unix" || scheme == "tcp" {
		where := u.Host
		if scheme == "unix" {
			where = u.Path
		}
		d := net.Dialer{Timeout: e.patience / 2}
		c, err := d.DialContext(ctx, scheme, where)
		if err != nil {
			return fmt.Errorf("dagger: no engine: %w", err)
		}
		return c.Close()
	}
	needs := map[string]string{"kube-pod": "kubectl", "ssh": "ssh", "docker-image": "docker", "docker-container": "docker"}[scheme]
	if needs != "" {
		if _, err := exec.LookPath(needs); err != nil {
			return fmt.Errorf("dagger: %s: %w", address, err)
		}
	}
	return nil
}
