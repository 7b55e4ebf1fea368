package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
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
		removeUnused(filepath.Join(parent, e.Name()))
	}
	for {
		dir, err := os.MkdirTemp(parent, "")
		if err != nil {
			return err
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another program took it for unused before it was locked
		}
		if err != nil {
			return err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			if _, err := os.Stat(dir); err == nil {
				c.tmp = f
				return nil
			}
		}
		f.Close()
	}
}

// removeUnused removes a folder of tmp that no program holds. What cannot be
// removed stays for a later run.
func removeUnused(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		_ = RemoveAll(dir)
	}
}

// Temp is this program's folder for temporary files.
func (c *Cache) Temp() string { return c.tmp.Name() }

// Close removes this program's temporary files and ends its use of the cache.
func (c *Cache) Close() error {
	defer c.use.Close()
	defer c.tmp.Close()
	return RemoveAll(c.tmp.Name())
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
