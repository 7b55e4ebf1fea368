package revision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/confine"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// A Job is the build of images of a lock's first variant by another revision.
type Job struct {
	Inputs    lock.Inputs
	Platforms []lock.Platform
	// Tool is the toolchain that compiles the program, for Host, GOOS/GOARCH.
	Tool *toolchain.Toolchain
	Host string
	// Cache has what the program needs, fetched and verified: it gets a copy of it, so that
	// nothing that it writes is used by anybody else. Compiled says that the copy may have
	// the compiled packages, too.
	Cache    *cache.Cache
	Compiled bool
	// Shared are folders of the cache that the program uses itself, and may write to: only
	// tests have some, so that each does not compile the standard library.
	Shared []string
	// Source is the folder with the program's source, Work an empty one of its own.
	Source, Work string
}

// program is the command of this project that builds.
const program = "build"

// perPlatform is how long a program may take for each platform.
var perPlatform = time.Hour // shorter in a test

// Compile compiles the program, with the versions of modules that its own go.mod and go.sum
// name, in the environment of every compile.
func (j *Job) Compile(ctx context.Context) (file string, err error) {
	mod, err := os.ReadFile(filepath.Join(j.Source, "go.mod"))
	if err != nil {
		return "", err
	}
	sums, err := os.ReadFile(filepath.Join(j.Source, "go.sum"))
	if err != nil {
		return "", err
	}
	unlock, err := j.Cache.Lock(ctx, "modules", func() {})
	if err != nil {
		return "", err
	}
	defer unlock()
	source := j.Tool.OwnSource(&toolchain.Own{Files: os.DirFS(j.Source), Module: string(mod), Sums: string(sums)})
	work := filepath.Join(j.Work, "compile")
	if err := os.Mkdir(work, 0o755); err != nil {
		return "", err
	}
	install := func(pkg string) []string { return []string{"go", "install", "-trimpath", "-buildvcs=false", pkg} }
	// What it compiles of its own source it cannot fetch itself.
	for _, p := range j.Inputs.Programs {
		if !j.Inputs.SourceOf(p).Own() {
			continue
		}
		for _, platform := range j.Platforms {
			if _, err := source.Fetch(ctx, plan.Settings(platform), install("."+strings.TrimPrefix(p.Package, derper.Module)), work, nil); err != nil {
				return "", err
			}
		}
	}
	env, args := plan.Settings(lock.Platform(j.Host)), install("./cmd/"+program)
	if _, err := source.Fetch(ctx, env, args, work, nil); err != nil {
		return "", err
	}
	programs, err := source.Install(ctx, env, args, work, nil)
	if err != nil {
		return "", err
	}
	if programs[program] == "" {
		return "", fmt.Errorf("its cmd/%s is no program", program)
	}
	_, err = source.Linked(programs[program]) // only what its go.sum pins
	return programs[program], err
}

// Build lets a compiled program build the images, and returns the folder of the layout that it
// has written. It gets nothing of the environment, and no network; what else is kept from it
// depends on the system, see package confine: closed says that all was. Before it runs,
// whatever is compared with its work must have been read.
func (j *Job) Build(ctx context.Context, file string) (layout string, closed bool, err error) {
	shared, err := j.furnish()
	if err != nil {
		return "", false, err
	}
	name := filepath.Join(j.Work, lock.File)
	if err := (&lock.Lock{Schema: lock.SchemaVersion, Inputs: j.Inputs}).Write(name); err != nil {
		return "", false, err
	}
	temp := filepath.Join(j.Work, "temp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		return "", false, err
	}
	var names []string
	for _, p := range j.Platforms {
		names = append(names, string(p))
	}
	layout = filepath.Join(j.Work, "layout")
	home := filepath.Join(j.Work, "home")
	c := confine.Command{
		Program: file, Dir: j.Work, Write: shared, Limit: time.Duration(len(j.Platforms)) * perPlatform,
		// The command line that docs/lock.md promises.
		Args: []string{"--lock", name, "--platform", strings.Join(names, ","), "--output", layout},
		Env:  []string{"PATH=/nowhere", "HOME=" + home, "XDG_CACHE_HOME=" + filepath.Join(home, ".cache"), "TMPDIR=" + temp, "LANG=C.UTF-8", "GOPROXY=off"},
	}
	if closed, err = c.Run(ctx); err != nil {
		return "", closed, err
	}
	return layout, closed, onlyFiles(layout)
}

// cacheIn is the folder of the program's cache in a home folder.
func cacheIn(home string) string {
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Caches", "derper")
	}
	return filepath.Join(home, ".cache", "derper")
}

// furnish makes the program's cache, with a copy of what was fetched. It returns the folders
// that are shared.
func (j *Job) furnish() (shared []string, err error) {
	dir := cacheIn(filepath.Join(j.Work, "home"))
	c, err := cache.Open(dir)
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"toolchain", "mod", "modules", "go-build"} {
		from, to := filepath.Join(j.Cache.Dir(), name), filepath.Join(dir, name)
		switch {
		case slices.Contains(j.Shared, name):
			if from, err = filepath.EvalSymlinks(from); err == nil {
				shared, err = append(shared, from), os.Symlink(from, to)
			}
		case name != "go-build" || j.Compiled:
			if err = os.CopyFS(to, os.DirFS(from)); errors.Is(err, fs.ErrNotExist) {
				err = nil // nothing of that kind was fetched
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return shared, nil
}

// onlyFiles refuses what is no folder of regular files: a link leads to what the program has
// not made.
func onlyFiles(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("it has written no layout")
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New("its layout is no folder")
	}
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !d.Type().IsRegular() {
			err = fmt.Errorf("its layout has %s, which is no file", strings.TrimPrefix(name, dir))
		}
		return err
	})
}
