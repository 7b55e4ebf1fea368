package vex

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
)

// message is one of what govulncheck prints with -format json.
// Source: golang.org/x/vuln/internal/govulncheck, protocol v1.0.0.
type message struct {
	Config *struct {
		Protocol string     `json:"protocol_version"`
		Modified *time.Time `json:"db_last_modified"`
		Go       string     `json:"go_version"`
		Level    string     `json:"scan_level"`
		Mode     string     `json:"scan_mode"`
	} `json:"config"`
	SBOM *struct {
		Roots []string `json:"roots"`
	} `json:"SBOM"`
	OSV     *entry `json:"osv"`
	Finding *struct {
		OSV   string `json:"osv"`
		Fixed string `json:"fixed_version"`
		// The first frame is what is vulnerable: a module, a package or a function.
		Trace []struct {
			Module   string `json:"module"`
			Version  string `json:"version"`
			Package  string `json:"package"`
			Function string `json:"function"`
		} `json:"trace"`
	} `json:"finding"`
}

// entry is an entry of the database.
// Source: https://go.dev/security/vuln/database#schema.
type entry struct {
	ID       string   `json:"id"`
	Aliases  []string `json:"aliases"`
	Summary  string   `json:"summary"`
	Details  string   `json:"details"`
	Affected []struct {
		Package struct {
			Name string `json:"name"`
		} `json:"package"`
		Specific struct {
			Imports []struct {
				OS   []string `json:"goos"`
				Arch []string `json:"goarch"`
			} `json:"imports"`
		} `json:"ecosystem_specific"`
	} `json:"affected"`
}

// parse reads what govulncheck prints of a package, compiled with a version of Go.
func parse(r io.Reader, goVersion, pkg string) (*Scan, error) {
	scan := new(Scan)
	var roots []string
	entries := map[string]*entry{}
	found := map[module.Version]*Finding{} // by module and ID
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		switch {
		case m.Config != nil:
			c := m.Config
			if !strings.HasPrefix(c.Protocol, "v1.") || c.Level != "symbol" || c.Mode != "source" {
				return nil, fmt.Errorf("it has the protocol %q, level %q, mode %q; expected v1, symbol, source", c.Protocol, c.Level, c.Mode)
			}
			if c.Go != goVersion {
				return nil, fmt.Errorf("it looked at the standard library of %q, the lock has %s", c.Go, goVersion)
			}
			if c.Modified == nil {
				return nil, errors.New("the database does not say when it was changed (index/db.json)")
			}
			scan.Modified = c.Modified.UTC()
		case m.SBOM != nil:
			roots = m.SBOM.Roots
		case m.OSV != nil:
			entries[m.OSV.ID] = m.OSV
		case m.Finding != nil && len(m.Finding.Trace) > 0:
			// There is one for each step on the way to a function, and one for each function.
			top := m.Finding.Trace[0]
			k := module.Version{Path: top.Module, Version: m.Finding.OSV}
			if found[k] == nil {
				found[k] = &Finding{ID: m.Finding.OSV, Module: top.Module, Version: top.Version, Fixed: m.Finding.Fixed}
			}
			level := Linked
			if top.Function != "" {
				level = Called
			} else if top.Package != "" {
				level = Imported
			}
			found[k].Level = max(found[k].Level, level)
		}
	}
	if scan.Modified.IsZero() || !slices.Equal(roots, []string{pkg}) {
		return nil, fmt.Errorf("it looked at %q, expected %s", roots, pkg)
	}
	for _, f := range found {
		e := entries[f.ID]
		if e == nil {
			return nil, fmt.Errorf("it does not say what %s is", f.ID)
		}
		f.describe(e)
		scan.Findings = append(scan.Findings, *f)
	}
	slices.SortFunc(scan.Findings, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Module, b.Module)) })
	return scan, nil
}

// describe adds what the database's entry says. govulncheck does not look at the systems that
// an entry is restricted to.
func (f *Finding) describe(e *entry) {
	f.Aliases = slices.Sorted(slices.Values(e.Aliases))
	f.Summary = cmp.Or(e.Summary, e.Details)
	restricted, everywhere := false, false
	for _, a := range e.Affected {
		if a.Package.Name != f.Module {
			continue
		}
		if len(a.Specific.Imports) == 0 {
			everywhere = true
		}
		for _, i := range a.Specific.Imports {
			switch {
			case len(i.OS) > 0 && !slices.Contains(i.OS, Scanned.OS()):
				restricted = true
			case len(i.Arch) > 0:
				restricted = true
				f.Arches = append(f.Arches, i.Arch...)
			default:
				everywhere = true
			}
		}
	}
	switch {
	case everywhere || !restricted:
		f.Arches = nil
	case f.Arches == nil:
		f.Level = Linked // the code is in programs of another system
	default:
		slices.Sort(f.Arches)
		f.Arches = slices.Compact(f.Arches)
	}
}
