package toolchain

import (
	"bufio"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/sync/errgroup"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// Source is a module that programs come from, a tailscale release above all, with all
// modules below it, in the module cache.
type Source struct {
	toolchain *Toolchain
	module    module.Version
	sum       string
	own       *Own // in place of module and sum

	mu       sync.Mutex     // one fetch at a time; guards fetched
	fetched  map[string]int // packages, by command
	verified sync.Map       // has a [module.Version] as in go.sum, once its hash is right
}

// Source is the source that a module of the lock is.
func (t *Toolchain) Source(s lock.Source) *Source {
	return &Source{toolchain: t, module: s.Mod(), sum: s.Sum, fetched: map[string]int{}}
}

// Own is source of this project, with a go.mod and a go.sum for it.
type Own struct {
	Files        fs.FS
	Module, Sums string
}

// OwnSource is the source that files of this project are, with the modules that they need.
func (t *Toolchain) OwnSource(own *Own) *Source {
	return &Source{toolchain: t, module: module.Version{Path: derper.Module}, own: own, fetched: map[string]int{}}
}

// dir is the folder in which the source's commands run: it has the source if that is in no
// module cache. "" is the work folder.
func (s *Source) dir(work string) (string, error) {
	if s.own == nil {
		return "", nil
	}
	dir := filepath.Join(work, "src")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	return dir, writeTree(dir, s.own.Files, map[string]string{"go.mod": s.own.Module, "go.sum": s.own.Sums})
}

// Fetch makes sure that everything the given install command compiles is in the
// module cache and is what the lock names, and returns the number of packages
// that it compiles at most. What is missing comes through the module proxy and is
// checked against the checksum database. A second call for the same command only
// returns the number.
func (s *Source) Fetch(ctx context.Context, env, args []string, work string, line func(string)) (packages int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.Join(slices.Concat(env, args), "\x00")
	if packages, ok := s.fetched[key]; ok {
		return packages, nil
	}
	// What is there is verified first: the go command takes it as it is.
	if err := s.verify(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	dir, err := s.dir(work)
	if err != nil {
		return 0, err
	}
	// A dry run with the final flags loads exactly the modules that the real one
	// needs. Nothing is fetched when nothing is missing.
	count := func(text string) {
		if strings.Contains(text, "/compile -o ") {
			packages++
		}
		if strings.HasPrefix(text, "go: downloading ") && line != nil {
			line(text)
		}
	}
	dry := append([]string{args[0], args[1], "-n"}, args[2:]...)
	c := command{args: dry, env: env, dir: dir, work: work, line: count}
	if err := s.toolchain.run(ctx, c); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if s.own == nil {
			if err := s.toolchain.client.Check(ctx, s.module, s.sum); err != nil {
				return 0, err
			}
		}
		c.net, packages = true, 0
		if err := s.toolchain.run(ctx, c); err != nil {
			return 0, fmt.Errorf("fetch %s: %w", s.module, err)
		}
	}
	if err := s.verify(); err != nil {
		return 0, err
	}
	s.fetched[key] = packages
	return packages, nil
}

// verify hashes every module of the source's closure that is in the module cache and was
// not hashed yet: its own against the lock, the others against its go.sum.
func (s *Source) verify() error {
	sums, err := s.sums()
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for m, sum := range sums {
		g.Go(func() error {
			_, err := s.verifyModule(m, sum)
			return err
		})
	}
	return g.Wait()
}

// verifyModule hashes one module's tree, or its go.mod when the version ends in
// /go.mod, as in go.sum, unless it did before. What is not in the cache is not found, and no error. A
// damaged one is removed, so that the next run fetches it again.
func (s *Source) verifyModule(m module.Version, sum string) (found bool, err error) {
	if _, done := s.verified.Load(m); done {
		return true, nil
	}
	version, isMod := strings.CutSuffix(m.Version, "/go.mod")
	dir, downloads, err := s.places(module.Version{Path: m.Path, Version: version})
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(downloads + ".partial"); err == nil {
		return false, nil // the go command was killed while it unpacked it, and will again
	}
	var got string
	if isMod {
		dir = downloads + ".mod"
		got, err = dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(dir) })
	} else {
		got, err = dirhash.HashDir(dir, m.String(), dirhash.Hash1)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("module cache: %s: %w", m, err)
	}
	if got == sum {
		s.verified.Store(m, true)
		return true, nil
	}
	from := "go.sum of " + s.module.String()
	if m == s.module {
		from = "lock"
	}
	err = &modproxy.SumError{Module: m, Want: sum, WantFrom: from, Got: got, GotFrom: dir}
	for _, name := range []string{dir, downloads + ".zip", downloads + ".ziphash", downloads + ".mod"} {
		if rmErr := cache.RemoveAll(name); rmErr != nil {
			return false, errors.Join(err, rmErr)
		}
	}
	return false, fmt.Errorf("%w; it was removed: run again to fetch it anew", err)
}

