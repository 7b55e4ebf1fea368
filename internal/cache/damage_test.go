package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// overwrite changes a blob's file, as a fault of the disk or a person would: not in
// the moment in which it was written.
func overwrite(t *testing.T, c *Cache, b Blob, content string) {
	t.Helper()
	if err := os.Chmod(c.Path(b), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Path(b), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(c.Path(b), later, later); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedBlob(t *testing.T) {
	const content = "what a compiler made"
	for name, damaged := range map[string]string{
		"tampered, same size": "what a Compiler made",
		"truncated":           content[:5],
		"emptied":             "",
		"longer":              content + ".",
	} {
		t.Run(name, func(t *testing.T) {
			c, warned := open(t, t.TempDir())
			b := put(t, c, "key", content)
			overwrite(t, c, b, damaged)
			if _, err := read(c, b); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), b.Digest) {
				t.Errorf("read: %v, not ErrCorrupt", err)
			}
			if _, err := os.Stat(c.Path(b)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("not dropped: %v", err)
			}

			add(t, c, content)
			overwrite(t, c, b, damaged)
			if err := c.Check(b); !errors.Is(err, ErrCorrupt) {
				t.Errorf("check: %v, not ErrCorrupt", err)
			}

			add(t, c, content)
			overwrite(t, c, b, damaged)
			if r, err := c.Get("key"); r != nil || err != nil {
				t.Errorf("get: %v, %v", r, err)
			}
			if len(*warned) != 1 || !strings.Contains((*warned)[0], b.Digest) {
				t.Errorf("said: %q", *warned)
			}

			// Made again, it is good again.
			put(t, c, "key", content)
			if r, err := c.Get("key"); r == nil || err != nil {
				t.Errorf("made again: %v, %v", r, err)
			}
		})
	}
}

func TestMissingBlob(t *testing.T) {
	c, warned := open(t, t.TempDir())
	b := put(t, c, "key", "content")
	if err := os.Remove(c.Path(b)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get("key"); r != nil || err != nil {
		t.Errorf("%v, %v", r, err)
	}
	if len(*warned) != 1 || !strings.Contains((*warned)[0], b.Digest+": missing") {
		t.Errorf("said: %q", *warned)
	}
}

// A blob that was touched but not changed is read once, and good.
func TestTouchedBlob(t *testing.T) {
	c, warned := open(t, t.TempDir())
	b := put(t, c, "key", "content")
	overwrite(t, c, b, "content")
	for range 2 {
		if r, err := c.Get("key"); r == nil || err != nil {
			t.Errorf("%v, %v", r, err)
		}
	}
	if len(*warned) != 0 {
		t.Errorf("said: %q", *warned)
	}
}

// A change that leaves size, time and inode alone is not seen when the blob is only
// named; it is with VerifyAll, and when the blob is read.
func TestChangeThatTookPains(t *testing.T) {
	c, warned := open(t, t.TempDir())
	b := put(t, c, "key", "content")
	before, err := os.Stat(c.Path(b))
	if err != nil {
		t.Fatal(err)
	}
	damage := func() {
		overwrite(t, c, b, "CONTENT")
		if err := os.Chtimes(c.Path(b), before.ModTime(), before.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	if r, err := c.Get("key"); r == nil || err != nil {
		t.Fatalf("seen without reading it: %v, %v: this test tests nothing", r, err)
	}
	c.VerifyAll = true
	if r, err := c.Get("key"); r != nil || err != nil {
		t.Errorf("VerifyAll: %v, %v", r, err)
	}
	if len(*warned) != 1 {
		t.Errorf("said: %q", *warned)
	}
}

// Not one byte of a result's record can change unnoticed: a DiffID stands there and
// nowhere else.
func TestDamagedRecord(t *testing.T) {
	c, warned := open(t, t.TempDir())
	put(t, c, "key", "content")
	name := filepath.Join(c.Dir(), "actions", "key.json")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string][]byte{
		"empty":         nil,
		"truncated":     good[:len(good)/2],
		"not JSON":      []byte("\x00\x00"),
		"other JSON":    []byte(`{"blobs": {}}`),
		"without blobs": []byte(`{}`),
	}
	for i := range good {
		flipped := append([]byte{}, good...)
		flipped[i] ^= 1
		damages["flipped: "+string(flipped)] = flipped
	}
	for what, data := range damages {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		*warned = nil
		if r, err := c.Get("key"); r != nil || err != nil {
			t.Errorf("%s: %v, %v", what, r, err)
		}
		if len(*warned) != 1 || !strings.Contains((*warned)[0], name) {
			t.Errorf("%s: said %q", what, *warned)
		}
	}
	latest := filepath.Join(c.Dir(), "latest", "id-key.json")
	if c.Latest("id key") == nil {
		t.Error("no latest")
	}
	if err := os.WriteFile(latest, good[:20], 0o644); err != nil {
		t.Fatal(err)
	}
	if got := c.Latest("id key"); got != nil {
		t.Errorf("a damaged latest: %s", got)
	}
}
