package toolchain

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
)

// Install runs an install command of package plan, without network, and returns
// the compiled programs by name. The go command's own words go to line: with -v,
// the path of each package that it compiles.
func (s *Source) Install(ctx context.Context, env, args []string, work string, line func(string)) (map[string]string, error) {
	verbose := append([]string{args[0], args[1], "-v"}, args[2:]...)
	dir, err := s.dir(work)
	if err == nil {
		err = s.toolchain.run(ctx, command{args: verbose, env: env, dir: dir, work: work, line: line})
	}
	if err != nil {
		return nil, err
	}
	// A program for the host is in bin, one for another platform a folder below.
	programs := map[string]string{}
	err = filepath.WalkDir(filepath.Join(work, "bin"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			programs[d.Name()] = name
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	return programs, nil
}

// Build runs a build command of package plan on a source tree of our own, without
// network, and returns the compiled program. The tree becomes a module with the
// given go.mod.
func (t *Toolchain) Build(ctx context.Context, env, args []string, source fs.FS, goMod, work string) (string, error) {
	tree := filepath.Join(work, "src")
	program := filepath.Join(work, "program")
	err := writeTree(tree, source, map[string]string{"go.mod": goMod})
	if err == nil {
		out := append([]string{args[0], args[1], "-o", program}, args[2:]...)
		err = t.run(ctx, command{args: out, env: env, dir: tree, work: work})
	}
	return program, err
}

// writeTree makes a folder of a tree and of texts.
func writeTree(dir string, tree fs.FS, texts map[string]string) error {
	err := os.CopyFS(dir, tree)
	for name, text := range texts {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
		}
	}
	return err
}

// FetchModule puts a module that nothing depends on beside the module cache, and
// returns its folder. It is verified when it is fetched and when it is found.
func (t *Toolchain) FetchModule(ctx context.Context, path string, m lock.Module) (string, error) {
	v := module.Version{Path: path, Version: m.Version}
	dir := filepath.Join(t.dir, "modules", filepath.FromSlash(path)+"@"+m.Version)
	if got, err := dirhash.HashDir(dir, v.String(), dirhash.Hash1); err == nil && got == m.Sum {
		return dir, nil
	}
	err := cache.RemoveAll(dir)
	if err == nil {
		err = t.client.Fetch(ctx, v, m.Sum, dir, nil)
	}
	return dir, err
}

// Run runs a program that Build compiled for the host, with an empty environment,
// in the folder work.
func Run(ctx context.Context, program, work string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = work
	cmd.Env = []string{}
	return wait(ctx, cmd, filepath.Base(program), nil)
}
