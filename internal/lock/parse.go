package lock

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
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

// Parse reads a lock. It refuses unknown and repeated keys, values of a wrong type or form, and anything after the document.
func Parse(data []byte) (*Lock, error) {
	if schema := schemaOf(data); schema > 0 && schema != SchemaVersion {
		return nil, otherSchema(schema) // whose keys are not known
	}
	l := new(Lock)
	if err := Decode(data, l); err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l, nil
}

func otherSchema(schema int) error {
	return fmt.Errorf("key \"schema\": expected %d, got %d: use the program of the revision that wrote the lock", SchemaVersion, schema)
}

// schemaOf is the schema that a document says it has, 0 if it does not.
func schemaOf(data []byte) int {
	var document struct{ Schema int }
	_ = json.Unmarshal(data, &document) // errors come from decode
	return document.Schema
}

var (
	goVersion = regexp.MustCompile(`^go1\.[0-9]+\.[0-9]+$`)
	fileName  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
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
		return otherSchema(l.Schema)
	}
	in := l.Inputs
	want(isSource(in.Source), "inputs.source", "expected the address of a repository such as %s, without .git or a slash at its end, got %q", DefaultSource, in.Source)
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
	want(in.Format == Format, "inputs.format", "expected %d, got %d: use the program of the revision that wrote the lock", Format, in.Format)
	want(in.Revision >= 0 && in.Revision <= maxRevision, "inputs.revision", "expected 0 to %d, got %d", maxRevision, in.Revision)
	want(!revision.MatchString(in.Tailscale.Version), "inputs.tailscale.version", "%q ends like a revision of an image", in.Tailscale.Version)
	in.checkModules(want)
	in.checkPrograms(want)
	in.checkVariants(want)
	for _, w := range l.Withdrawn {
		v, err := ParseImageVersion(w)
		want(err == nil && (w == v.Tailscale || w == v.String()), "withdrawn", "expected a release such as v1.102.3 or an image such as 1.102.3-r1, got %q", w)
	}
	isDigest := func(key, s string) {
		want(anyDigest.MatchString(s), key, "%q is no digest sha256:<64 hex digits>", s)
	}
	if p := l.Published; p != nil {
		want(p.Revision >= 0 && p.Revision < maxRevision, "published.revision", "expected 0 to %d, got %d", maxRevision-1, p.Revision)
		want(len(p.Index) > 0, "published.index", "is empty")
		for _, variant := range slices.Sorted(maps.Keys(p.Index)) {
			isDigest("published.index."+variant, p.Index[variant])
		}
	}
	for _, v := range in.Variants {
		want(l.Outputs == nil || l.Outputs[v.Name] != nil, "outputs", "nothing is recorded of the variant %s: %s", v.Name, recordAgain)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Outputs)) {
		want(slices.ContainsFunc(in.Variants, func(v Variant) bool { return v.Name == name }), "outputs", "the variant %s is recorded, and the inputs do not have it: %s", name, recordAgain)
		l.Outputs[name].check("outputs."+name, in, want, isDigest)
	}
	return errors.Join(errs...)
}

// recordAgain is what to do when outputs are not those of the inputs.
const recordAgain = `remove "outputs" from the lock, and record them again: build --platform all --update-lock`

// check checks what is recorded of a variant.
func (o *Output) check(at string, in Inputs, want wanting, isDigest func(key, s string)) {
	isDigest(at+".index", o.Index)
	want(len(o.Platforms) == len(in.Platforms), at+".platforms", "%d platforms are recorded, and the inputs have %d: %s", len(o.Platforms), len(in.Platforms), recordAgain)
	for i, po := range o.Platforms {
		key := fmt.Sprintf("%s.platforms[%d]", at, i)
		want(i >= len(in.Platforms) || po.Platform == in.Platforms[i], key+".platform", "is %q, not that of the inputs at this place", po.Platform)
		want(po.Binaries != nil && po.Layers != nil, key, "lacks binaries or layers")
		for _, b := range po.Binaries {
			want(fileName.MatchString(b.Name), key+".binaries", "%q is no file name", b.Name)
			isDigest(key+".binaries."+b.Name, b.Digest)
		}
		for _, layer := range po.Layers {
			want(fileName.MatchString(layer.Name), key+".layers", "%q is no layer name", layer.Name)
			isDigest(key+".layers."+layer.Name+".diffID", layer.DiffID)
			isDigest(key+".layers."+layer.Name+".digest", layer.Digest)
			want(layer.Bytes >= 0 && layer.OnDisk >= 0, key+".layers."+layer.Name, "a size is below 0")
		}
		isDigest(key+".config", po.Config)
		isDigest(key+".manifest", po.Manifest)
		isDigest(key+".attestation", po.Attestation)
	}
}

// IsName reports whether s can be the name of a variant, a layer or a program.
func IsName(s string) bool { return fileName.MatchString(s) }

// wanting notes what is wrong with a key's value, unless it is ok.
type wanting func(ok bool, key, format string, args ...any)

// isSource reports whether s is the address of a repository, as labels have it.
func isSource(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" &&
		!strings.HasSuffix(s, "/") && !strings.HasSuffix(s, ".git")
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
