package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"

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
		Release: &Claims{Version: in.Tailscale.Version, Commit: in.Tailscale.Commit, Time: in.Tailscale.Time, Go: in.Go.Version, Roots: in.Roots.Version, LayerFormat: in.LayerFormat},
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
	checks, err := j.sums(ctx, j.inputs)
	if err != nil {
		return false, err
	}
	for i, m := range modules(j.inputs) {
		c := &checks[i]
		if c.Image = m.sum; c.Rebuilt != m.sum {
			c.Result, c.Note = Fail, fmt.Sprintf("the lock has the sum %s, the checksum database %s", m.sum, c.Rebuilt)
		}
	}
	proof, err := j.prove(ctx, j.inputs.Tailscale)
	if proof != nil {
		checks = append(checks, *proof)
	}
	j.subject.Inputs = checks
	return !slices.ContainsFunc(checks, Check.failed), err
}

// lockedOutputs compares what was rebuilt with what the lock records.
func (j *job) lockedOutputs(built *build) error {
	recorded := j.Lock.Outputs
	for _, out := range built.outputs {
		was, _ := recorded.Platform(out.Platform)
		p := &PlatformResult{Platform: string(out.Platform), Digest: was.Manifest}
		compare := func(level Level, name, rebuilt, locked string) {
			c := Check{Level: level, Name: name, Result: Pass, Rebuilt: rebuilt, Image: locked}
			if rebuilt != locked {
				c.Result = Fail
				c.Follows = slices.ContainsFunc(p.Checks, func(inner Check) bool {
					return inner.failed() && inner.Level != level && (level != LevelCompression || inner.Name == name)
				})
				if !c.Follows {
					c.Note = fmt.Sprintf("the lock records %s, the rebuilt is %s", cmp.Or(locked, "none"), cmp.Or(rebuilt, "none"))
				}
			}
			p.Checks = append(p.Checks, c)
		}
		for k := range max(len(out.Binaries), len(was.Binaries)) {
			b, l := at(out.Binaries, k), at(was.Binaries, k)
			compare(LevelBinary, b.Name, b.Digest, l.Digest)
		}
		layers := max(len(out.Layers), len(was.Layers))
		for k := range layers {
			b, l := at(out.Layers, k), at(was.Layers, k)
			compare(LevelEntry, "layer "+b.Name, b.DiffID, l.DiffID)
		}
		for k := range layers {
			b, l := at(out.Layers, k), at(was.Layers, k)
			compare(LevelCompression, "layer "+b.Name, b.Digest, l.Digest)
		}
		compare(LevelConfig, "config", out.Config, was.Config)
		compare(LevelManifest, "manifest", out.Manifest, was.Manifest)
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
			check.Follows = slices.ContainsFunc(j.subject.Platforms, func(p *PlatformResult) bool { return p.Result == Fail })
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
