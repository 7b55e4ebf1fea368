package modproxy

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/stall"
)

func TestFetch(t *testing.T) {
	w := newWorld(t)
	var last, total int64
	dir := filepath.Join(t.TempDir(), "above", "sample")
	err := w.client.Fetch(t.Context(), sample, w.sum, dir, func(done, of int64) { last, total = done, of })
	if err != nil {
		t.Fatal(err)
	}
	w.whole(dir)
	if size := int64(len(w.zip)); last != size || total != size {
		t.Errorf("progress ends at %d of %d bytes, not at %d", last, total, size)
	}
	entries, err := os.ReadDir(w.client.Temp)
	if err != nil || len(entries) != 0 {
		t.Errorf("left in Temp: %v, %v", entries, err)
	}
}

// One client serves many builds, also after one whose context has ended.
func TestFetchAfterEndOfContext(t *testing.T) {
	w := newWorld(t)
	other := module.Version{Path: "example.com/other", Version: "v1.0.0"}
	w.known[other] = w.sum
	ctx, cancel := context.WithCancel(t.Context())
	if got, err := w.client.Sum(ctx, other); err != nil || got != w.sum {
		t.Fatalf("%s, %v", got, err)
	}
	cancel()
	dir, err := w.fetch(t.Context(), w.sum)
	if err != nil {
		t.Fatal(err)
	}
	w.whole(dir)
}

// Who fetches the same at the same time has put it in place already.
func TestFetchTwice(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "sample")
	for range 2 {
		if err := w.client.Fetch(t.Context(), sample, w.sum, dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.whole(dir)
}

func TestTamperedZip(t *testing.T) {
	w := newWorld(t)
	files := map[string]string{"evil.go": "package evil\n"}
	for name, content := range sampleFiles {
		files[name] = content
	}
	want := w.sum
	var got string
	w.zip, got = makeZip(t, sample, files)
	dir, err := w.fetch(t.Context(), want)
	var sum *SumError
	if !errors.As(err, &sum) {
		t.Fatalf("%v, not a SumError", err)
	}
	expected := SumError{Module: sample, Want: want, WantFrom: "lock", Got: got, GotFrom: w.proxy.URL + samplePath}
	if *sum != expected {
		t.Errorf("%+v\nnot %+v", *sum, expected)
	}
	for _, part := range []string{sample.String(), want, got, "lock", w.proxy.URL} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the message does not have %s: %v", part, err)
		}
	}
	w.nothingLeft(dir)
}

// A lock that names another sum than the checksum database is noticed before
// anything is fetched.
func TestLockAgainstDatabase(t *testing.T) {
	w := newWorld(t)
	_, wrong := makeZip(t, sample, map[string]string{"go.mod": "module x\n"})
	dir, err := w.fetch(t.Context(), wrong)
	var sum *SumError
	if !errors.As(err, &sum) {
		t.Fatalf("%v, not a SumError", err)
	}
	expected := SumError{Module: sample, Want: wrong, WantFrom: "lock", Got: w.sum, GotFrom: "checksum database"}
	if *sum != expected {
		t.Errorf("%+v\nnot %+v", *sum, expected)
	}
	if n := w.count(samplePath); n != 0 {
		t.Errorf("%d requests for the zip", n)
	}
	w.nothingLeft(dir)
}

// The zip may be whole and known, and still be another module's.
func TestZipOfAnotherModule(t *testing.T) {
	w := newWorld(t)
	w.zip, w.sum = makeZip(t, module.Version{Path: "example.com/other", Version: "v1.0.0"}, sampleFiles)
	w.known[sample] = w.sum
	dir, err := w.fetch(t.Context(), w.sum)
	if err == nil {
		t.Error("a zip with the folders of another module was taken")
	}
	w.nothingLeft(dir)
}

// TestZipBomb guards against a small zip that is unpacked for ever, to be hashed, before
// anybody knows what it is.
func TestZipBomb(t *testing.T) {
	w := newWorld(t)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.CreateRaw(&zip.FileHeader{Name: sample.String() + "/a.go", Method: zip.Deflate, UncompressedSize64: 1 << 40, CompressedSize64: 2})
	if err == nil {
		_, err = f.Write([]byte{3, 0})
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	w.zip = b.Bytes()
	dir, err := w.fetch(t.Context(), w.sum)
	if err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("%v", err)
	}
	w.nothingLeft(dir)
}

