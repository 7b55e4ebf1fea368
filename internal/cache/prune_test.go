package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRemoveUnused guards a cache that is in use, or is none, against one who tidies up.
func TestRemoveUnused(t *testing.T) {
	parent := t.TempDir()
	ago := time.Now().Add(-time.Hour)
	folder := func(name string, used, old bool) string {
		dir := filepath.Join(parent, name)
		c, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		put(t, c, "key", "content")
		if used {
			t.Cleanup(func() { c.Close() })
		} else {
			c.Close()
		}
		if old {
			if err := os.Chtimes(filepath.Join(dir, inUse), ago, ago); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	unused := folder("unused", false, true)
	others := []string{folder("used", true, true), folder("new", false, false), filepath.Join(parent, "none")}
	if err := os.Mkdir(others[2], 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(parent, "link")
	if err := os.Symlink(folder("linked", false, true), link); err != nil {
		t.Fatal(err)
	}
	others = append(others, link, filepath.Join(link, inUse))
	if os.Geteuid() == 0 {
		theirs := folder("theirs", false, true)
		if err := os.Chown(theirs, 65534, -1); err != nil {
			t.Fatal(err)
		}
		others = append(others, theirs)
	}
	RemoveUnused(append(others, unused))
	if _, err := os.Stat(unused); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unused one: %v", err)
	}
	for _, dir := range others {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

func TestPrune(t *testing.T) {
	c, warned := open(t, t.TempDir())
	kept := put(t, c, "kept", "what both made")
	dropped := put(t, c, "dropped", "what one made")
	put(t, c, "dropped-too", "what both made")
	unlock, err := c.Lock(t.Context(), "dropped", nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()

	// As package toolchain leaves it: read-only folders, links.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("not ours"), 0o666); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(c.Dir(), "mod", "example.com@v1.0.0")
	if err := os.MkdirAll(module, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(module, "a.go"), make([]byte, 12345), 0o444); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"file": outside, "folder": filepath.Dir(outside)} {
		if err := os.Symlink(target, filepath.Join(module, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(module, 0o555); err != nil {
		t.Fatal(err)
	}

	freed, err := c.Prune(func(key string) bool { return key == "kept" })
	if err != nil {
		t.Fatal(err)
	}
	if freed < 12345 || freed > 20000 {
		t.Errorf("%d bytes freed, not 12345 and some small files", freed)
	}
	for _, name := range []string{c.Path(dropped), filepath.Join(c.Dir(), "mod"), filepath.Join(c.Dir(), "actions", "dropped.json"), filepath.Join(c.Dir(), "actions", "dropped.lock")} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: not removed: %v", name, err)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("removed through a link: %v", err)
	}
	// What was kept is whole, and the cache works.
	if r, err := c.Get("kept"); r == nil || err != nil {
		t.Errorf("kept: %v, %v", r, err)
	}
	if got, err := read(c, kept); got != "what both made" || err != nil {
		t.Errorf("kept: %q, %v", got, err)
	}
	if r, err := c.Get("dropped"); r != nil || err != nil {
		t.Errorf("dropped: %v, %v", r, err)
	}
	put(t, c, "dropped", "again")
	if r, err := c.Get("dropped"); r == nil || err != nil {
		t.Errorf("made again: %v, %v", r, err)
	}
	if len(*warned) != 0 {
		t.Errorf("said: %q", *warned)
	}
}

// A damaged result is no reason to keep anything.
func TestPruneDamaged(t *testing.T) {
	c, _ := open(t, t.TempDir())
	b := put(t, c, "key", "content")
	overwrite(t, c, b, "CONTENT")
	if _, err := c.Prune(func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir(), "actions", "key.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("kept: %v", err)
	}
}

func TestPruneWhileInUse(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir)
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, a, "key", "content")
	none := func(string) bool { return false }
	// Neither may, as long as both are there; and that one tried changes nothing.
	for name, c := range map[string]*Cache{"a": a, "b": b} {
		if freed, err := c.Prune(none); !errors.Is(err, ErrInUse) || freed != 0 {
			t.Errorf("%s: %d, %v, not ErrInUse", name, freed, err)
		}
	}
	if r, err := a.Get("key"); r == nil || err != nil {
		t.Errorf("removed all the same: %v, %v", r, err)
	}
	b.Close()
	if _, err := a.Prune(none); err != nil {
		t.Error(err)
	}
	if r, err := a.Get("key"); r != nil || err != nil {
		t.Errorf("not removed: %v, %v", r, err)
	}
	// Others may use the cache again.
	c, _ := open(t, dir)
	put(t, c, "key", "content")
}

// Drop takes results only: what the next build is made with stays.
func TestDrop(t *testing.T) {
	c, warned := open(t, t.TempDir())
	kept := put(t, c, "kept", "what both made")
	dropped := put(t, c, "dropped", "what one made")
	put(t, c, "dropped-too", "what both made")
	module := filepath.Join(c.Dir(), "mod", "a.go")
	if err := os.MkdirAll(filepath.Dir(module), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(module, make([]byte, 12345), 0o444); err != nil {
		t.Fatal(err)
	}
	other, err := Open(c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	keep := func(key string) bool { return key == "kept" }
	if freed, err := c.Drop(keep); !errors.Is(err, ErrInUse) || freed != 0 {
		t.Errorf("while another uses it: %d, %v, not ErrInUse", freed, err)
	}
	other.Close()
	if freed, err := c.Drop(keep); err != nil || freed < int64(len("what one made")) || freed > 5000 {
		t.Errorf("%d bytes freed, %v", freed, err)
	}
	if _, err := os.Stat(module); err != nil {
		t.Errorf("a module was removed: %v", err)
	}
	if _, err := os.Stat(c.Path(dropped)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob was left: %v", err)
	}
	if r, err := c.Get("dropped-too"); r != nil || err != nil {
		t.Errorf("a result was left: %v, %v", r, err)
	}
	if got, err := read(c, kept); got != "what both made" || err != nil {
		t.Errorf("kept: %q, %v", got, err)
	}
	put(t, c, "dropped", "again")
	if len(*warned) != 0 {
		t.Errorf("said: %q", *warned)
	}
}
