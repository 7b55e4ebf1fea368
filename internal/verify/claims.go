package verify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// The names of what an image claims, as package image writes them.
const (
	claimVersion     = "org.opencontainers.image.version"
	claimCommit      = "org.opencontainers.image.revision"
	claimCreated     = "org.opencontainers.image.created"
	claimGo          = image.Prefix + "go"
	claimRoots       = image.Prefix + "roots"
	claimLayerFormat = image.Prefix + "layer-format"
)

// claims is what an image says it is made of.
func (f *found) claims() (*Claims, error) {
	// The same stands in several places, one of which may have been changed: what
	// most of them say counts, and what another says is found when it is compared.
	// At a tie it is the index before the images.
	places := []map[string]string{f.annotations}
	for _, img := range f.images {
		places = append(places, img.annotations, img.configFile.Config.Labels)
	}
	var missing string
	claim := func(name string) string {
		count, best := map[string]int{}, ""
		for _, place := range places {
			if v := place[name]; v != "" {
				count[v]++
			}
		}
		for _, place := range places {
			if v := place[name]; count[v] > count[best] {
				best = v
			}
		}
		if best == "" && missing == "" {
			missing = name
		}
		return best
	}
	r := &Claims{
		Version: "v" + claim(claimVersion),
		Commit:  claim(claimCommit),
		Go:      claim(claimGo),
		Roots:   claim(claimRoots),
	}
	created, format := claim(claimCreated), claim(claimLayerFormat)
	if missing != "" {
		return nil, fmt.Errorf("%w: nothing in it says %s", image.ErrForeign, missing)
	}
	var err error
	if r.Time, err = time.Parse(time.RFC3339, created); err != nil {
		return nil, fmt.Errorf("claims %s %s: %w", claimCreated, diff.Printable(created), image.ErrForeign)
	}
	r.Time = r.Time.UTC()
	if r.LayerFormat, err = strconv.Atoi(format); err != nil {
		return nil, fmt.Errorf("claims %s %s: %w", claimLayerFormat, diff.Printable(format), image.ErrForeign)
	}
	return r, nil
}

// inputs makes a lock's inputs again from what an image claims: every sum comes from
// the checksum database, and the time from the module proxy. The image is trusted in
// nothing but which release it is to be compared with. The checks say what of the
// claims could be checked.
func (v *Verifier) inputs(ctx context.Context, r *Claims, platforms []lock.Platform) (in lock.Inputs, checks []Check, err error) {
	in = lock.Inputs{
		Tailscale:   lock.Tailscale{Version: r.Version, Commit: r.Commit, Time: r.Time},
		Go:          lock.Go{Version: r.Go, Sums: map[string]string{}},
		Roots:       lock.Module{Version: r.Roots},
		Platforms:   platforms,
		LayerFormat: r.LayerFormat,
	}
	if r.LayerFormat != lock.LayerFormat {
		return in, nil, fmt.Errorf("its layers are of format %d, this program writes format %d: verify with the program of the revision that made the image", r.LayerFormat, lock.LayerFormat)
	}
	if checks, err = v.sums(ctx, in); err != nil {
		return in, checks, err
	}
	in.Tailscale.Sum, in.Roots.Sum = checks[0].Rebuilt, checks[len(checks)-1].Rebuilt
	for i, host := range lock.Hosts {
		in.Go.Sums[host] = checks[1+i].Rebuilt
	}
	// The form of what is claimed is checked as a lock's is.
	if _, err := (&lock.Lock{Schema: lock.SchemaVersion, Inputs: in}).Bytes(); err != nil {
		return in, checks, fmt.Errorf("%w: %w", image.ErrForeign, err)
	}
	origin, err := v.time(ctx, r, &in, &checks)
	if err != nil {
		return in, checks, err
	}
	proof, err := v.prove(ctx, in.Tailscale)
	if err != nil {
		return in, checks, err
	}
	checks = append(checks, v.commit(r, origin, proof))
	if proof != nil {
		checks = append(checks, *proof)
	}
	return in, checks, nil
}

// input is a module that a release is made of, with its sum.
type input struct {
	module.Version
	sum string
}

// modules are those of a lock's inputs: tailscale's first, the roots' last.
func modules(in lock.Inputs) []input {
	list := []input{{module.Version{Path: lock.TailscaleModule, Version: in.Tailscale.Version}, in.Tailscale.Sum}}
	for _, host := range lock.Hosts {
		list = append(list, input{in.Go.Module(host), in.Go.Sums[host]})
	}
	return append(list, input{module.Version{Path: lock.RootsModule, Version: in.Roots.Version}, in.Roots.Sum})
}

// sums asks the checksum database for the sums of all modules of the inputs.
func (v *Verifier) sums(ctx context.Context, in lock.Inputs) (checks []Check, err error) {
	for _, m := range modules(in) {
		if err := module.Check(m.Path, m.Version.Version); err != nil {
			return checks, fmt.Errorf("claims %s: %w: %w", diff.Printable(m.String()), image.ErrForeign, err)
		}
		sum, err := v.Modules.Sum(ctx, m.Version)
		if modproxy.NotServed(err) {
			return checks, fmt.Errorf("claims to be made of %s, which the checksum database does not know: %w", m, err)
		}
		if err != nil {
			return checks, err
		}
		checks = append(checks, Check{Level: LevelInput, Name: m.String(), Result: Pass, Rebuilt: sum, Note: "the sum is the checksum database's"})
	}
	return checks, nil
}

