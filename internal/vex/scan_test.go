package vex_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/testing/vextest"
	"github.com/xavieralpha/derper/internal/toolchain"
	"github.com/xavieralpha/derper/internal/vex"
)

// A world has a small release, and the toolchain that compiles govulncheck.
type world struct {
	*releasetest.Release
	tool *toolchain.Toolchain
}

func (w *world) install(t *testing.T, client *modproxy.Client) *toolchain.Toolchain {
	t.Helper()
	dir := releasetest.CacheDir(t)
	client.Dir, client.Temp = filepath.Join(dir, "sumdb"), filepath.Join(dir, "tmp")
	tool, err := toolchain.Install(t.Context(), client, w.Inputs.Go, pipeline.Host, dir, nil, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return tool
}

// scanner compiles the real govulncheck, which comes through the user's module proxy.
func (w *world) scanner(t *testing.T, database string) *vex.Scanner {
	t.Helper()
	if w.tool == nil {
		w.tool = w.install(t, &modproxy.Client{Proxies: os.Getenv("GOPROXY")})
	}
	s, err := vex.NewScanner(t.Context(), w.tool, w.Inputs, database, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func text(s *vex.Scan) string {
	var lines []string
	for _, f := range s.Findings {
		lines = append(lines, fmt.Sprintf("%s %v %s@%s fixed %s: %d", f.ID, f.Aliases, f.Module, f.Version, f.Fixed, f.Level))
	}
	return strings.Join(lines, "\n")
}

// TestScan guards against a scan that does not tell what is called from what is only there,
// that takes no notice of build tags, or that fetches anything once everything is there.
func TestScan(t *testing.T) {
	need.Minutes(t, "compiles govulncheck")
	w := &world{Release: releasetest.New(t, "../..")}
	// The program calls dep.Name and hex.Dump, unless the tag small leaves that out. Nothing
	// imports dep/other.
	dep := w.Add(t, module.Version{Path: "example.com/dep", Version: "v1.0.0"}, "module example.com/dep\n\ngo 1.24\n", map[string]string{
		"dep.go":         "package dep\n\nfunc Name() string { return \"dep\" }\n\nfunc Unused() {}\n",
		"other/other.go": "package other\n\nfunc Name() {}\n",
	})
	m := module.Version{Path: "example.com/relay", Version: "v1.2.3"}
	in := w.Inputs
	sums := w.Add(t, m, "module example.com/relay\n\ngo 1.24\n\nrequire example.com/dep v1.0.0\n", map[string]string{
		"go.sum":           dep,
		"cmd/one/main.go":  "package main\n\nimport (\n\t_ \"encoding/hex\"\n\n\t_ \"example.com/dep\"\n)\n\nvar name = func() string { return \"\" }\n\nfunc main() { println(name()) }\n",
		"cmd/one/large.go": "//go:build !small\n\npackage main\n\nimport (\n\t\"encoding/hex\"\n\n\t\"example.com/dep\"\n)\n\nfunc init() {\n\tname = dep.Name\n\thex.Dump(nil)\n}\n",
	})
	in.Modules = []lock.Source{{Path: m.Path, Module: lock.Module{Version: m.Version, Sum: strings.Fields(sums)[2]}}}
	large, small := lock.Program{Package: "example.com/relay/cmd/one"}, lock.Program{Package: "example.com/relay/cmd/one", Tags: []string{"small"}}

	entries := []vextest.Entry{
		{ID: "GO-1", Module: "example.com/dep", Fixed: "1.0.1", Package: "example.com/dep", Function: "Name"},
		{ID: "GO-2", Module: "example.com/dep", Package: "example.com/dep", Function: "Unused"},
		{ID: "GO-3", Module: "example.com/dep", Fixed: "1.1.0", Package: "example.com/dep/other", Function: "Name"},
		{ID: "GO-4", Module: "example.com/dep", Fixed: "0.9.0", Package: "example.com/dep", Function: "Name"}, // not in this version
		{ID: "GO-5", Module: "example.com/relay", Fixed: "1.3.0", Package: "example.com/relay/cmd/two", Function: "main"},
		{ID: "GO-6", Module: "example.com/absent", Package: "example.com/absent", Function: "Name"}, // not linked
		{ID: "GO-7", Module: vex.Stdlib, Fixed: strings.TrimPrefix(w.Inputs.Go.Version, "go") + "1", Package: "encoding/hex", Function: "Dump"},
		{ID: "GO-8", Module: vex.Stdlib, Package: "image/png", Function: "Decode"},
	}
	goVersion := "v" + strings.TrimPrefix(w.Inputs.Go.Version, "go")
	const (
		dep3 = "GO-3 [CVE-of-GO-3] example.com/dep@v1.0.0 fixed v1.1.0: 0\nGO-5 [CVE-of-GO-5] example.com/relay@v1.2.3 fixed v1.3.0: 0\n"
		dep2 = "GO-2 [CVE-of-GO-2] example.com/dep@v1.0.0 fixed : 1\n"
	)
	std := func(level vex.Level) string {
		return fmt.Sprintf("GO-7 [CVE-of-GO-7] stdlib@%s fixed %[1]s1: %d\nGO-8 [CVE-of-GO-8] stdlib@%[1]s fixed : 0", goVersion, level)
	}
	dir := vextest.Database(t, entries...)
	scanner := w.scanner(t, dir)
	tool := w.install(t, &modproxy.Client{Proxies: w.Proxy, SumDB: w.SumDB})
	scan := func(s *vex.Scanner, target vex.Target) (*vex.Scan, error) {
		return s.Scan(t.Context(), target, t.TempDir(), nil)
	}
	source := tool.Source(in.Modules[0])
	for _, test := range []struct {
		name    string
		program lock.Program
		want    string
	}{
		{"the whole program", large, "GO-1 [CVE-of-GO-1] example.com/dep@v1.0.0 fixed v1.0.1: 2\n" + dep2 + dep3 + std(vex.Called)},
		{"with a build tag", small, "GO-1 [CVE-of-GO-1] example.com/dep@v1.0.0 fixed v1.0.1: 1\n" + dep2 + dep3 + std(vex.Imported)},
	} {
		got, err := scan(scanner, vex.Program(in, test.program, source))
		if err != nil {
			t.Fatal(err)
		}
		if s := text(got); s != test.want || got.Program != "one" || got.Own || !got.Modified.Equal(time.Date(2026, 8, 21, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v\n%s\nwant\n%s", test.name, got, s, test.want)
		}
	}
	w.Close() // everything is there

	// The database from its address: the same findings.
	served := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		f, err := os.Open(filepath.Join(dir, strings.TrimSuffix(filepath.FromSlash(req.URL.Path), ".gz")))
		if err != nil {
			http.NotFound(rw, req)
			return
		}
		defer f.Close()
		zw := gzip.NewWriter(rw)
		defer zw.Close()
		io.Copy(zw, f)
	}))
	want, err := scan(scanner, vex.Program(in, large, source))
	if err != nil {
		t.Fatal(err)
	}
	remote := w.scanner(t, served.URL)
	if got, err := scan(remote, vex.Program(in, large, source)); err != nil || text(got) != text(want) {
		t.Errorf("from its address: %v, %v", got, err)
	}
	served.Close()
	if _, err := scan(remote, vex.Program(in, large, source)); err == nil || !strings.Contains(err.Error(), "scan one for known vulnerabilities: ") || !strings.Contains(err.Error(), served.URL) {
		t.Errorf("an address where nobody answers: %v", err)
	}

	// This project's own program, which requires no module.
	got, err := scan(scanner, vex.Entrypoint(tool, in.Go))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Own || got.Program != "entrypoint" || len(got.Findings) == 0 || got.Findings[0].Module != vex.Stdlib {
		t.Errorf("the entrypoint: %+v", got)
	}
}

// TestNoDatabase guards against a scan of nothing where there is no database.
func TestNoDatabase(t *testing.T) {
	dir := t.TempDir()
	if _, err := vex.NewScanner(t.Context(), nil, lock.Inputs{}, dir, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), dir+" is no vulnerability database") {
		t.Errorf("%v", err)
	}
}

// TestPinned guards against a scanner that differs from the one that the gate runs.
func TestPinned(t *testing.T) {
	steps, err := os.ReadFile("../../.ci/steps")
	if err != nil {
		t.Fatal(err)
	}
	if want := vex.Govulncheck.Path + "/cmd/govulncheck@" + vex.Govulncheck.Version + "\n"; !strings.Contains(string(steps), want) {
		t.Errorf(".ci/steps does not install %s", want)
	}
}
