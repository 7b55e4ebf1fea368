package upstream

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// A world is upstream on loopback: a git repository, a module proxy and a checksum
// database, and a source that asks them.
type world struct {
	testing.TB
	*releasetest.Repository
	source   *Source
	warnings []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := newModuleWorld(t)
	w.Repository = releasetest.NewRepository(t, w.Release)
	w.source.Repository = w.URL
	return w
}

// newModuleWorld is a world without a git repository.
func newModuleWorld(t *testing.T) *world {
	t.Helper()
	w := &world{TB: t, Repository: &releasetest.Repository{Release: releasetest.New(t, "../..")}}
	w.source = w.from(t, w.Proxy)
	return w
}

// from is a source that has everything from the server at url.
func (w *world) from(t testing.TB, url string) *Source {
	temp := t.TempDir()
	t.Cleanup(func() {
		if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return &Source{
		Modules:    &modproxy.Client{Proxies: url, SumDB: w.SumDB, Dir: t.TempDir(), Temp: temp},
		Repository: strings.Replace(w.URL, w.Proxy, url, 1),
		Warn:       func(format string, args ...any) { w.warnings = append(w.warnings, fmt.Sprintf(format, args...)) },
	}
}

// update updates the inputs of the lock, which must work.
func (w *world) update(wish Wish) *Update {
	w.Helper()
	u, err := w.source.Update(w.Context(), w.Inputs, wish)
	if err != nil {
		w.Fatal(err)
	}
	return u
}

// refused makes an update that must not work, and returns why.
func (w *world) refused(wish Wish, parts ...string) error {
	w.Helper()
	u, err := w.source.Update(w.Context(), w.Inputs, wish)
	if err == nil || u != nil {
		w.Fatalf("there is an update: %+v", u)
	}
	w.contains(err.Error(), parts...)
	return err
}

func (w *world) contains(text string, parts ...string) {
	w.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			w.Errorf("%q is not in: %s", part, text)
		}
	}
}

// warned checks that there was one warning with each of the texts, and no other.
func (w *world) warned(texts ...string) {
	w.Helper()
	if len(w.warnings) != len(texts) {
		w.Errorf("%d warnings, want %d: %q", len(w.warnings), len(texts), w.warnings)
		return
	}
	for i, text := range texts {
		w.contains(w.warnings[i], text)
	}
}

// next commits the next release's files and publishes them.
func (w *world) next(version string, files map[string]string) {
	w.Helper()
	w.Commit(w, map[string]string{"VERSION.txt": version})
	w.Commit(w, files)
	w.Publish(w, version)
}

// answer makes the server answer requests whose path ends so, and no others, with
// a status and a text.
func (w *world) answer(suffix string, status int, text string) {
	w.Intercept(func(rw http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, suffix) {
			return false
		}
		rw.WriteHeader(status)
		fmt.Fprint(rw, text)
		return true
	})
}

// addRoots makes the module proxy have a version of the CA roots.
func (w *world) addRoots(version string) {
	w.Add(w, module.Version{Path: lock.RootsModule, Version: version}, "module "+lock.RootsModule+"\n", nil)
}

func (w *world) write(name, content string) string {
	w.Helper()
	name = filepath.Join(w.TempDir(), name)
	if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
		w.Fatal(err)
	}
	return name
}
