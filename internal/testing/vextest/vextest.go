// Package vextest makes small vulnerability databases for tests, and what scans with them say.
package vextest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/vex"
)

// An Entry is an advisory of a small database.
type Entry struct {
	// ID is as the database's, Module is the path of the one that is vulnerable until Fixed, a
	// version without v; empty for one that nothing heals.
	ID, Module, Fixed string
	// Package is the package of the vulnerable function.
	Package, Function string
}

// Modified is when a small database was last changed.
const Modified = "2026-08-21T00:00:00Z"

// Database makes a folder in the form of https://go.dev/security/vuln/database.
func Database(t testing.TB, entries ...Entry) string {
	t.Helper()
	type object = map[string]any
	dir := t.TempDir()
	write := func(name string, v any) {
		data, err := json.Marshal(v)
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".json"), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var modules []object
	for _, e := range entries {
		events := []object{{"introduced": "0"}}
		if e.Fixed != "" {
			events = append(events, object{"fixed": e.Fixed})
		}
		write("ID/"+e.ID, object{
			"schema_version": "1.3.1", "id": e.ID, "modified": Modified, "published": Modified, "aliases": []string{"CVE-of-" + e.ID}, "summary": "a fault in " + e.Package,
			"affected": []object{{
				"package":            object{"name": e.Module, "ecosystem": "Go"},
				"ranges":             []object{{"type": "SEMVER", "events": events}},
				"ecosystem_specific": object{"imports": []object{{"path": e.Package, "symbols": []string{e.Function}}}},
			}},
		})
		i := slices.IndexFunc(modules, func(m object) bool { return m["path"] == e.Module })
		if i < 0 {
			i, modules = len(modules), append(modules, object{"path": e.Module, "vulns": []object{}})
		}
		modules[i]["vulns"] = append(modules[i]["vulns"].([]object), object{"id": e.ID, "modified": Modified, "fixed": e.Fixed})
	}
	write("index/db", object{"modified": Modified})
	write("index/modules", modules)
	return dir
}

// Scans are those of the entrypoint and of all programs of a lock, as if each of the
// programs had these findings.
func Scans(in lock.Inputs, findings ...vex.Finding) vex.Scans {
	modified, err := time.Parse(time.RFC3339, Modified)
	if err != nil {
		panic(err)
	}
	scan := func(program string, own bool, findings ...vex.Finding) *vex.Scan {
		return &vex.Scan{Program: program, Own: own, Tailscale: in.Tailscale.Version, Go: in.Go.Version, Modified: modified, Findings: findings}
	}
	scans := vex.Scans{scan(plan.Entrypoint, true)}
	for _, p := range in.Programs {
		scans = append(scans, scan(p.Name(), in.SourceOf(p).Own(), findings...))
	}
	return scans
}
