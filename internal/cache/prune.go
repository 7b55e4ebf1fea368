package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// ErrInUse says that another program uses the cache.
var ErrInUse = errors.New("in use by another build")

// inUse is the file that each program that uses a cache locks.
const inUse = "in-use"

// RemoveUnused removes caches of this user that no program uses: those of programs
// that were killed. What is no cache stays, and what was made in the last minute:
// somebody may be about to use it. So does what another user made, who could put
// something else in its place meanwhile.
func RemoveUnused(dirs []string) {
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		use := flock.New(filepath.Join(dir, inUse), flock.SetFlag(os.O_RDWR))
		if info, err := use.Stat(); err == nil && time.Since(info.ModTime()) > time.Minute {
			removeUnused(use, dir)
		}
	}
}

// Prune removes everything but the results of actions whose keys keep says, with
// their blobs. It returns the number of bytes removed. The error is [ErrInUse] when
// another program uses the cache; nothing is removed then.
func (c *Cache) Prune(keep func(key string) bool) (freed int64, err error) {
	return c.remove(keep, c.dir)
}

// Drop removes the results of actions whose keys keep does not say, with their
// blobs. All else stays, as toolchains and modules. What it returns is as with Prune.
func (c *Cache) Drop(keep func(key string) bool) (freed int64, err error) {
	return c.remove(keep, filepath.Join(c.dir, "actions"), filepath.Join(c.dir, "blobs"))
}

// remove removes what is in folders of the cache, as long as nobody else uses it.
func (c *Cache) remove(keep func(key string) bool, folders ...string) (freed int64, err error) {
	c.use.Unlock()
	defer func() {
		c.use.Unlock()
		err = errors.Join(err, c.use.RLock())
	}()
	if ok, err := try(c.use, c.use.TryLock); !ok {
		return 0, fmt.Errorf("cache %s: %w", c.dir, cmp.Or(err, ErrInUse))
	}
	kept, err := c.kept(keep)
	for _, folder := range folders {
		if err == nil {
			var n int64
			n, err = c.removeOthers(folder, kept)
			freed += n
		}
	}
	return freed, err
}

// kept are the files of the results of actions whose keys keep says, and those that
// running programs lock.
func (c *Cache) kept(keep func(key string) bool) (map[string]bool, error) {
	kept := map[string]bool{c.use.Path(): true, c.Temp(): true}
	results, err := filepath.Glob(filepath.Join(c.dir, "actions", "*.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range results {
		key := strings.TrimSuffix(filepath.Base(name), ".json")
		if !keep(key) {
			continue
		}
		r, err := c.Get(key)
		if err != nil {
			return nil, err
		}
		if r != nil {
			kept[name] = true
			for _, b := range r.Blobs {
				kept[c.Path(b)], kept[c.checked(b)] = true, true
			}
		}
	}
	return kept, nil
}

// removeOthers removes the files below dir that are not kept, and folders that are
// empty then, but for those that Open makes.
func (c *Cache) removeOthers(dir string, kept map[string]bool) (freed int64, err error) {
	var dirs []string
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && kept[name]:
			return fs.SkipDir
		case d.IsDir():
			_ = os.Chmod(name, 0o755) // the module cache's folders are read-only
			dirs = append(dirs, name)
		case !kept[name]:
			if fi, err := d.Info(); err == nil {
				freed += fi.Size()
			}
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	for _, name := range slices.Backward(dirs) {
		if base := filepath.Base(name); name != dir && (name != filepath.Join(c.dir, base) || !slices.Contains(folders, base)) {
			_ = os.Remove(name) // fails while there is something in it
		}
	}
	return freed, err
}