// sums is the lock's sum for the module and the lines of its go.sum. Its tree is hashed
// first: its go.sum is to be trusted. Source of this project has no sum itself.
func (s *Source) sums() (map[module.Version]string, error) {
	if s.own != nil {
		return readSums(strings.NewReader(s.own.Sums), map[module.Version]string{})
	}
	m := s.module
	found, err := s.verifyModule(m, s.sum)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("module cache: %s: %w", m, fs.ErrNotExist)
	}
	f, err := os.Open(filepath.Join(s.toolchain.modCache(), m.String(), "go.sum"))
	if err != nil {
		return nil, fmt.Errorf("module cache: %w", err)
	}
	defer f.Close()
	return readSums(f, map[module.Version]string{m: s.sum})
}

// readSums adds the lines of a go.sum.
func readSums(goSum io.Reader, sums map[module.Version]string) (map[module.Version]string, error) {
	in := bufio.NewScanner(goSum)
	for in.Scan() {
		if f := strings.Fields(in.Text()); len(f) == 3 && strings.HasPrefix(f[2], "h1:") {
			sums[module.Version{Path: f[0], Version: f[1]}] = f[2]
		}
	}
	return sums, in.Err()
}

// Linked lists the modules that a compiled program links, its own first unless it is this
// project's. Each must be one that the lock pins, by way of go.sum.
func (s *Source) Linked(binary string) ([]module.Version, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("build info: %w", err)
	}
	sums, err := s.sums()
	if err != nil {
		return nil, err
	}
	var list []module.Version
	deps := info.Deps
	if s.own == nil {
		deps = append([]*debug.Module{&info.Main}, deps...)
	} else if info.Main.Path != s.module.Path {
		return nil, fmt.Errorf("build info of %s: it is of module %s, not of %s", filepath.Base(binary), info.Main.Path, s.module.Path)
	}
	for _, d := range deps {
		m := module.Version{Path: d.Path, Version: d.Version}
		// A program that was compiled from a folder says no sum, and go.sum has none for it.
		if want := sums[m]; want == "" || d.Sum != want || d.Replace != nil {
			return nil, &modproxy.SumError{Module: m, Want: want, WantFrom: "go.sum of " + s.module.String(), Got: d.Sum, GotFrom: "build info of " + filepath.Base(binary)}
		}
		list = append(list, m)
	}
	return list, nil
}

// Tree is the folder of a module in the module cache.
func (s *Source) Tree(m module.Version) (string, error) {
	tree, _, err := s.places(m)
	return tree, err
}

// places are the folder of a module in the module cache, and how the names of the
// files begin that were fetched of it.
func (s *Source) places(m module.Version) (tree, downloads string, err error) {
	path, perr := module.EscapePath(m.Path)
	version, verr := module.EscapeVersion(m.Version)
	path = filepath.FromSlash(path)
	modCache := s.toolchain.modCache()
	return filepath.Join(modCache, path+"@"+version), filepath.Join(modCache, "cache", "download", path, "@v", version), errors.Join(perr, verr)
}
