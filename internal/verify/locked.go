package verify

import (
	"context"
	"fmt"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
)

// Locked verifies the lock at hand, of which name is the file's: it rebuilds what the
// lock has as inputs, and compares what comes out with what it records, digest by
// digest. The error is lock.ErrNoOutputs or that of ctx.
func (v *Verifier) Locked(ctx context.Context, name string) (*Report, error) {
	if v.Lock.Outputs == nil {
		return nil, lock.ErrNoOutputs
	}
	r, end := v.begin()
	in := v.Lock.Inputs
	j := &job{Verifier: v, inputs: in, expected: in.Platforms, subject: &Subject{
		Ref: name, Kind: KindLock, Digest: v.Lock.Outputs.Index,
		Release: &Release{Version: in.Tailscale.Version, Commit: in.Tailscale.Commit, Time: in.Tailscale.Time, Go: in.Go.Version, Roots: in.Roots.Version, LayerFormat: in.LayerFormat},
	}}
	r.Subjects = []*Subject{j.subject}
	for _, p := range j.expected {
		if j.asked(string(p)) {
			j.build = append(j.build, p)
		}
	}
	j.fail(j.locked(ctx))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r = end()
	j.subject.Seconds = r.Seconds
	return r, nil
}

func (j *job) locked(ctx context.Context) error {
	s := j.subject
	sound, err := j.lockedInputs(ctx)
	if err != nil {
		return err
	}
	if sound {
		built, err := j.rebuild(ctx, j.inputs, j.build)
		if err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
		if err := j.lockedOutputs(built); err != nil {
			return err
		}
	}
	s.conclude(j.asked)
	s.explain()
	s.mean(j.Verifier, false)
	return nil
}

// lockedInputs checks the lock's sums against the checksum database.
func (j *job) lockedInputs(ctx context.Context) (sound bool, err error) {
	sound = true
	check := func(m module.Version, locked string) error {
		sum, err := j.Modules.Sum(ctx, m)
		if err != nil {
			return err
		}
		c := Check{Level: LevelInput, Name: m.String(), Result: Pass, Rebuilt: sum, Image: locked, Note: "the sum is the checksum database's"}
		if sum != locked {
			sound = false
			c.Result, c.Note = Fail, fmt.Sprintf("the lock has the sum %s, the checksum database %s", locked, sum)
		}
		j.subject.Inputs = append(j.subject.Inputs, c)
		return nil
	}
	in := j.inputs
	if err := check(module.Version{Path: lock.TailscaleModule, Version: in.Tailscale.Version}, in.Tailscale.Sum); err != nil {
		return false, err
	}
	for _, host := range lock.Hosts {
		if err := check(in.Go.Module(host), in.Go.Sums[host]); err != nil {
			return false, err
		}
	}
	if err := check(module.Version{Path: lock.RootsModule, Version: in.Roots.Version}, in.Roots.Sum); err != nil {
		return false, err
	}
	proof, err := j.prove(ctx, in.Tailscale)
	if proof != nil {
		j.subject.Inputs = append(j.subject.Inputs, *proof)
		sound = sound && proof.Result == Pass
	}
	return sound, err
}

// lockedOutputs compares what was rebuilt with what the lock records.
func (j *job) lockedOutputs(built *build) error {
	recorded := j.Lock.Outputs
	for _, out := range built.outputs {
		was, _ := recorded.Platform(out.Platform)
		p := &Platform{Platform: string(out.Platform), Digest: was.Manifest}
		differs := false // something inside of what is compared
		compare := func(level Level, name, rebuilt, locked string) {
			c := Check{Level: level, Name: name, Result: Pass, Rebuilt: rebuilt, Image: locked}
			if rebuilt != locked {
				c.Result, c.Follows = Fail, differs
				if !differs {
					c.Note = fmt.Sprintf("the lock records %s, the rebuilt is %s", orNone(locked), orNone(rebuilt))
				}
			}
			p.Checks = append(p.Checks, c)
		}
		failed := func() bool { return p.Count(Fail, levels...) > 0 }
		for k := range max(len(out.Binaries), len(was.Binaries)) {
			b, l := at(out.Binaries, k), at(was.Binaries, k)
			compare(LevelBinary, b.Name, b.Digest, l.Digest)
		}
		differs = failed()
		for k := range max(len(out.Layers), len(was.Layers)) {
			b, l := at(out.Layers, k), at(was.Layers, k)
			compare(LevelEntry, "layer "+b.Name, b.DiffID, l.DiffID)
		}
		for k := range max(len(out.Layers), len(was.Layers)) {
			b, l := at(out.Layers, k), at(was.Layers, k)
			differs = b.DiffID != l.DiffID
			compare(LevelCompression, "layer "+b.Name, b.Digest, l.Digest)
		}
		differs = failed()
		compare(LevelConfig, "config", out.Config, was.Config)
		differs = failed()
		compare(LevelManifest, "manifest", out.Manifest, was.Manifest)
		differs = failed()
		compare(LevelAttestation, "SBOM and provenance", out.Attestation, was.Attestation)
		p.conclude()
		j.subject.Platforms = append(j.subject.Platforms, p)
	}
	check := Check{Level: LevelIndex, Name: "index", Result: Skip, Image: recorded.Index,
		Note: fmt.Sprintf("%d of its %d platforms were rebuilt", len(j.build), len(j.expected))}
	if len(j.build) == len(j.expected) {
		raw, err := built.index()
		if err != nil {
			return err
		}
		check.Result, check.Rebuilt, check.Note = Pass, digestOf(raw), ""
		if check.Rebuilt != check.Image {
			check.Result = Fail
			for _, p := range j.subject.Platforms {
				check.Follows = check.Follows || p.Result == Fail
			}
			if !check.Follows {
				check.Note = fmt.Sprintf("the lock records %s, the rebuilt is %s", check.Image, check.Rebuilt)
			}
		}
	}
	j.subject.Index = append(j.subject.Index, check)
	return nil
}

// at is the element i of s, or a zero one past its end.
func at[T any](s []T, i int) (e T) {
	if i < len(s) {
		e = s[i]
	}
	return e
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
