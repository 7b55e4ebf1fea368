// Package releasetest serves a small tailscale release to tests: a module proxy and
// a checksum database on loopback, with modules of a few lines in the place of
// upstream's. Only the Go toolchain is the real one.
package releasetest

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
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
	modzip "golang.org/x/mod/zip"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/features"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// A Release is a lock's inputs and the server that has them.
type Release struct {
	// Inputs are those of the lock, with the small modules' sums.
	Inputs lock.Inputs
	// Proxy is the server's URL, for GOPROXY; SumDB its checksum database, in
	// GOSUMDB's form.
	Proxy, SumDB string

	server *httptest.Server
	real   http.Handler // has the toolchain
	db     http.Handler // checksum database

	mu       sync.Mutex
	forward  []string // what modules begin with that come from the user's module proxy
	answer   func(w http.ResponseWriter, req *http.Request) bool
	git      http.Handler // has the repository, if there is one
	project  *Project     // this project, if it is served
	infos    map[module.Version][]byte
	zips     map[module.Version][]byte
	mods     map[module.Version][]byte
	sums     map[module.Version]string
	requests []string
}

// New serves the release until the test ends. The real lock, versions.json, is read
// from root, the folder of this repository as seen from the test.
func New(t testing.TB, root string) *Release {
	t.Helper()
	l, err := lock.Read(filepath.Join(root, lock.File))
	if err != nil {
		t.Fatal(err)
	}
	r := &Release{
		Inputs: l.Inputs,
		zips:   map[module.Version][]byte{},
		mods:   map[module.Version][]byte{},
		sums:   map[module.Version]string{},
		infos:  map[module.Version][]byte{},
	}
	// One variant, of programs whose source has no features.
	if r.Inputs, err = r.Inputs.Of(lock.Default); err != nil {
		t.Fatal(err)
	}
	for i := range r.Inputs.Programs {
		r.Inputs.Programs[i].Features, r.Inputs.Programs[i].Tags = nil, nil
	}
	r.Inputs.Platforms, r.Inputs.Revision = []lock.Platform{"linux/amd64", "linux/arm64", "linux/arm/v6"}, 0
	for _, host := range lock.Hosts {
		r.sums[l.Inputs.Go.Module(host)] = l.Inputs.Go.Sums[host]
	}
	upstream := os.Getenv("GOPROXY")
	if upstream = strings.FieldsFunc(upstream+","+modproxy.DefaultProxy, func(c rune) bool { return c == ',' || c == '|' })[0]; !strings.HasPrefix(upstream, "http") {
		upstream = modproxy.DefaultProxy
	}
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	r.real = &httputil.ReverseProxy{Rewrite: func(req *httputil.ProxyRequest) { req.SetURL(target) }}

	signer, verifier, err := note.GenerateKey(rand.Reader, "sum.example.com")
	if err != nil {
		t.Fatal(err)
	}
	r.db = http.StripPrefix("/sumdb/sum.example.com", sumdb.NewServer(sumdb.NewTestServer(signer, r.goSum)))
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	r.Proxy, r.SumDB = r.server.URL, verifier

	dep := module.Version{Path: "example.com/dep", Version: "v1.0.0"}
	depSum := r.Add(t, dep, "module example.com/dep\n\ngo 1.24\n", map[string]string{
		"LICENSE": "dep's licence\n",
		"dep.go":  "package dep\n\nfunc Name() string { return \"dep\" }\n",
	})
	main := module.Version{Path: lock.TailscaleModule, Version: r.Inputs.Tailscale.Version}
	r.Add(t, main, "module tailscale.com\n\ngo 1.24\n\nrequire example.com/dep v1.0.0\n", map[string]string{
		"LICENSE":                 "tailscale's licence\n",
		"go.sum":                  depSum,
		features.File:             FeatureSource(featuresOf(r.Inputs.Programs)),
		"version/version.go":      "package version\n\nvar shortStamp, longStamp, gitCommitStamp string\n\nfunc Long() string { return longStamp }\nfunc Commit() string { return gitCommitStamp }\nfunc Short() string { return shortStamp }\n",
		"cmd/derper/main.go":      "package main\n\nimport (\n\t\"example.com/dep\"\n\t\"tailscale.com/version\"\n)\n\nfunc main() { println(dep.Name(), version.Long()) }\n",
		"other/derper/main.go":    "package main\n\nfunc main() { println(\"another program of that name\") }\n",
		"cmd/tailscaled/main.go":  "package main\n\nimport \"tailscale.com/version\"\n\nfunc main() { println(version.Short(), version.Commit()) }\n",
		"testdata/LICENSE":        "of test data\n",
		"internal/unused/LICENSE": "of a folder\n",
	})
	r.Inputs.Tailscale.Sum = r.sums[main]
	r.Inputs.Roots = r.AddRoots(t, r.Inputs.Roots.Version, Root{Name: "Free Root"}, Root{Name: "Constrained Root", Constrained: true})
	return r
}

// Add adds a module and returns its go.sum lines.
func (r *Release) Add(t testing.TB, m module.Version, goMod string, files map[string]string) string {
	t.Helper()
	var list []modzip.File
	list = append(list, memFile{"go.mod", []byte(goMod)})
	for name, content := range files {
		list = append(list, memFile{name, []byte(content)})
	}
	var b bytes.Buffer
	if err := modzip.Create(&b, m, list); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.zips[m], r.mods[m], r.sums[m] = b.Bytes(), []byte(goMod), hashZip(t, b.Bytes())
	return fmt.Sprintf("%s %s %s\n%[1]s %[2]s/go.mod %[4]s\n", m.Path, m.Version, r.sums[m], hashMod(t, []byte(goMod)))
}