// time checks the commit time, which is every time stamp in the image, against what
// the module proxy says, and takes that. It returns the commit that the proxy names,
// "" if it names none.
func (v *Verifier) time(ctx context.Context, r *Claims, in *lock.Inputs, checks *[]Check) (commit string, err error) {
	info, err := v.Modules.Info(ctx, module.Version{Path: lock.TailscaleModule, Version: r.Version})
	if err != nil {
		return "", err
	}
	at := info.Time.Truncate(time.Second) // as git has it
	c := Check{Level: LevelInput, Name: "commit time", Result: Pass, Rebuilt: at.Format(time.RFC3339), Image: r.Time.Format(time.RFC3339), Note: "the time is the module proxy's"}
	if !at.Equal(r.Time) {
		c.Result, c.Note = Fail, fmt.Sprintf("the image claims that the commit is of %s, the module proxy says %s", c.Image, c.Rebuilt)
	}
	in.Tailscale.Time = at
	*checks = append(*checks, c)
	if info.Origin != nil && info.Origin.Ref == "refs/tags/"+r.Version {
		commit = info.Origin.Hash
	}
	return commit, nil
}

// commit checks the commit, which is stamped into the programs, as far as there is
// something to check it against. No checksum database knows of commits.
func (v *Verifier) commit(r *Claims, origin string, proof *Check) Check {
	c := Check{Level: LevelInput, Name: "commit", Result: Skip, Image: r.Commit, Note: "the image's own claim; nothing here says otherwise, nothing confirms it"}
	proven, locked := "", ""
	if proof != nil && proof.Result == Pass {
		proven = r.Commit
	}
	if v.sameRelease(r) {
		locked = v.Lock.Inputs.Tailscale.Commit
	}
	for _, o := range []struct{ commit, who string }{{proven, "the git tag"}, {locked, "the lock at hand"}, {origin, "the module proxy"}} {
		switch o.commit {
		case "":
		case r.Commit:
			if c.Result == Skip {
				c.Result, c.Rebuilt, c.Note = Pass, o.commit, o.who+" names the same"
			}
		default:
			c.Result, c.Rebuilt = Fail, o.commit
			c.Note = fmt.Sprintf("the image claims commit %s, %s says %s", r.Commit, o.who, o.commit)
		}
	}
	return c
}

// prove proves from upstream's git repository that a release is one source. It
// returns nil when no proof is asked for.
func (v *Verifier) prove(ctx context.Context, t lock.Tailscale) (*Check, error) {
	if v.Source == nil {
		return nil, nil
	}
	c := &Check{Level: LevelInput, Name: "source " + t.Version, Result: Pass, Rebuilt: t.Commit,
		Note: "the git tag names the commit, and the commit's tree is the module that the checksum database knows"}
	err := v.Source.Prove(ctx, t)
	switch {
	case err == nil:
	case errors.As(err, new(*upstream.MissingError)), errors.As(err, new(*upstream.Disagreement)), errors.As(err, new(*modproxy.SumError)):
		c.Result, c.Rebuilt, c.Image, c.Note = Fail, "", t.Commit, diff.Printable(err.Error())
	default:
		return nil, fmt.Errorf("source: %w", err)
	}
	return c, nil
}

// sameRelease reports whether there is a lock at hand that names this release.
func (v *Verifier) sameRelease(r *Claims) bool {
	return v.Lock != nil && v.Lock.Inputs.Tailscale.Version == r.Version
}

// lockAtHand is the name of the check against it.
const lockAtHand = "lock at hand"

// againstLock compares the inputs made again with those of the lock at hand.
func (v *Verifier) againstLock(r *Claims, in lock.Inputs) []Check {
	if v.Lock == nil {
		return nil
	}
	c := Check{Level: LevelInput, Name: lockAtHand, Result: Skip}
	have := v.Lock.Inputs
	var wrong, other []string
	made := modules(in)
	for i, m := range modules(have) {
		if m.Version == made[i].Version && m.sum != made[i].sum {
			wrong = append(wrong, fmt.Sprintf("%s: the lock has %s, the checksum database %s", m, m.sum, made[i].sum))
		}
	}
	for _, d := range [][3]string{
		{"Go", have.Go.Version, in.Go.Version},
		{"CA roots", have.Roots.Version, in.Roots.Version},
	} {
		if d[1] != d[2] {
			other = append(other, fmt.Sprintf("%s %s, the image claims %s", d[0], d[1], d[2]))
		}
	}
	switch {
	case !v.sameRelease(r):
		c.Note = "names another release, " + have.Tailscale.Version
	case len(wrong) > 0:
		c.Result, c.Note, c.Details = Fail, wrong[0], wrong
	case len(other) > 0:
		c.Note = "names the same release, but " + strings.Join(other, "; ") + ": the image is of another revision of the lock"
	default:
		c.Result, c.Note = Pass, "names the same inputs with the same sums"
	}
	return []Check{c}
}
