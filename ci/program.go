package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/cli"
)

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
