package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/vex"
)

// Known is what is known of the vulnerabilities of a release, in all its variants together.
type Known struct {
	// Database is when the vulnerability database was last changed.
	Database time.Time
	// Affected affect a variant, sorted by ID and module.
	Affected []Affected

	variants int // of the release
}

// An Affected is an advisory that affects some variants of a release.
type Affected struct {
	vex.Advisory
	// Variants are the names of those, in the lock's order.
	Variants []string
}

// Fixable is how many of them a newer patch of Go heals, or this project.
func (k *Known) Fixable() (n int) {
	for _, a := range k.Affected {
		if a.Fixed != "" && a.Remedy != vex.Upstream {
			n++
		}
	}
	return n
}

// SomeVariants reports whether one of them does not affect all variants.
func (k *Known) SomeVariants() bool {
	return slices.ContainsFunc(k.Affected, func(a Affected) bool { return len(a.Variants) < k.variants })
}

// Alias is the ID that most people know it by: CVE-2026-1234, or "".
func (a Affected) Alias() string {
	i := slices.IndexFunc(a.Aliases, func(id string) bool { return strings.HasPrefix(id, "CVE-") })
	if i < 0 {
		return ""
	}
	return a.Aliases[i]
}

// HealedBy says whose business it is.
func (a Affected) HealedBy() string {
	version := strings.TrimPrefix(a.Fixed, "v")
	switch {
	case version == "":
		return "nothing yet"
	case a.Remedy == vex.NewerGo:
		return "go" + version + ": a revision follows when it is out"
	case a.Remedy == vex.Project:
		return a.Fixed + ": this project"
	case a.Module == vex.Stdlib:
		return "go" + version + ": upstream"
	default:
		return a.Fixed + ": upstream"
	}
}

// scan looks for known vulnerabilities. What is found stops no release: the step update has
// taken the newest patch of Go that there is, and what else heals is not here.
func (r *Release) scan(ctx context.Context, l *lock.Lock, _ []Part) error {
	if err := r.Tools.Scan(ctx, r.path(lockName), r.path(scansName)); err != nil {
		return err
	}
	known, err := r.known(l)
	if err != nil || known == nil {
		return cmp.Or(err, fmt.Errorf("%s is not there", r.path(scansName)))
	}
	for _, a := range known.Affected {
		r.say("scan: %s in %s %s affects %s; healed by %s", a.ID, a.Module, a.Version, strings.Join(a.Variants, ", "), a.HealedBy())
	}
	return nil
}

// known reads what the step scan found; nil if it was not done here.
func (r *Release) known(l *lock.Lock) (*Known, error) {
	scans, err := vex.ReadScans(r.path(scansName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := &Known{variants: len(l.Inputs.Variants)}
	type key struct{ id, module, version string }
	found := map[key]*Affected{}
	for _, name := range l.Inputs.VariantNames() {
		report, err := scans.Report(l.Inputs, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.path(scansName), err)
		}
		s := report.Summary()
		if k.Database.IsZero() || s.Database.Before(k.Database) {
			k.Database = s.Database
		}
		for _, a := range slices.Concat(s.NewerGo, s.Upstream, s.Project) {
			of := key{a.ID, a.Module, a.Version}
			if found[of] == nil {
				found[of] = &Affected{Advisory: a}
			}
			found[of].Variants = append(found[of].Variants, name)
		}
	}
	for a := range maps.Values(found) {
		k.Affected = append(k.Affected, *a)
	}
	slices.SortFunc(k.Affected, func(a, b Affected) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Module, b.Module), cmp.Compare(a.Version, b.Version))
	})
	return k, nil
}

// vex attaches what a scan says of images that are published. Of an image that is not, the
// release does it.
func (r *Release) vex(ctx context.Context, l *lock.Lock, _ []Part) error {
	switch {
	case r.Signer == nil:
		return nil
	case l.IsWithdrawn():
		r.say("vex: %s was withdrawn", l.Inputs.ImageVersion())
		return nil
	case l.Published == nil || !maps.Equal(l.Published.Index, l.Indexes()):
		r.say("vex: %s is not published yet: its release does this", l.Inputs.ImageVersion())
		return nil
	}
	for _, name := range l.Inputs.VariantNames() {
		if err := r.Signer.Reassess(ctx, r.path(lockName), l.Outputs[name].Index, r.path(scansName), r.Repositories); err != nil {
			return err
		}
	}
	return nil
}
