package lock

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/atomicfile"
)

// Read reads the lock in the named file. Its errors name the file, and the line
// and column or the key at fault.
func Read(name string) (*Lock, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	l, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("lock: %s: %w", name, err)
	}
	return l, nil
}

// Parse reads a lock. It refuses unknown and repeated keys, values of a wrong
// type or form, and anything after the document.
func Parse(data []byte) (*Lock, error) {
	l := new(Lock)
	err := decode(data, l)
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

var (
	goVersion = regexp.MustCompile(`^go1\.[0-9]+\.[0-9]+$`)
	fileName  = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	gitCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)
	anyDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	h1        = regexp.MustCompile(`^h1:[0-9A-Za-z+/]{42}[048AEIMQUYcgkosw]=$`) // base64 of 32 bytes
)

// check reports every value that has a wrong form, by its key.
func (l *Lock) check() error {
	var errs []error
	want := func(ok bool, key, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("key %q: "+format, append([]any{key}, args...)...))
		}
	}
	if l.Schema != SchemaVersion {
		return fmt.Errorf("key \"schema\": is %d, this program reads %d; use the program of the revision that wrote it", l.Schema, SchemaVersion)
	}
	in := l.Inputs
	want(isVersion(in.Tailscale.Version), "inputs.tailscale.version", "%q is no module version such as v1.102.3", in.Tailscale.Version)
	want(gitCommit.MatchString(in.Tailscale.Commit), "inputs.tailscale.commit", "%q is no git commit of 40 hex digits", in.Tailscale.Commit)
	t := in.Tailscale.Time
	want(!t.IsZero() && t.Unix() > 0 && t.Nanosecond() == 0 && t.Location() == time.UTC,
		"inputs.tailscale.time", "wants whole seconds in UTC such as 2026-08-19T19:07:43Z")
	want(h1.MatchString(in.Tailscale.Sum), "inputs.tailscale.sum", "%q is no h1: sum", in.Tailscale.Sum)
	want(goVersion.MatchString(in.Go.Version), "inputs.go.version", "%q is no toolchain such as go1.26.8", in.Go.Version)
	for _, host := range Hosts {
		want(h1.MatchString(in.Go.Sums[host]), "inputs.go.sums."+host, "%q is no h1: sum", in.Go.Sums[host])
	}
	for _, host := range slices.Sorted(maps.Keys(in.Go.Sums)) {
		want(slices.Contains(Hosts, host), "inputs.go.sums."+host, "unknown host platform: known are %s", strings.Join(Hosts, ", "))
	}
	want(isVersion(in.Roots.Version), "inputs.roots.version", "%q is no module version", in.Roots.Version)
	want(h1.MatchString(in.Roots.Sum), "inputs.roots.sum", "%q is no h1: sum", in.Roots.Sum)
	want(len(in.Platforms) > 0, "inputs.platforms", "is empty")
	for i, p := range in.Platforms {
		canonical, err := ParsePlatform(string(p))
		want(err == nil, "inputs.platforms", "%w", err)
		want(err != nil || canonical == p, "inputs.platforms", "%q is written %s", p, canonical)
		want(!slices.Contains(in.Platforms[:i], p), "inputs.platforms", "duplicate %s", p)
	}
	want(!slices.ContainsFunc(l.Withdrawn, func(v string) bool { return !isVersion(v) }),
		"withdrawn", "%q are not all module versions such as v1.102.3", l.Withdrawn)
	want(in.LayerFormat > 0, "inputs.layerFormat", "wants a whole number above 0")
	o := l.Outputs
	if o == nil {
		return errors.Join(errs...)
	}
	isDigest := func(key, s string) {
		want(anyDigest.MatchString(s), key, "%q is no digest sha256:<64 hex digits>", s)
	}
	isDigest("outputs.index", o.Index)
	want(len(o.Platforms) == len(in.Platforms), "outputs.platforms", "has %d platforms, the inputs have %d", len(o.Platforms), len(in.Platforms))
	for i, po := range o.Platforms {
		key := fmt.Sprintf("outputs.platforms[%d]", i)
		want(i >= len(in.Platforms) || po.Platform == in.Platforms[i], key+".platform", "is %q, not that of the inputs at this place", po.Platform)
		for _, b := range po.Binaries {
			want(fileName.MatchString(b.Name), key+".binaries", "%q is no file name", b.Name)
			isDigest(key+".binaries."+b.Name, b.Digest)
		}
		for _, layer := range po.Layers {
			want(fileName.MatchString(layer.Name), key+".layers", "%q is no layer name", layer.Name)
			isDigest(key+".layers."+layer.Name+".diffID", layer.DiffID)
			isDigest(key+".layers."+layer.Name+".digest", layer.Digest)
		}
		isDigest(key+".config", po.Config)
		isDigest(key+".manifest", po.Manifest)
		isDigest(key+".attestation", po.Attestation)
	}
	return errors.Join(errs...)
}

func isVersion(s string) bool { return semver.IsValid(s) && semver.Canonical(s) == s }

// Bytes is the lock in its canonical form: keys in the order of the schema, maps
// sorted, two spaces of indentation, one newline at the end.
func (l *Lock) Bytes() ([]byte, error) {
	data, err := json.MarshalIndent(l, "", "  ")
	if err := cmp.Or(l.check(), err); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return append(data, '\n'), nil
}

// Write writes the lock to the named file, whole or not at all.
func (l *Lock) Write(name string) error {
	data, err := l.Bytes()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(name, data); err != nil {
		return fmt.Errorf("lock: %s: %w", name, err)
	}
	return nil
}
