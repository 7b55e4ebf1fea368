package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xavieralpha/derper/internal/atomicfile"
)

// Export copies the results of the actions with these keys, and their blobs, into a folder,
// for the cache of another machine.
func (c *Cache) Export(keys []string, dir string) error {
	for _, key := range keys {
		if err := c.export(key, dir); err != nil {
			return fmt.Errorf("cache: export %s: %w", key, err)
		}
	}
	return nil
}

func (c *Cache) export(key, dir string) error {
	data, err := os.ReadFile(c.actionFile(key, ".json"))
	if err != nil {
		return err
	}
	r, err := decode(data)
	if err != nil {
		return err
	}
	to := Cache{dir: dir}
	for _, sub := range []string{"actions", "blobs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for _, b := range r.Blobs {
		from, err := c.Open(b)
		if err != nil {
			return err
		}
		err = atomicfile.WriteFrom(to.Path(b), filepath.Dir(to.Path(b)), func(w io.Writer) error {
			_, err := io.Copy(w, from)
			return err
		})
		from.Close()
		if err != nil {
			return err
		}
	}
	return atomicfile.Write(to.actionFile(key, ".json"), data)
}

// Import takes in what Export has left of these keys in a folder, which may be missing. What
// this cache has stays, and results of other actions in the folder count for nothing. Each blob
// is checked by content; that it is what the action makes, only who exported it knows.
func (c *Cache) Import(keys []string, dir string) error {
	from := Cache{dir: dir}
	for _, key := range keys {
		if err := c.take(&from, key); err != nil {
			return fmt.Errorf("cache: import %s: %w; remove %s to do without it", key, err, dir)
		}
	}
	return nil
}

func (c *Cache) take(from *Cache, key string) error {
	data, err := os.ReadFile(from.actionFile(key, ".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if have, err := c.Get(key); have != nil || err != nil {
		return err
	}
	r, err := decode(data)
	if err != nil {
		return err
	}
	for file, b := range r.Blobs {
		switch got, err := c.AddFile(from.Path(b)); {
		case err != nil:
			return err
		case got != b:
			return fmt.Errorf("%s: blob %s: %w: it has the content %s", file, b.Digest, ErrCorrupt, got.Digest)
		}
	}
	return c.write(c.actionFile(key, ".json"), data)
}
