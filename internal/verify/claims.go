package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/attest"
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

// claims is what an image says it is made of: inputs without their sums.
func (f *found) claims() (in lock.Inputs, err error) {
	// The same stands in several places, one of which may have been changed: what
	// most of them say counts, and what another says is found when it is compared.
	// At a tie it is the index before the images.
	places := []map[string]string{f.annotations}
	for _, img := range f.images {
		places = append(places, img.annotations, img.configFile.Config.Labels)
	}
	claim := map[string]string{}
	for _, name := range []string{claimVersion, claimCommit, claimGo, claimRoots, claimCreated, claimLayerFormat} {
		count := map[string]int{}
		for _, place := range places {
			if v := place[name]; v != "" {
				count[v]++
			}
		}
		for _, place := range places {
			if v := place[name]; count[v] > count[claim[name]] {
				claim[name] = v
			}
		}
		if claim[name] == "" {
			return in, fmt.Errorf("%w: nothing in it says %s", image.ErrForeign, name)
		}
	}
	at, err := time.Parse(time.RFC3339, claim[claimCreated])
	if err != nil {
		return in, fmt.Errorf("claims %s %s: %w", claimCreated, diff.Printable(claim[claimCreated]), image.ErrForeign)
	}
	format, err := strconv.Atoi(claim[claimLayerFormat])
	if err != nil {
		return in, fmt.Errorf("claims %s %s: %w", claimLayerFormat, diff.Printable(claim[claimLayerFormat]), image.ErrForeign)
	}
	return lock.Inputs{
		Tailscale:   lock.Tailscale{Version: "v" + claim[claimVersion], Commit: claim[claimCommit], Time: at.UTC()},
		Go:          lock.Go{Version: claim[claimGo], Sums: map[string]string{}},
		Roots:       lock.Module{Version: claim[claimRoots]},
		LayerFormat: format,
	}, nil
}

func claimsOf(in lock.Inputs) *Claims {
	t := in.Tailscale
	return &Claims{t.Version, t.Commit, t.Time, in.Go.Version, in.Roots.Version, in.LayerFormat}
}

// remake makes a lock's inputs again from what an image claims: every sum comes from
// the checksum database, and the time from the module proxy. The image is trusted in
// nothing but which release it is to be compared with. The checks say what of the
// claims could be checked.
func (j *job) remake(ctx context.Context) error {
	in, claimed := &j.inputs, j.inputs.Tailscale
	in.Platforms = j.expected
	if in.LayerFormat != lock.LayerFormat {
		return fmt.Errorf("its layers are of format %d, this program writes format %d: verify with the program of the revision that made the image", in.LayerFormat, lock.LayerFormat)
	}
	if err := j.sums(ctx); err != nil {
		return err
	}
	made := j.subject.Inputs
	in.Tailscale.Sum, in.Roots.Sum = made[0].Rebuilt, made[len(made)-1].Rebuilt
	for i, host := range lock.Hosts {
		in.Go.Sums[host] = made[1+i].Rebuilt
	}
	// The form of what is claimed is checked as a lock's is.
	if _, err := (&lock.Lock{Schema: lock.SchemaVersion, Inputs: *in}).Bytes(); err != nil {
		return fmt.Errorf("%w: %w", image.ErrForeign, err)
	}
	// The commit time is every time stamp in the image.
	info, err := j.Modules.Info(ctx, module.Version{Path: lock.TailscaleModule, Version: claimed.Version})
	if err != nil {
		return err
	}
	in.Tailscale.Time = info.Time.UTC().Truncate(time.Second) // as git has it
	c := compared(LevelInput, "commit time", in.Tailscale.Time.Format(time.RFC3339Nano), claimed.Time.Format(time.RFC3339Nano))
	c.Note = "the time is the module proxy's"
	if c.failed() {
		c.Note = fmt.Sprintf("the image claims that the commit is of %s, the module proxy says %s", c.Image, c.Rebuilt)
	}
	proof, err := j.prove(ctx)
	if err != nil {
		return err
	}
	type named struct{ commit, by string }
	var names []named
	if len(proof) > 0 && proof[0].Result == Pass {
		names = append(names, named{claimed.Commit, "the git tag"})
	}
	if j.sameRelease() {
		names = append(names, named{j.Lock.Inputs.Tailscale.Commit, "the lock at hand"})
	}
	if info.Origin != nil && info.Origin.Ref == "refs/tags/"+claimed.Version && info.Origin.Hash != "" {
		names = append(names, named{info.Origin.Hash, "the module proxy"})
	}
	// The commit is stamped into the programs, and no checksum database knows of commits.
	commit := Check{Level: LevelInput, Name: "commit", Result: Skip, Image: claimed.Commit,
		Note: "the image's own claim; nothing here says otherwise, nothing confirms it"}
	for _, n := range names {
		if n.commit != claimed.Commit {
			commit.Result, commit.Rebuilt = Fail, n.commit
			commit.Note = fmt.Sprintf("the image claims commit %s, %s says %s", claimed.Commit, n.by, n.commit)
		} else if commit.Result == Skip {
			commit.Result, commit.Rebuilt, commit.Note = Pass, n.commit, n.by+" names the same"
		}
	}
	j.subject.Inputs = slices.Concat(made, []Check{c, commit}, proof, j.againstLock())
	return nil
}

