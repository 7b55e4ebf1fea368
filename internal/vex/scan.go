package vex

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// Govulncheck is the module of the scanner, pinned as tailscale is: its go.sum pins what it is
// made of. .ci/steps has the same version.
var Govulncheck = lock.Source{
	Path:   "golang.org/x/vuln",
	Module: lock.Module{Version: "v1.9.0", Sum: "h1:12VaqnI9kJfqwRoPptxoqsUhQtdfrSbdksT7X/KY/sc="},
}

// Database is the address of the Go vulnerability database.
const Database = "https://vuln.go.dev"

// A Target is a program to scan.
type Target struct {
	// Name is the program's.
	Name string
	// Package is its import path.
	Package string
	Tags    []string
	// Own is set if its source is this project's own.
	Own    bool
	Source *toolchain.Source

	install []string // the command of package plan that compiles it
}

// Program is a program of the lock as a target.
func Program(in lock.Inputs, p lock.Program, source *toolchain.Source) Target {
	return Target{
		Name: p.Name(), Package: p.Package, Tags: p.Tags, Own: in.SourceOf(p).Own(), Source: source,
		install: plan.InstallArgs(in, p),
	}
}

// Entrypoint is the entrypoint as a target.
func Entrypoint(tool *toolchain.Toolchain, g lock.Go) Target {
	return Target{
		Name: plan.Entrypoint, Package: derper.Module + "/" + plan.Entrypoint, Own: true,
		Source: tool.OwnSource(&toolchain.Own{
			Files:  derper.EntrypointSource(),
			Module: fmt.Sprintf("module %s\n\ngo %s\n", derper.Module, strings.TrimPrefix(g.Version, "go")),
		}),
		install: []string{"go", "install", "-trimpath", "-buildvcs=false", "./" + plan.Entrypoint},
	}
}

// A Scanner is the compiled govulncheck.
type Scanner struct {
	program  string
	database string
	inputs   lock.Inputs
}

// NewScanner compiles govulncheck with the toolchain in the folder work, where the program
// stays; what is missing is fetched first. Another Go's would not do: a type checker refuses
// source that is newer than itself. The database is a folder in the form of
// https://go.dev/security/vuln/database, or else its address; "" stands for [Database]. The
// go command's progress goes to line.
func NewScanner(ctx context.Context, tool *toolchain.Toolchain, in lock.Inputs, database, work string, line func(string)) (*Scanner, error) {
	address, err := address(database)
	if err != nil {
		return nil, err
	}
	env := plan.Settings(lock.Platform(runtime.GOOS + "/" + runtime.GOARCH))
	args := []string{"go", "install", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", Govulncheck.Path + "/cmd/govulncheck@" + Govulncheck.Version}
	source := tool.Source(Govulncheck)
	if _, err = source.Fetch(ctx, env, args, work, line); err != nil {
		return nil, fmt.Errorf("govulncheck: %w", err)
	}
	programs, err := source.Install(ctx, env, args, work, line)
	if err != nil {
		return nil, fmt.Errorf("govulncheck: %w", err)
	}
	return &Scanner{program: programs["govulncheck"], database: address, inputs: in}, nil
}

// address is that of a database, as govulncheck's -db has it.
func address(database string) (string, error) {
	switch {
	case database == "":
		return Database, nil
	case strings.Contains(database, "://"):
		return database, nil
	}
	dir, err := filepath.Abs(database)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "index", "db.json"))
	}
	if err != nil {
		return "", fmt.Errorf("%s is no vulnerability database: %w", database, err)
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String(), nil
}

// Scan scans a program in the folder work, which is its own. Modules that it needs are
// fetched first, and verified. As with every fetch, the caller keeps other processes from the
// module cache meanwhile.
func (s *Scanner) Scan(ctx context.Context, t Target, work string, line func(string)) (_ *Scan, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("scan %s for known vulnerabilities: %w", t.Name, err)
		}
	}()
	env := plan.Settings(Scanned)
	if _, err := t.Source.Fetch(ctx, env, t.install, work, line); err != nil {
		return nil, err
	}
	args := []string{"-format", "json", "-db", s.database}
	if len(t.Tags) > 0 {
		args = append(args, "-tags", strings.Join(t.Tags, ","))
	}
	var output bytes.Buffer
	err = t.Source.Analyse(ctx, toolchain.Analysis{
		Program: s.program, Args: append(args, t.Package), Env: env, Work: work, Output: &output,
		Network: !strings.HasPrefix(s.database, "file:"),
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n\tdatabase: %s", err, s.database)
	}
	scan, err := parse(&output, s.inputs.Go.Version, t.Package)
	if err != nil {
		return nil, fmt.Errorf("govulncheck: %w", err)
	}
	scan.Program, scan.Own = t.Name, t.Own
	scan.Tailscale, scan.Go = s.inputs.Tailscale.Version, s.inputs.Go.Version
	return scan, nil
}
