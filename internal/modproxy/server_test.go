package modproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/zip"
)

var sample = module.Version{Path: "example.com/Sample", Version: "v1.2.3"}

// samplePath is where a proxy has the sample's zip.
const samplePath = "/example.com/!sample/@v/v1.2.3.zip"

var sampleFiles = map[string]string{
	"go.mod":       "module example.com/Sample\n",
	"a.go":         "package sample\n",
	"LICENSE":      "as you like\n",
	"deep/down/b":  strings.Repeat("b", 100_000),
	"deep/empty":   "",
	"deep/ümlaut!": "text",
}

// A world is a module proxy and a checksum database on loopback, and a client
// that uses them. Neither is reached under a name, and nothing waits.
type world struct {
	*testing.T
	proxy  *httptest.Server
	client *Client
	zip    []byte
	sum    string // true one of the zip

	mu       sync.Mutex
	requests []string
	// answer replaces the proxy's answer where it returns true.
	answer func(w http.ResponseWriter, r *http.Request) bool
	// known are the sums in the checksum database.
	known map[module.Version]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, known: map[module.Version]string{}}
	w.zip, w.sum = makeZip(t, sample, sampleFiles)
	w.known[sample] = w.sum

	skey, vkey, err := note.GenerateKey(nil, "sums.example.com")
	if err != nil {
		t.Fatal(err)
	}
	db := database(skey, func(m module.Version) string {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.known[m]
	})
	w.proxy = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, r.URL.Path)
		answer := w.answer
		w.mu.Unlock()
		if answer != nil && answer(rw, r) {
			return
		}
		if path, ok := strings.CutPrefix(r.URL.Path, "/sumdb/sums.example.com"); ok {
			r.URL.Path = path
			db.ServeHTTP(rw, r)
			return
		}
		if r.URL.Path != samplePath {
			http.NotFound(rw, r)
			return
		}
		rw.Write(w.zip)
	}))
	// net/http tries again on its own when a kept connection breaks.
	w.proxy.Config.SetKeepAlivesEnabled(false)
	t.Cleanup(w.proxy.Close)
	w.client = &Client{
		Proxies: w.proxy.URL,
		SumDB:   vkey,
		Dir:     filepath.Join(t.TempDir(), "sumdb"),
		Temp:    t.TempDir(),
		backoff: time.Nanosecond,
	}
	return w
}

// database is a checksum database with the given sums, "" for unknown.
func database(key string, sum func(module.Version) string) http.Handler {
	return sumdb.NewServer(sumdb.NewTestServer(key, func(path, version string) ([]byte, error) {
		h1 := sum(module.Version{Path: path, Version: version})
		if h1 == "" {
			return nil, fs.ErrNotExist
		}
		return fmt.Appendf(nil, "%s %s %s\n%[1]s %[2]s/go.mod %[3]s\n", path, version, h1), nil
	}))
}

// fetch fetches the sample and returns the folder it goes to.
func (w *world) fetch(ctx context.Context, sum string) (string, error) {
	w.Helper()
	dir := filepath.Join(w.TempDir(), "above", "sample")
	return dir, w.client.Fetch(ctx, sample, sum, dir, nil)
}

// count is how many requests there were for a path.
func (w *world) count(path string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if r == path {
			n++
		}
	}
	return n
}

// nothingLeft fails the test when there are temporary files, or when a tree is in
// place that should not be: dir is where it would be.
func (w *world) nothingLeft(dir string) {
	w.Helper()
	entries, err := os.ReadDir(w.client.Temp)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range entries {
		w.Errorf("left in Temp: %s", e.Name())
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		w.Errorf("%s is there: %v", dir, err)
	}
}

// whole fails the test unless the sample's tree is in dir.
func (w *world) whole(dir string) {
	w.Helper()
	got := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		got[name] = string(data)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	for name, want := range sampleFiles {
		if got[name] != want {
			w.Errorf("%s: has %d bytes, not the %d of the module", name, len(got[name]), len(want))
		}
	}
	if len(got) != len(sampleFiles) {
		w.Errorf("%d files, not %d", len(got), len(sampleFiles))
	}
}

// special makes the proxy answer one path in its own way.
func (w *world) special(path string, answer http.HandlerFunc) {
	w.answer = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == path {
			answer(rw, r)
			return true
		}
		return false
	}
}

func makeZip(t *testing.T, m module.Version, files map[string]string) (data []byte, sum string) {
	t.Helper()
	var list []zip.File
	for name, content := range files {
		list = append(list, memFile{name, content})
	}
	var b bytes.Buffer
	if err := zip.Create(&b, m, list); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "zip")
	if err := os.WriteFile(name, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	sum, err := dirhash.HashZip(name, dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), sum
}

// memFile is a zip.File, and its own fs.FileInfo.
type memFile struct{ name, content string }

func (f memFile) Path() string                { return f.name }
func (f memFile) Lstat() (fs.FileInfo, error) { return f, nil }
func (f memFile) Open() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(f.content)), nil
}
func (f memFile) Name() string       { return filepath.Base(f.name) }
func (f memFile) Size() int64        { return int64(len(f.content)) }
func (f memFile) Mode() fs.FileMode  { return 0o644 }
func (f memFile) ModTime() time.Time { return time.Time{} }
func (f memFile) IsDir() bool        { return false }
func (f memFile) Sys() any           { return nil }
