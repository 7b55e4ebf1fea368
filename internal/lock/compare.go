package lock

import (
	"cmp"
	"errors"
	"fmt"
)

// ErrNoOutputs says that a lock has no recorded outputs to compare with.
var ErrNoOutputs = errors.New("lock: records no outputs")

// A Difference is the first place at which a build and the lock differ.
type Difference struct {
	// What is the thing at fault, from the inside out: a binary, a layer, the
	// config, the manifest, the attestation, the index.
	What string
	// Locked is what the lock records, Built what the build gave.
	Locked, Built string
}

func (d *Difference) Error() string {
	return fmt.Sprintf("%s differs from the lock: recorded %s, built %s", d.What, d.Locked, d.Built)
}

// Compare compares a build of a variant with the outputs in the lock and returns the
// first [Difference], from the inside out, as its error. The build may be of some of
// the lock's platforms only; its index is compared when it has them all.
func (l *Lock) Compare(variant string, built *Output) error {
	recorded := l.Outputs[variant]
	if recorded == nil {
		return ErrNoOutputs
	}
	var first error
	compare := func(what, locked, built string) {
		if first == nil && locked != built {
			first = &Difference{What: what, Locked: cmp.Or(locked, "none"), Built: cmp.Or(built, "none")}
		}
	}
	of := ""
	if variant != Default {
		of = variant + " "
	}
	for _, built := range built.Platforms {
		locked, ok := recorded.Platform(built.Platform)
		if !ok {
			compare(of+string(built.Platform), "no such platform", built.Manifest)
			continue
		}
		name := of + string(built.Platform) + ": "
		for i := range max(len(locked.Binaries), len(built.Binaries)) {
			l, b := at(locked.Binaries, i), at(built.Binaries, i)
			compare(fmt.Sprintf("%sname of binary %d", name, i+1), l.Name, b.Name)
			compare(name+"binary "+b.Name, l.Digest, b.Digest)
		}
		for i := range max(len(locked.Layers), len(built.Layers)) {
			l, b := at(locked.Layers, i), at(built.Layers, i)
			compare(fmt.Sprintf("%sname of layer %d", name, i+1), l.Name, b.Name)
			compare(name+"content of layer "+b.Name, l.DiffID, b.DiffID)
			compare(name+"compression of layer "+b.Name, l.Digest, b.Digest)
			if l.Bytes > 0 && b.Bytes > 0 { // else it was recorded, or read of an image, without sizes
				compare(name+"sizes of layer "+b.Name, l.sizes(), b.sizes())
			}
		}
		compare(name+"config", locked.Config, built.Config)
		compare(name+"manifest", locked.Manifest, built.Manifest)
		compare(name+"attestation", locked.Attestation, built.Attestation)
	}
	if len(built.Platforms) == len(recorded.Platforms) {
		compare(of+"index", recorded.Index, built.Index)
	}
	return first
}

func (l Layer) sizes() string { return fmt.Sprintf("%d bytes, %d on disk", l.Bytes, l.OnDisk) }

// at is the element i of s, or a zero one past its end.
func at[T any](s []T, i int) (e T) {
	if i < len(s) {
		e = s[i]
	}
	return e
}
