// Package toolchain has the pinned Go: it fetches and verifies it and the sources
// of a tailscale release, and runs it in an environment that is built from
// nothing.
//
// It promises that what a command compiles is, file by file, what the lock names:
// the toolchain by its own sum, tailscale by its own, and every module below it by
// tailscale's go.sum. Commands that compile have no way to the network. It needs
// no go command on the machine.
package toolchain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// A Toolchain is a Go toolchain in a folder of ours, with the places it works in.
type Toolchain struct {
	module module.Version
	sum    string
	root   string // GOROOT
	dir    string // caches
	client *modproxy.Client
}

// Install puts the toolchain of the lock for host, GOOS/GOARCH, under the folder
// dir, unless it is there as it should be; a damaged one is replaced, which goes to
// warn. Modules and compiled packages will be kept in dir too.
func Install(ctx context.Context, client *modproxy.Client, g lock.Go, host, dir string, progress func(done, total int64), warn func(format string, args ...any)) (*Toolchain, error) {
	m := g.Module(host)
	t := &Toolchain{
		module: m,
		sum:    g.Sums[host],
		root:   filepath.Join(dir, "toolchain", m.Version),
		dir:    dir,
		client: client,
	}
	if t.sum == "" {
		return nil, fmt.Errorf("toolchain %s: the lock has no sum for %s", g.Version, host)
	}
	err := t.verify()
	if err == nil {
		return t, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		warn("%v: fetched again", err)
	}
	// A lock that is wrong loses no toolchain that another one names.
	err = client.Check(ctx, m, t.sum)
	if err == nil {
		err = cache.RemoveAll(t.root)
	}
	if err == nil {
		err = client.Fetch(ctx, m, t.sum, t.root, progress)
	}
	if err == nil {
		err = t.unpackModes()
	}
	if err != nil {
		return nil, fmt.Errorf("toolchain %s: %w", g.Version, err)
	}
	if err := t.verify(); err != nil {
		return nil, err
	}
	return t, nil
}

// Root is the toolchain's GOROOT.
func (t *Toolchain) Root() string { return t.root }

// unpackModes does what a module zip cannot express: it makes programs executable
// and gives go.mod files their names. Source: cmd/go/internal/toolchain, Exec.
func (t *Toolchain) unpackModes() error {
	return fs.WalkDir(os.DirFS(t.root), ".", func(rel string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := filepath.Join(t.root, filepath.FromSlash(rel))
		if strings.HasPrefix(rel, "bin/") || strings.HasPrefix(rel, "pkg/tool/") {
			return os.Chmod(name, 0o755)
		}
		if dir, base := filepath.Split(name); base == "_go.mod" {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return os.WriteFile(dir+"go.mod", data, 0o444)
		}
		return nil
	})
}

// verify hashes the toolchain's files and compares with the lock's sum.
func (t *Toolchain) verify() error {
	if fi, err := os.Stat(filepath.Join(t.root, "bin", "go")); err != nil {
		return err
	} else if fi.Mode()&0o111 == 0 {
		// Killed between fetch and unpackModes.
		if err := t.unpackModes(); err != nil {
			return err
		}
	}
	prefix := t.module.String()
	files, err := dirhash.DirFiles(t.root, prefix)
	if err != nil {
		return err
	}
	open := func(name string) string { return filepath.Join(t.root, strings.TrimPrefix(name, prefix)) }
	files = slices.DeleteFunc(files, func(name string) bool {
		dir, base := filepath.Split(name)
		// A go.mod of unpackModes is not in the zip, its source is.
		if base != "go.mod" {
			return false
		}
		x, xerr := os.ReadFile(open(name))
		y, yerr := os.ReadFile(open(dir + "_go.mod"))
		return xerr == nil && yerr == nil && bytes.Equal(x, y)
	})
	got, err := dirhash.Hash1(files, func(name string) (io.ReadCloser, error) { return os.Open(open(name)) })
	if err != nil {
		return fmt.Errorf("toolchain %s: %w", t.module.Version, err)
	}
	if got != t.sum {
		return &modproxy.SumError{Module: t.module, Want: t.sum, WantFrom: "lock", Got: got, GotFrom: t.root}
	}
	return nil
}
