package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	openvex "github.com/openvex/go-vex/pkg/vex"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/testing/vextest"
	"github.com/xavieralpha/derper/internal/vex"
)

// TestScan guards against a document that says of code which a program calls that it does not
// matter, or that cries wolf: from the source of a small release, with the real govulncheck, to
// the file that build attest writes.
func TestScan(t *testing.T) {
	need.Minutes(t, "compiles govulncheck")
	r := releasetest.New(t, "../..")
	r.Forward("golang.org/x/") // what govulncheck is made of
	t.Setenv("GOPROXY", r.Proxy)
	t.Setenv("XDG_CACHE_HOME", releasetest.CacheDir(t))
	r.Inputs.Platforms = []lock.Platform{"linux/amd64"}
	lockFile, dir := r.Lock(t), t.TempDir()
	scans, layout := filepath.Join(dir, "scans.json"), filepath.Join(dir, "dist")
	e := standard()
	e.sumDB = r.SumDB
	build := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		if code := e.program().Run(t.Context(), append(args, "--lock", lockFile), &out, &errs); code != want {
			t.Fatalf("%q: exit code %d, want %d: %s", args, code, want, &errs)
		}
		return out.String(), errs.String()
	}
	// derper calls dep.Name; nothing calls the other one.
	database := vextest.Database(t,
		vextest.Entry{ID: "GO-1", Module: "example.com/dep", Fixed: "1.1.0", Package: "example.com/dep", Function: "Name"},
		vextest.Entry{ID: "GO-2", Module: "example.com/dep", Package: "example.com/dep", Function: "Unused"})
	build(cli.ExitOK, "--platform", "all", "--output", layout, "--update-lock")
	if _, stderr := build(cli.ExitFailed, "scan", "--vulndb", dir); !strings.Contains(stderr, dir+" is no vulnerability database") {
		t.Errorf("no database: %s", stderr)
	}
	stdout, _ := build(cli.ExitOK, "scan", "--vulndb", database, "--output", scans, "--json")
	var result scanResult
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || !strings.Contains(stdout, `"newerGo": []`) {
		t.Fatalf("%v: %s", err, stdout)
	}
	for _, v := range result.Variants {
		if v.Variant != lock.Default || len(v.Upstream) != 1 || v.Upstream[0].ID != "GO-1" || v.NotAffected != 1 {
			t.Errorf("%+v", v)
		}
	}
	build(cli.ExitOK, "attest", "--output", dir, "--scans", scans, "--to", "registry.example.com/derper", layout)
	data, err := os.ReadFile(filepath.Join(dir, "openvex.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openvex.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	got := map[openvex.VulnerabilityID]openvex.Status{}
	for _, s := range doc.Statements {
		got[s.Vulnerability.Name] = s.Status
	}
	if len(doc.Statements) != 2 || got["GO-1"] != openvex.StatusAffected || got["GO-2"] != openvex.StatusNotAffected {
		t.Errorf("%v in\n%s", got, data)
	}
}

// TestScanText guards what people read of a scan.
func TestScanText(t *testing.T) {
	finding := func(id, module, fixed string) vex.Advisory {
		return vex.Advisory{Finding: vex.Finding{ID: id, Module: module, Version: "v1.0.0", Fixed: fixed, Summary: "what it is"}}
	}
	day := time.Date(2026, 8, 21, 0, 0, 0, 0, time.UTC)
	result := &scanResult{Version: "1.102.3-r1", Variants: []scannedVariant{
		{lock.Default, vex.Summary{Database: day}},
		{"debug", vex.Summary{
			Database: day, NotAffected: 2,
			NewerGo: []vex.Advisory{finding("GO-1", vex.Stdlib, "v1.0.1")}, Upstream: []vex.Advisory{finding("GO-2", "a.example/b", "")}, Project: []vex.Advisory{finding("GO-3", "a.example/c", "v1.2.0")},
		}},
	}}
	var b strings.Builder
	if err := render(&b, scanText, result); err != nil {
		t.Fatal(err)
	}
	want := `1.102.3-r1
default: vulnerability database of 2026-08-21
nothing that is known affects it

debug: vulnerability database of 2026-08-21
affected  GO-1  stdlib v1.0.0       fixed by a newer Go: v1.0.1         what it is
affected  GO-2  a.example/b v1.0.0  upstream has to fix it              what it is
affected  GO-3  a.example/c v1.0.0  this project has to fix it: v1.2.0  what it is
2 advisories about modules that it links do not affect it
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
}
