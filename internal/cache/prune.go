package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrInUse says that another program uses the cache.
var ErrInUse = errors.New("in use by another build")

// inUse is the file that each program that uses a cache locks.
const inUse = "in-use"

// share notes that this program uses the cache. The error is [ErrInUse] while
// another prunes it.
func (c *Cache) share() error {
	f, err := os.OpenFile(filepath.Join(c.dir, inUse), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		f.Close()
		return ErrInUse
	}
	c.use = f
	return nil
}

// RemoveUnused removes caches of this user that no program uses: those of programs
// that were killed. What is no cache stays, and what was made in the last minute:
// somebody may be about to use it. So does what another user made, who could put
// something else in its place meanwhile.
func RemoveUnused(dirs []string) {
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		f, err := os.Open(filepath.Join(dir, inUse))
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err == nil && time.Since(info.ModTime()) > time.Minute && syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = RemoveAll(dir)
		}
		f.Close()
	}
}

// Prune removes everything but the results of actions whose keys keep says, with
// their blobs. It returns the number of bytes removed. The error is [ErrInUse] when
// another program uses the cache; nothing is removed then.
func (c *Cache) Prune(keep func(key string) bool) (freed int64, err error) {
	// An attempt that fails loses the shared lock too.
	defer syscall.Flock(int(c.use.Fd()), syscall.LOCK_SH)
	if err := syscall.Flock(int(c.use.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return 0, fmt.Errorf("cache %s: %w", c.dir, ErrInUse)
	}
	kept, err := c.kept(keep)
	if err != nil {
		return 0, err
	}
	return c.removeOthers(c.dir, kept)
}

// Drop removes the results of actions whose keys keep does not say, with their
// blobs, and returns the number of bytes removed. All else stays, as toolchains and
// modules. The error is [ErrInUse] when another program uses the cache.
func (c *Cache) Drop(keep func(key string) bool) (freed int64, err error) {
	defer syscall.Flock(int(c.use.Fd()), syscall.LOCK_SH)
	if err := syscall.Flock(int(c.use.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return 0, fmt.Errorf("cache %s: %w", c.dir, ErrInUse)
	}
	kept, err := c.kept(keep)
	if err != nil {
		return 0, err
	}
	for _, folder := range []string{"actions", "blobs"} {
		n, err := c.removeOthers(filepath.Join(c.dir, folder), kept)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// kept are the files of the results of actions whose keys keep says, and those that
// running programs lock.
func (c *Cache) kept(keep func(key string) bool) (map[string]bool, error) {
	kept := map[string]bool{c.use.Name(): true, c.tmp.Name(): true}
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
		if r == nil {
			continue
		}
		kept[name] = true
		for _, b := range r.Blobs {
			kept[c.Path(b)] = true
			kept[c.Path(b)+".checked"] = true
		}
	}
	return kept, nil
}

// removeOthers removes the files below dir that are not kept, and folders that are
// empty then, but for those that Open makes.
func (c *Cache) removeOthers(dir string, kept map[string]bool) (freed int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	_ = os.Chmod(dir, 0o755) // the module cache's folders are read-only
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if kept[name] {
			continue
		}
		if e.IsDir() {
			n, err := c.removeOthers(name, kept)
			freed += n
			if err != nil {
				return freed, err
			}
			if dir != c.dir || !slices.Contains(folders, e.Name()) {
				_ = os.Remove(name) // fails while there is something in it
			}
			continue
		}
		if fi, err := e.Info(); err == nil {
			freed += fi.Size()
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, err
		}
	}
	return freed, nil
}
