package cache

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

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

// Import takes in what Export has left in a folder, which may be missing. Each blob is
// checked by content; that it is what the action makes, only who exported it knows.
func (c *Cache) Import(dir string) error {
	from := Cache{dir: dir}
	names, err := filepath.Glob(from.actionFile("*", ".json"))
	for _, name := range names {
		if err = c.take(&from, name); err != nil {
			return fmt.Errorf("cache: import %s: %w; remove %s to do without it", name, err, dir)
		}
	}
	return err
}

func (c *Cache) take(from *Cache, name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	r, err := decode(data)
	if err != nil {
		return err
	}
	key := strings.TrimSuffix(filepath.Base(name), ".json")
	if have, err := os.ReadFile(c.actionFile(key, ".json")); err == nil && bytes.Equal(have, data) {
		if r, err := c.Get(key); r != nil || err != nil {
			return err
		}
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
