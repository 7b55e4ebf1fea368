// Package tool has programs of others that tests start. They are Go programs, which the
// module in internal/testing/tools requires, so that a machine with Go needs nothing else.
// It is a module of its own: what they need is nothing that this module needs.
package tool

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/testlock"
)

// What the process has as it starts: tests change all of it.
var (
	folder, folderErr = os.Getwd()
	environment       = os.Environ()
	program, missing  = exec.LookPath("go")
)

// built has a func() (string, error) for the name of each program.
var built sync.Map

// Build returns the path of a program that internal/testing/tools/go.mod has a tool line
// for. It is compiled the first time, which can take minutes, and then is in Go's cache.
func Build(t testing.TB, name string) string {
	t.Helper()
	f, _ := built.LoadOrStore(name, sync.OnceValues(func() (string, error) { return build(name) }))
	path, err := f.(func() (string, error))()
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	return path
}

func build(name string) (string, error) {
	if folderErr != nil {
		return "", folderErr
	}
	module, err := goCommand(folder, "env", "GOMOD")
	if err != nil {
		return "", err
	}
	root := filepath.Dir(module)
	// go test runs the tests of several packages at a time. The go command would compile the
	// program for each of them.
	lock, err := testlock.Take("tools")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	return goCommand(filepath.Join(root, "internal", "testing", "tools"), "tool", "-n", name)
}

// goCommand runs the go command in a folder, without the flags that a user has set.
func goCommand(dir string, args ...string) (string, error) {
	if missing != nil {
		return "", missing
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(append([]string(nil), environment...), "PWD="+dir, "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