// sums asks the checksum database for the sums of all modules of the inputs, of which a
// lock has sums of its own.
func (j *job) sums(ctx context.Context) error {
	for _, m := range attest.Modules(j.inputs, lock.Hosts...) {
		if err := module.Check(m.Path, m.Version.Version); err != nil {
			return fmt.Errorf("claims %s: %w: %w", diff.Printable(m.String()), image.ErrForeign, err)
		}
		sum, err := j.Modules.Sum(ctx, m.Version)
		if modproxy.NotServed(err) {
			return fmt.Errorf("claims to be made of %s, which the checksum database does not know: %w", m, err)
		}
		if err != nil {
			return err
		}
		c := Check{Level: LevelInput, Name: m.String(), Result: Pass, Rebuilt: sum, Image: m.Sum, Note: "the sum is the checksum database's"}
		if m.Sum != "" && m.Sum != sum {
			c.Result, c.Note = Fail, fmt.Sprintf("the lock has the sum %s, the checksum database %s", m.Sum, sum)
		}
		j.subject.Inputs = append(j.subject.Inputs, c)
	}
	return nil
}

// prove proves from upstream's git repository that a release is one source. There is no
// check when no proof is asked for.
func (j *job) prove(ctx context.Context) ([]Check, error) {
	if j.Source == nil {
		return nil, nil
	}
	t := j.inputs.Tailscale
	c := Check{Level: LevelInput, Name: "source " + t.Version, Result: Pass, Rebuilt: t.Commit,
		Note: "the git tag names the commit, and the commit's tree is the module that the checksum database knows"}
	err := j.Source.Prove(ctx, t)
	switch {
	case err == nil:
	case errors.As(err, new(*upstream.MissingError)), errors.As(err, new(*upstream.Disagreement)), errors.As(err, new(*modproxy.SumError)):
		c.Result, c.Rebuilt, c.Image, c.Note = Fail, "", t.Commit, diff.Printable(err.Error())
	default:
		return nil, fmt.Errorf("source: %w", err)
	}
	return []Check{c}, nil
}

// sameRelease reports whether there is a lock at hand that names the image's release.
func (j *job) sameRelease() bool {
	return j.Lock != nil && j.Lock.Inputs.Tailscale.Version == j.inputs.Tailscale.Version
}

// lockAtHand is the name of the check against it.
const lockAtHand = "lock at hand"

// againstLock compares the inputs made again with those of the lock at hand.
func (j *job) againstLock() []Check {
	if j.Lock == nil {
		return nil
	}
	c := Check{Level: LevelInput, Name: lockAtHand, Result: Skip}
	var wrong, other []string
	have, made := j.Lock.Inputs, attest.Modules(j.inputs, lock.Hosts...)
	for i, m := range attest.Modules(have, lock.Hosts...) {
		if m.Version == made[i].Version && m.Sum != made[i].Sum {
			wrong = append(wrong, fmt.Sprintf("%s: the lock has %s, the checksum database %s", m, m.Sum, made[i].Sum))
		}
	}
	for _, d := range [][3]string{
		{"Go", have.Go.Version, j.inputs.Go.Version},
		{"CA roots", have.Roots.Version, j.inputs.Roots.Version},
	} {
		if d[1] != d[2] {
			other = append(other, fmt.Sprintf("%s %s, the image claims %s", d[0], d[1], d[2]))
		}
	}
	switch {
	case !j.sameRelease():
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