func TestNoZip(t *testing.T) {
	w := newWorld(t)
	w.zip = []byte("<html>please log in</html>")
	dir, err := w.fetch(t.Context(), w.sum)
	if err == nil || !strings.Contains(err.Error(), sample.String()) || !strings.Contains(err.Error(), samplePath) {
		t.Errorf("the error does not name module and URL: %v", err)
	}
	w.nothingLeft(dir)
}

func TestFaultsThatPass(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"500": func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "oops", http.StatusInternalServerError) },
		"503": func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "oops", http.StatusServiceUnavailable) },
		"429": func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "slow down", http.StatusTooManyRequests) },
		"connection cut before the answer": func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		},
		"transfer cut": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			rw.Write(make([]byte, 500))
			panic(http.ErrAbortHandler)
		},
	} {
		for _, path := range []string{samplePath, "/sumdb/sums.example.com/lookup/example.com/!sample@v1.2.3"} {
			t.Run(name+" "+filepath.Base(path), func(t *testing.T) {
				w := newWorld(t)
				left := tries - 1
				w.answer = func(rw http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path == path && left > 0 {
						left--
						fault(rw, r)
						return true
					}
					return false
				}
				dir, err := w.fetch(t.Context(), w.sum)
				if err != nil {
					t.Fatal(err)
				}
				w.whole(dir)
				if n := w.count(path); n != tries {
					t.Errorf("%d requests, not %d", n, tries)
				}
			})
			t.Run(name+" for good "+filepath.Base(path), func(t *testing.T) {
				w := newWorld(t)
				w.special(path, fault)
				dir, err := w.fetch(t.Context(), w.sum)
				if err == nil || !strings.Contains(err.Error(), "tried 4 times") || !strings.Contains(err.Error(), sample.String()) {
					t.Errorf("%v", err)
				}
				if n := w.count(path); n != tries {
					t.Errorf("%d requests, not %d", n, tries)
				}
				w.nothingLeft(dir)
			})
		}
	}
}

// A server that stops in the middle of a transfer, and keeps the connection.
func TestSilentServer(t *testing.T) {
	w := newWorld(t)
	w.client.Patience = 300 * time.Millisecond
	w.special(samplePath, func(rw http.ResponseWriter, r *http.Request) {
		rw.Write(w.zip[:100])
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	dir, err := w.fetch(t.Context(), w.sum)
	if !errors.Is(err, stall.Err) {
		t.Errorf("%v, not %v", err, stall.Err)
	}
	w.nothingLeft(dir)
}

// What will not pass is not tried again.
func TestFaultThatStays(t *testing.T) {
	w := newWorld(t)
	w.special(samplePath, func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", http.StatusForbidden) })
	dir, err := w.fetch(t.Context(), w.sum)
	if err == nil || !strings.Contains(err.Error(), "403") || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if n := w.count(samplePath); n != 1 {
		t.Errorf("%d requests", n)
	}
	w.nothingLeft(dir)
}

func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	w.proxy.Close() // nobody listens on its port now
	dir, err := w.fetch(t.Context(), w.sum)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v, not ErrUnreachable", err)
	}
	for _, part := range []string{sample.String(), w.proxy.URL, "connection refused"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the message does not have %s: %v", part, err)
		}
	}
	w.nothingLeft(dir)
}

func TestCancel(t *testing.T) {
	for name, path := range map[string]string{
		"while the zip comes":        samplePath,
		"while the database answers": "/sumdb/sums.example.com/lookup/example.com/!sample@v1.2.3",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx, cancel := context.WithCancel(t.Context())
			w.special(path, func(rw http.ResponseWriter, r *http.Request) {
				io.WriteString(rw, "begin")
				rw.(http.Flusher).Flush()
				cancel()
				<-r.Context().Done()
			})
			dir, err := w.fetch(ctx, w.sum)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v, not Canceled", err)
			}
			if n := w.count(path); n != 1 {
				t.Errorf("%d requests", n)
			}
			w.nothingLeft(dir)
		})
	}
	t.Run("between two tries", func(t *testing.T) {
		w := newWorld(t)
		w.client.backoff = 0 // real waiting
		ctx, cancel := context.WithCancel(t.Context())
		w.special(samplePath, func(rw http.ResponseWriter, _ *http.Request) {
			http.Error(rw, "oops", http.StatusInternalServerError)
			cancel()
		})
		dir, err := w.fetch(ctx, w.sum)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, not Canceled", err)
		}
		if n := w.count(samplePath); n != 1 {
			t.Errorf("%d requests", n)
		}
		w.nothingLeft(dir)
	})
}
