package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// Locked verifies the lock at hand, of which name is the file's: it rebuilds what the
// lock has as inputs, and compares what comes out with what it records, digest by
// digest. There is a subject for each of the Variants. The error is lock.ErrNoOutputs or that of
// ctx.
func (v *Verifier) Locked(ctx context.Context, name string) (*Report, error) {
	if v.Lock.Outputs == nil {
		return nil, lock.ErrNoOutputs
	}
	r, end := v.begin()
	for _, variant := range v.Lock.Inputs.Variants {
		if v.Variants != nil && !slices.Contains(v.Variants, variant.Name) {
			continue
		}
		in, err := v.Lock.Inputs.Of(variant.Name)
		if err != nil {
			return nil, err
		}
		recorded, ref := v.Lock.Outputs[variant.Name], name
		if variant.Name != lock.Default {
			ref += " " + variant.Name
		}
		j := &job{Verifier: v, inputs: in, expected: in.Platforms, found: &found{opened: &registry.Image{}}, subject: &Subject{
			Ref: ref, Kind: KindLock, Digest: recorded.Index,
			Release: claimsOf(in),
		}}
		r.Subjects = append(r.Subjects, j.subject)
		j.build = j.wanted()
		if err := j.do(ctx, func(ctx context.Context) error { return j.locked(ctx, recorded) }); err != nil {
			return nil, err
		}
	}
	return end(), nil
}

func (j *job) locked(ctx context.Context, recorded *lock.Output) error {
	s := j.subject
	if err := j.sums(ctx); err != nil {
		return err
	}
	proof, err := j.prove(ctx)
	if err != nil {
		return err
	}
	if s.Inputs = append(s.Inputs, proof...); !slices.ContainsFunc(s.Inputs, Check.failed) {
		built, err := j.rebuild(ctx)
		if err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
		if err := j.lockedOutputs(built, recorded); err != nil {
			return err
		}
	}
	j.conclude(ctx)
	return nil
}

// lockedOutputs compares what was rebuilt with what the lock records.
func (j *job) lockedOutputs(built *build, locked *lock.Output) error {
	for _, out := range built.outputs {
		was, _ := locked.Platform(out.Platform)
		p := &PlatformResult{Platform: string(out.Platform), Digest: was.Manifest}
		compare := func(level Level, name, rebuilt, locked string) {
			p.Checks = append(p.Checks, recorded(level, name, rebuilt, locked, slices.ContainsFunc(p.Checks, func(inner Check) bool {
				return inner.failed() && inner.Level != level && (level != LevelCompression || inner.Name == name)
			})))
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
		compare(LevelAttestation, attestationName, out.Attestation, was.Attestation)
		p.conclude()
		j.subject.Platforms = append(j.subject.Platforms, p)
	}
	check := Check{Level: LevelIndex, Name: "index", Result: Skip, Image: locked.Index,
		Note: fmt.Sprintf("%d of its %d platforms were rebuilt", len(j.build), len(j.expected))}
	if len(j.build) == len(j.expected) {
		raw, _, err := j.index(built)
		if err != nil {
			return err
		}
		check = recorded(LevelIndex, "index", digestOf(raw), check.Image, slices.ContainsFunc(j.subject.Platforms, (*PlatformResult).failed))
	}
	j.subject.Index = append(j.subject.Index, check)
	return nil
}

// recorded compares what was rebuilt with what the lock records. Where something inside of
// it differs, it only follows.
func recorded(level Level, name, rebuilt, locked string, inner bool) Check {
	c := compared(level, name, rebuilt, locked)
	if c.Follows = c.failed() && inner; c.failed() && !inner {
		c.Note = fmt.Sprintf("the lock records %s, the rebuilt is %s", cmp.Or(locked, "none"), cmp.Or(rebuilt, "none"))
	}
	return c
}

// at is the element i of s, or a zero one past its end.
func at[T any](s []T, i int) (e T) {
	if i < len(s) {
		e = s[i]
	}
	return e
}
