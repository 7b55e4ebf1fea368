// Package vex says which known vulnerabilities of the Go vulnerability database concern an
// image: it scans each program's source with govulncheck and makes an OpenVEX document of
// what the scans find.
//
// It promises that govulncheck is the pinned one, compiled by the lock's toolchain, that it
// sees the versions of modules that a compile selects, and that it runs in the closed
// environment: only the database may come from the network. The same programs and the same
// database give the same document, byte for byte.
//
// The call graph is that of linux/amd64. An advisory that its authors restrict to other
// architectures is affected on these; what code for a single architecture calls beyond
// linux/amd64 is not seen, nor are calls by reflection, assembly or linkname. Advisories that
// the database learns of later are not in the document: its time is the database's.
//
// Specifications: https://github.com/openvex/spec, https://go.dev/security/vuln/database.
package vex

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/lock"
)

// Scanned is the platform whose call graph is asked.
const Scanned lock.Platform = "linux/amd64"

// Stdlib is the module path of the standard library in the database.
const Stdlib = "stdlib"

// A Level says how near a program comes to a vulnerability in a module that it links.
type Level int

const (
	Linked   Level = iota // no package that is vulnerable
	Imported              // a package that is, and nothing in it that is reached
	Called                // a function that is vulnerable
)

// A Scan is what govulncheck says of one program.
type Scan struct {
	// Program is the program's name.
	Program string `json:"program"`
	// Own is set if the program is of this project's own source.
	Own bool `json:"own,omitempty"`
	// Tailscale and Go are the versions in the lock that was scanned.
	Tailscale string `json:"tailscale"`
	Go        string `json:"go"`
	// Modified is when the database was last changed.
	Modified time.Time `json:"modified"`
	// Findings are sorted by ID and module. There is at most one of a module and an ID.
	Findings []Finding `json:"findings,omitempty"`
}

// A Finding is an advisory that concerns the version of a module that is linked.
type Finding struct {
	// ID is the database's: GO-2026-5932.
	ID string `json:"id"`
	// Aliases are the IDs of other databases, CVE-… and GHSA-…, sorted.
	Aliases []string `json:"aliases,omitempty"`
	Summary string   `json:"summary"`
	// Module is a module's path, Stdlib for the standard library; Version begins with v for
	// both.
	Module  string `json:"module"`
	Version string `json:"version"`
	// Fixed is the next version that is not vulnerable; "" if there is none.
	Fixed string `json:"fixed,omitempty"`
	// Arches has the architectures, in GOARCH's words, that the advisory is restricted to; nil
	// if to none.
	Arches []string `json:"arches,omitempty"`
	Level  Level    `json:"level"`
}

// A Remedy says whose business a fix is.
type Remedy int

const (
	// Upstream's: tailscale has to require another version, or another minor version of Go.
	Upstream Remedy = iota
	// NewerGo heals it: a newer patch of the same minor version.
	NewerGo
	// Project's: a module that only programs of this project link.
	Project
)

// An Advisory is a finding in all programs together.
type Advisory struct {
	Finding                      // with the highest Level
	Remedy  Remedy               `json:"-"`
	In      [Called + 1][]string `json:"in"` // names of programs by Level, sorted
}

// A Report is what is known of the programs of an image.
type Report struct {
	// Modified is when the database was last changed, before the first scan.
	Modified time.Time
	// Advisories are sorted by ID, module and version.
	Advisories []Advisory

	inputs lock.Inputs
}

// NewReport puts the scans of an image's programs together. The inputs are those of the image.
func NewReport(in lock.Inputs, scans ...*Scan) *Report {
	type key struct{ id, module, version string }
	r := &Report{inputs: in}
	found := map[key]*Advisory{}
	foreign := map[key]Level{} // how near programs that are not this project's come, plus one
	for _, s := range scans {
		if r.Modified.IsZero() || s.Modified.Before(r.Modified) {
			r.Modified = s.Modified
		}
		for _, f := range s.Findings {
			k := key{f.ID, f.Module, f.Version}
			a := found[k]
			if a == nil {
				a = &Advisory{Finding: f}
				found[k] = a
			}
			a.Level = max(a.Level, f.Level)
			a.In[f.Level] = append(a.In[f.Level], s.Program)
			if !s.Own {
				foreign[k] = max(foreign[k], f.Level+1)
			}
		}
	}
	for k, a := range found {
		for _, names := range a.In {
			slices.Sort(names)
		}
		switch {
		case a.Module == Stdlib && a.Fixed != "" && semver.MajorMinor(a.Fixed) == semver.MajorMinor(a.Version):
			a.Remedy = NewerGo
		case a.Module != Stdlib && foreign[k] <= a.Level:
			a.Remedy = Project
		}
		r.Advisories = append(r.Advisories, *a)
	}
	slices.SortFunc(r.Advisories, func(a, b Advisory) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Module, b.Module), cmp.Compare(a.Version, b.Version))
	})
	return r
}

// affects reports whether an image of a platform is affected.
func (a *Advisory) affects(p lock.Platform) bool {
	if a.Arches != nil && !slices.Contains(a.Arches, Scanned.Arch()) {
		return slices.Contains(a.Arches, p.Arch()) // and no call graph says otherwise
	}
	return a.Level == Called && a.present(p)
}

// present reports whether the vulnerable code is in an image of a platform.
func (a *Advisory) present(p lock.Platform) bool {
	return a.Level > Linked && (a.Arches == nil || slices.Contains(a.Arches, p.Arch()))
}

// A Summary is what release notes say of a report.
type Summary struct {
	// Database is when the database was last changed.
	Database time.Time `json:"database"`
	// Go is the patch that heals all of NewerGo, such as go1.26.9; "" if there is none.
	Go string `json:"go,omitempty"`
	// NewerGo, Upstream and Project affect the image, by who can heal them.
	NewerGo  []Advisory `json:"newerGo"`
	Upstream []Advisory `json:"upstream"`
	Project  []Advisory `json:"project"`
	// NotAffected is the number of advisories that do not affect it.
	NotAffected int `json:"notAffected"`
}

// Summary counts.
func (r *Report) Summary() Summary {
	s := Summary{Database: r.Modified}
	newest := ""
	for _, a := range r.Advisories {
		switch {
		case !slices.ContainsFunc(r.inputs.Platforms, a.affects):
			s.NotAffected++
		case a.Remedy == NewerGo:
			s.NewerGo = append(s.NewerGo, a)
			if semver.Compare(a.Fixed, newest) > 0 {
				newest = a.Fixed
				s.Go = goVersion(newest)
			}
		case a.Remedy == Project:
			s.Project = append(s.Project, a)
		default:
			s.Upstream = append(s.Upstream, a)
		}
	}
	return s
}
