package modproxy

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/note"
)

func TestSum(t *testing.T) {
	w := newWorld(t)
	for range 2 { // from the database, and from what is kept of it
		if got, err := w.client.Sum(t.Context(), sample); err != nil || got != w.sum {
			t.Fatalf("%s, %v", got, err)
		}
	}
	if n := w.count("/sumdb/sums.example.com/lookup/example.com/!sample@v1.2.3"); n != 1 {
		t.Errorf("%d lookups of the same module", n)
	}
}

func TestSumOfUnknownModule(t *testing.T) {
	w := newWorld(t)
	w.client.SumDB += " " + w.proxy.URL + "/sumdb/sums.example.com"
	unknown := module.Version{Path: "example.com/unknown", Version: "v1.0.0"}
	if got, err := w.client.Sum(t.Context(), unknown); err == nil || !strings.Contains(err.Error(), unknown.String()) {
		t.Errorf("%s, %v", got, err)
	}
}

// An answer that another key signed counts for nothing.
func TestForgedDatabase(t *testing.T) {
	w := newWorld(t)
	_, other, err := note.GenerateKey(nil, "sums.example.com")
	if err != nil {
		t.Fatal(err)
	}
	w.client.SumDB = other
	dir, err := w.fetch(t.Context(), w.sum)
	if err == nil || !strings.Contains(err.Error(), "checksum database: "+sample.String()) {
		t.Errorf("%v", err)
	}
	if n := w.count(samplePath); n != 0 {
		t.Errorf("%d requests for the zip", n)
	}
	w.nothingLeft(dir)
}

// A database that forgets what it said is caught by the tree head that is kept,
// also when what else was kept of it is gone.
func TestRewrittenDatabase(t *testing.T) {
	w := newWorld(t)
	skey, vkey, err := note.GenerateKey(nil, "sums.example.com")
	if err != nil {
		t.Fatal(err)
	}
	w.client.SumDB = vkey
	serve := func(sum string) {
		db := database(skey, func(module.Version) string { return sum })
		lookup := httptest.NewRequest("GET", "/lookup/example.com/!sample@v1.2.3", nil)
		db.ServeHTTP(httptest.NewRecorder(), lookup) // which puts it in
		w.answer = func(rw http.ResponseWriter, r *http.Request) bool {
			path, ok := strings.CutPrefix(r.URL.Path, "/sumdb/sums.example.com")
			if ok {
				r.URL.Path = path
				db.ServeHTTP(rw, r)
			}
			return ok
		}
	}
	serve(w.sum)
	if _, err := w.client.Sum(t.Context(), sample); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.client.Dir, "cache")); err != nil {
		t.Fatal(err)
	}
	_, evil := makeZip(t, sample, nil)
	serve(evil)
	if got, err := w.client.Sum(t.Context(), sample); err == nil || !strings.Contains(err.Error(), "inconsistent") {
		t.Errorf("%s, %v", got, err)
	}
}

// What is kept of the database is a cache: damage to it costs a request.
func TestDamagedTiles(t *testing.T) {
	for name, damage := range map[string]func(data []byte) []byte{
		"flipped": func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		"cut":     func(data []byte) []byte { return data[:len(data)/2] },
		"empty":   func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if _, err := w.client.Sum(t.Context(), sample); err != nil {
				t.Fatal(err)
			}
			damaged := 0
			err := filepath.WalkDir(filepath.Join(w.client.Dir, "cache"), func(name string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				damaged++
				return os.WriteFile(name, damage(data), 0o666)
			})
			if err != nil || damaged < 2 {
				t.Fatalf("%d files damaged, %v", damaged, err)
			}
			if got, err := w.client.Sum(t.Context(), sample); err != nil || got != w.sum {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

// GOSUMDB=off and the like are not for this program: without a key, the key is
// that of sum.golang.org.
func TestDefaultKey(t *testing.T) {
	verifier, err := note.NewVerifier(goSumDB)
	if err != nil {
		t.Fatal(err)
	}
	if verifier.Name() != "sum.golang.org" {
		t.Errorf("the key of %s", verifier.Name())
	}
	w := newWorld(t)
	w.client.SumDB = ""
	w.answer = func(rw http.ResponseWriter, r *http.Request) bool { rw.WriteHeader(http.StatusForbidden); return true }
	if _, err := w.client.Sum(t.Context(), sample); err == nil {
		t.Error("a sum from nowhere")
	}
	if n := w.count("/sumdb/sum.golang.org/lookup/example.com/!sample@v1.2.3"); n != 1 {
		t.Errorf("not asked: %v", w.requests)
	}
	w.client.SumDB = "sum.golang.org"
	if _, err := w.client.Sum(t.Context(), sample); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("a name without a key: %v", err)
	}
}
