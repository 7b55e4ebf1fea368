package lock

import (
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

// Compare compares a build with the outputs in the lock and returns the first
// [Difference], from the inside out, as its error. The build may be of some of
// the lock's platforms only; its index is compared when it has them all.
func (l *Lock) Compare(built *Outputs) error {
	if l.Outputs == nil {
		return ErrNoOutputs
	}
	for _, b := range built.Platforms {
		locked, ok := l.Outputs.Platform(b.Platform)
		if !ok {
			return &Difference{What: string(b.Platform), Locked: "no such platform", Built: b.Manifest}
		}
		if err := comparePlatform(locked, b); err != nil {
			return err
		}
	}
	if len(built.Platforms) == len(l.Outputs.Platforms) {
		return differ("index", l.Outputs.Index, built.Index)
	}
	return nil
}

func comparePlatform(locked, built PlatformOutput) error {
	name := string(built.Platform) + ": "
	var errs []error
	compare := func(what, locked, built string) { errs = append(errs, differ(name+what, locked, built)) }
	for i := range max(len(locked.Binaries), len(built.Binaries)) {
		l, b := at(locked.Binaries, i), at(built.Binaries, i)
		compare(fmt.Sprintf("name of binary %d", i+1), l.Name, b.Name)
		compare("binary "+b.Name, l.Digest, b.Digest)
	}
	for i := range max(len(locked.Layers), len(built.Layers)) {
		l, b := at(locked.Layers, i), at(built.Layers, i)
		compare(fmt.Sprintf("name of layer %d", i+1), l.Name, b.Name)
		compare("content of layer "+b.Name, l.DiffID, b.DiffID)
		compare("compression of layer "+b.Name, l.Digest, b.Digest)
	}
	compare("config", locked.Config, built.Config)
	compare("manifest", locked.Manifest, built.Manifest)
	compare("attestation", locked.Attestation, built.Attestation)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// at is the element i of s, or a zero one past its end.
func at[T any](s []T, i int) (e T) {
	if i < len(s) {
		e = s[i]
	}
	return e
}

func differ(what, locked, built string) error {
	if locked == built {
		return nil
	}
	return &Difference{What: what, Locked: orNone(locked), Built: orNone(built)}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
