package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// said collects warnings.
type said []string

func (s *said) warn(format string, args ...any) { *s = append(*s, fmt.Sprintf(format, args...)) }

func open(t *testing.T, dir string) (*Cache, *said) {
	t.Helper()
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := new(said)
	c.Warn = s.warn
	return c, s
}

func add(t *testing.T, c *Cache, content string) Blob {
	t.Helper()
	b, err := c.Add(strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put records a result with one blob, the content.
func put(t *testing.T, c *Cache, key, content string) Blob {
	t.Helper()
	b := add(t, c, content)
	r := &Result{
		Action: json.RawMessage(`{"kind":"test","args":["<&>"]}`),
		Blobs:  map[string]Blob{"file": b},
		Notes:  map[string]string{"diffID": "sha256:abc"},
		Time:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if err := c.Put(key, "id "+key, r); err != nil {
		t.Fatal(err)
	}
	return b
}

func read(c *Cache, b Blob) (string, error) {
	r, err := c.Open(b)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestResultComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	c, warned := open(t, dir)
	if r, err := c.Get("key"); r != nil || err != nil {
		t.Fatalf("a result before there is one: %v, %v", r, err)
	}
	b := put(t, c, "key", "content")
	other, _ := open(t, dir)
	for name, c := range map[string]*Cache{"the same program": c, "another": other} {
		r, err := c.Get("key")
		if r == nil || err != nil {
			t.Fatalf("%s: %v, %v", name, r, err)
		}
		if r.Blobs["file"] != b || r.Notes["diffID"] != "sha256:abc" || !r.Time.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
			t.Errorf("%s: another result: %+v", name, r)
		}
		if want := `{"kind":"test","args":["\u003c\u0026\u003e"]}`; string(r.Action) != want {
			t.Errorf("%s: another action: %s, not %s", name, r.Action, want)
		}
		if got, err := read(c, r.Blobs["file"]); got != "content" || err != nil {
			t.Errorf("%s: blob is %q, %v", name, got, err)
		}
	}
	if len(*warned) != 0 {
		t.Errorf("warned: %q", *warned)
	}
}

func TestLatest(t *testing.T) {
	c, _ := open(t, t.TempDir())
	if got := c.Latest("layer base linux/arm/v7"); got != nil {
		t.Errorf("before the first: %s", got)
	}
	for i, key := range []string{"one", "two"} {
		r := &Result{Action: json.RawMessage(`{"n":` + fmt.Sprint(i) + `}`), Blobs: map[string]Blob{"f": add(t, c, key)}}
		if err := c.Put(key, "layer base linux/arm/v7", r); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(c.Latest("layer base linux/arm/v7")); got != `{"n":1}` {
		t.Errorf("%s, not the second", got)
	}
	if got := c.Latest("layer base linux/arm/v6"); got != nil {
		t.Errorf("that of another platform: %s", got)
	}
}

func TestBlob(t *testing.T) {
	c, _ := open(t, t.TempDir())
	const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // of abc
	if b := add(t, c, "abc"); b != (Blob{Digest: digest, Size: 3}) {
		t.Errorf("%+v", b)
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := c.AddFile(name)
	if err != nil || b.Digest != digest {
		t.Errorf("%+v, %v", b, err)
	}
	openers := c.Opener(b)
	for range 2 {
		r, err := openers()
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); string(data) != "abc" || err != nil {
			t.Errorf("%q, %v", data, err)
		}
		r.Close()
	}
	if _, err := read(c, Blob{Digest: "sha256:" + strings.Repeat("0", 64)}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that is not there: %v", err)
	}
	if _, err := c.AddFile(name + "no"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// What is not committed leaves no trace, also when the reader fails.
func TestBlobNotCommitted(t *testing.T) {
	c, _ := open(t, t.TempDir())
	broken := errors.New("broken")
	if _, err := c.Write(func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(err, broken)
	}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := c.Add(io.MultiReader(strings.NewReader("half"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	for _, dir := range []string{filepath.Join(c.Dir(), "blobs"), c.Temp()} {
		noFiles(t, dir)
	}
	b := add(t, c, "whole")
	if got, err := read(c, b); got != "whole" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func noFiles(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s: left: %s", dir, e.Name())
	}
}

// A folder that is somebody else's is not made a cache: Prune would empty it.
func TestForeignFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	c, err := Open(dir)
	if !errors.Is(err, ErrNotCache) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v, not ErrNotCache", err)
	}
	if err == nil {
		c.Close()
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder was touched: %v, %v", entries, err)
	}
	file := filepath.Join(dir, "thesis.txt")
	if _, err := Open(file); err == nil {
		t.Error("a file was opened as a cache")
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	a, _ := open(t, dir)
	b, _ := open(t, dir)
	never := func() { t.Error("waited") }
	unlock, err := a.Lock(t.Context(), "key", never)
	if err != nil {
		t.Fatal(err)
	}
	// Another action is free.
	free, err := b.Lock(t.Context(), "other", never)
	if err != nil {
		t.Fatal(err)
	}
	free()
	// The same is not: the wait can be cancelled, and says that it is one, once.
	ctx, cancel := context.WithCancel(t.Context())
	waits := 0
	if _, err := b.Lock(ctx, "key", func() { waits++; cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, not Canceled", err)
	}
	if waits != 1 {
		t.Errorf("said %d times that it waits", waits)
	}
	// It comes free at unlock, and not before.
	waiting := make(chan bool)
	got := make(chan error)
	var held atomic.Bool
	held.Store(true)
	go func() {
		unlock, err := b.Lock(t.Context(), "key", func() { close(waiting) })
		if err == nil && held.Load() {
			err = errors.New("both hold it")
		}
		if err == nil {
			unlock()
		}
		got <- err
	}()
	<-waiting
	held.Store(false)
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestLockFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	unlock, err := LockFolder(t.Context(), "dist", func() { t.Error("waited") })
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for path, same := range map[string]bool{"./dist": true, filepath.Join(here, "dist"): true, "dist2": false} {
		ctx, cancel := context.WithCancel(t.Context())
		unlock, err := LockFolder(ctx, path, cancel)
		if same != errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			unlock()
		}
		cancel()
	}
}