// Tamper changes the zip that the proxy serves, but not the checksum database.
func (r *Release) Tamper(t testing.TB, m module.Version) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	old, err := zip.NewReader(bytes.NewReader(r.zips[m]), int64(len(r.zips[m])))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range old.File {
		if err := w.Copy(f); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.Create(m.String() + "/evil.go")
	if err == nil {
		_, err = io.WriteString(f, "package evil\n")
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.zips[m] = b.Bytes()
}

// Lock writes a lock without outputs and returns its name.
func (r *Release) Lock(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), lock.File)
	if err := (&lock.Lock{Schema: lock.SchemaVersion, Inputs: r.Inputs}).Write(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// Requests are the paths of the modules' files that were asked for.
func (r *Release) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.requests...)
}

// Close makes the server unreachable.
func (r *Release) Close() { r.server.Close() }

func (r *Release) goSum(path, version string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := module.Version{Path: path, Version: version}
	r.fetch(m)
	sum, ok := r.sums[m]
	if !ok {
		return nil, fs.ErrNotExist
	}
	lines := fmt.Sprintf("%s %s %s\n", path, version, sum)
	if mod, ok := r.mods[m]; ok {
		h, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(mod)), nil })
		if err != nil {
			return nil, err
		}
		lines += fmt.Sprintf("%s %s/go.mod %s\n", path, version, h)
	}
	return []byte(lines), nil
}

// Intercept makes answer the first to see a request, which it has dealt with when
// it returns true.
func (r *Release) Intercept(answer func(w http.ResponseWriter, req *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// ServeHTTP answers for the module proxy, the checksum database and the repository.
func (r *Release) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	answer, git := r.answer, r.git
	r.mu.Unlock()
	switch {
	case answer != nil && answer(w, req):
	case strings.HasPrefix(req.URL.Path, repositoryPath) && git != nil:
		git.ServeHTTP(w, req)
	case !strings.HasPrefix(req.URL.Path, "/sumdb/"):
		r.serveModule(w, req)
	case !strings.HasSuffix(req.URL.Path, "/supported"):
		r.db.ServeHTTP(w, req)
	}
}

func (r *Release) serveModule(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.URL.Path)
	r.mu.Unlock()
	path, file, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/@v/")
	if file == "list" {
		r.mu.Lock()
		defer r.mu.Unlock()
		for m := range r.sums {
			if m.Path == path {
				fmt.Fprintln(w, m.Version)
			}
		}
		return
	}
	ext := filepath.Ext(file)
	m := module.Version{Path: path, Version: strings.TrimSuffix(file, ext)}
	r.mu.Lock()
	r.fetch(m)
	archive, mod, info, project := r.zips[m], r.mods[m], r.infos[m], r.project
	_, known := r.sums[m]
	r.mu.Unlock()
	switch {
	case ok && !known && project != nil:
		project.serve(w, req)
	case !ok || !known:
		http.NotFound(w, req)
	case ext == ".info" && info != nil:
		w.Write(info)
	case ext == ".info":
		fmt.Fprintf(w, `{"Version":%q,"Time":%q}`, m.Version, r.Inputs.Tailscale.Time.Format(time.RFC3339))
	case ext == ".mod":
		w.Write(mod)
	case ext == ".zip" && archive == nil: // the toolchain
		r.real.ServeHTTP(w, req)
	case ext == ".zip":
		w.Write(archive)
	default:
		http.NotFound(w, req)
	}
}

func hashZip(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "module.zip")
	err := os.WriteFile(name, data, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := dirhash.HashZip(name, dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func hashMod(t testing.TB, data []byte) string {
	t.Helper()
	sum, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// memFile is a file of a module that is made in memory.
type memFile struct {
	name string
	data []byte
}

func (f memFile) Path() string                 { return f.name }
func (f memFile) Lstat() (os.FileInfo, error)  { return f, nil }
func (f memFile) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.data)), nil }
func (f memFile) Name() string                 { return filepath.Base(f.name) }
func (f memFile) Size() int64                  { return int64(len(f.data)) }
func (f memFile) Mode() fs.FileMode            { return 0o644 }
func (f memFile) ModTime() time.Time           { return time.Time{} }
func (f memFile) IsDir() bool                  { return false }
func (f memFile) Sys() any                     { return nil }

// CacheDir makes a cache folder of the test's own that shares the toolchain and the
// compiled packages with other tests, so that the toolchain is fetched once.
func CacheDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	ShareInto(t, dir)
	// The module cache is read-only, which t.TempDir's own clean-up cannot handle.
	t.Cleanup(func() { cache.RemoveAll(dir) })
	return dir
}

// UserCacheDir is CacheDir for the real programs, whose packages the user's own cache has
// compiled.
func UserCacheDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	share(t, dir, func() (string, error) {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		packages := filepath.Join(user, "derper", "go-build")
		return packages, os.MkdirAll(packages, 0o755)
	})
	t.Cleanup(func() { cache.RemoveAll(dir) })
	return dir
}

// ShareInto makes the folder dir a cache as CacheDir's.
func ShareInto(t testing.TB, dir string) {
	t.Helper()
	share(t, dir, sharedPackages)
}

func share(t testing.TB, dir string, packages func() (string, error)) {
	t.Helper()
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for sub, shared := range map[string]func() (string, error){"toolchain": sharedToolchain, "go-build": packages} {
		folder, err := shared()
		if err == nil {
			err = os.Symlink(folder, filepath.Join(dir, sub))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
