package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// openTemp makes this program's folder in tmp, and removes those of programs that
// are gone. A folder is in use as long as somebody holds its lock; the kernel lets
// go of a lock when its holder ends, however that comes about.
func (c *Cache) openTemp() error {
	parent := filepath.Join(c.dir, "tmp")
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// What cannot be removed stays for a later run.
		dir := filepath.Join(parent, e.Name())
		removeUnused(folderLock(dir), dir)
	}
	for {
		dir, err := os.MkdirTemp(parent, "")
		if err != nil {
			return err
		}
		c.tmp = folderLock(dir)
		ok, err := try(c.tmp, c.tmp.TryLock)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			os.Remove(dir)
			return err
		}
		if ok {
			if _, err := os.Stat(dir); err == nil {
				return nil
			}
			c.tmp.Close()
		}
		// Another program took it for unused before it was locked.
	}
}

// removeUnused removes a folder, if nobody holds its lock.
func removeUnused(l *flock.Flock, dir string) {
	if ok, _ := l.TryLock(); ok {
		_ = RemoveAll(dir)
		l.Close()
	}
}

// Temp is this program's folder for temporary files.
func (c *Cache) Temp() string { return c.tmp.Path() }

// Close removes this program's temporary files and ends its use of the cache.
func (c *Cache) Close() error {
	defer c.use.Close()
	defer c.tmp.Close()
	return RemoveAll(c.Temp())
}

// RemoveAll removes a tree, also one with folders that are read-only, as those of a
// module cache are.
func RemoveAll(dir string) error {
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(name, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
