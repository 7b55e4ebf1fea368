package verify

import (
	"context"
	"encoding/json"
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

// labels are those that an image of this project has.
var labels = []string{image.LabelVersion, image.LabelCommit, image.LabelCreated, image.LabelSource, image.LabelGo, image.LabelRoots,
	image.LabelFormat, image.LabelTailscale, image.LabelPrograms, image.LabelVariant}

// labelFormat1 is what the images of this project had in the place of the last four before
// there were revisions of them. No program since has made one.
const labelFormat1 = image.Prefix + "layer-format"

// claims is what an image says it is made of: inputs without their sums.
func (f *found) claims() (lock.Inputs, error) {
	// The same stands in several places, one of which may have been changed: what
	// most of them say counts, and what another says is found when it is compared.
	// At a tie it is the index before the images.
	places := []map[string]string{f.annotations}
	for _, img := range f.images {
		places = append(places, img.annotations, img.configFile.Config.Labels)
	}
	claim := map[string]string{}
	for _, name := range append([]string{labelFormat1, image.LabelModules}, labels...) {
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
	}
	var in lock.Inputs
	if claim[image.LabelFormat] == "" && claim[labelFormat1] != "" {
		return in, otherFormat(claim[labelFormat1])
	}
	for _, name := range labels {
		if claim[name] == "" {
			return in, fmt.Errorf("%w: nothing in it says %s", image.ErrForeign, name)
		}
	}
	in.Tailscale = lock.Tailscale{Version: claim[image.LabelTailscale], Commit: claim[image.LabelCommit]}
	in.Source, in.Roots.Version = claim[image.LabelSource], claim[image.LabelRoots]
	in.Go = lock.Go{Version: claim[image.LabelGo], Sums: map[string]string{}}
	for name, read := range map[string]func(string) error{
		image.LabelCreated: func(s string) (err error) {
			in.Tailscale.Time, err = time.Parse(time.RFC3339, s)
			in.Tailscale.Time = in.Tailscale.Time.UTC()
			return err
		},
		image.LabelVersion: func(s string) error {
			v, err := lock.ParseImageVersion(s)
			f.version, in.Revision = v, v.Revision
			return err
		},
		image.LabelFormat: func(s string) (err error) { in.Format, err = strconv.Atoi(s); return err },
		image.LabelModules: func(s string) error {
			if s == "" {
				return nil // as most variants have none
			}
			return json.Unmarshal([]byte(s), &in.Modules)
		},
		image.LabelPrograms: func(s string) error { return json.Unmarshal([]byte(s), &in.Programs) },
		image.LabelVariant: func(s string) error {
			in.Variants = make([]lock.Variant, 1)
			return json.Unmarshal([]byte(s), &in.Variants[0])
		},
	} {
		if err := read(claim[name]); err != nil {
			return in, fmt.Errorf("claims %s %s: %w", name, diff.Printable(claim[name]), image.ErrForeign)
		}
	}
	return in.Image(), nil
}

func claimsOf(in lock.Inputs) *Claims {
	t, v := in.Tailscale, in.Variant()
	var modules []string
	for _, m := range in.Modules {
		modules = append(modules, m.Mod().String())
	}
	return &Claims{in.Version(), t.Version, t.Commit, t.Time, in.Go.Version, in.Roots.Version, in.Format, in.Source, v, in.Programs, modules}
}

// Words says of what an image is made besides the release, for people.
func (c *Claims) Words() string {
	words := fmt.Sprintf("%s, CA roots %s, format %d, variant %s", c.Go, c.Roots, c.Format, c.Variant.Name)
	for _, m := range c.Modules {
		words += ", " + m
	}
	for _, p := range c.Programs {
		if len(p.Tags) > 0 {
			words += fmt.Sprintf(", %s with the build tags %s", p.Name(), strings.Join(p.Tags, ","))
		}
	}
	return diff.Printable(words + ", source " + c.Source)
}

// otherFormat is the error for an image of a format that this program does not make.
func otherFormat(format string) error {
	return fmt.Errorf("it is an image of format %s, made by an older or a newer build program, and this one makes format %d: verify it with the program of the revision that made it", diff.Printable(format), lock.Format)
}

// maxModules is how many modules besides tailscale's the database is asked for.
const maxModules = 16

// remake makes a lock's inputs again from what an image claims: every sum comes from
// the checksum database, and the time from the module proxy. The image is trusted in
// nothing but which release it is to be compared with. The checks say what of the
// claims could be checked.
func (j *job) remake(ctx context.Context) error {
	in, claimed := &j.inputs, j.inputs.Tailscale
	in.Platforms = j.expected
	if in.Format != lock.Format {
		return otherFormat(strconv.Itoa(in.Format))
	}
	if n := len(in.Modules); n > maxModules {
		return fmt.Errorf("claims programs of %d modules: %w", n, image.ErrForeign)
	}
	if err := j.sums(ctx); err != nil {
		return err
	}
	made := j.subject.Inputs
	sources, toolchains := made[:1+len(in.Modules)], made[1+len(in.Modules):]
	for i := range in.Modules {
		in.Modules[i].Sum = sources[1+i].Rebuilt
	}
	in.Tailscale.Sum, in.Roots.Sum = sources[0].Rebuilt, made[len(made)-1].Rebuilt
	for i, host := range lock.Hosts {
		in.Go.Sums[host] = toolchains[i].Rebuilt
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
	type named struct {
		commit, by string
		confirms   bool
	}
	var names []named
	if len(proof) > 0 && proof[0].Result == Pass {
		names = append(names, named{claimed.Commit, "the git tag", true})
	}
	if j.sameRelease() {
		names = append(names, named{j.Lock.Inputs.Tailscale.Commit, "the lock at hand", true})
	}
	if from := info.Origin; from != nil && from.Hash != "" {
		// Another commit contradicts, wherever the proxy has it from; the same one confirms
		// only that the tag names it.
		names = append(names, named{from.Hash, "the module proxy", from.Ref == "refs/tags/"+claimed.Version})
	}
	// The commit is stamped into the programs, and no checksum database knows of commits.
	commit := Check{Level: LevelInput, Name: "commit", Result: Skip, Image: claimed.Commit,
		Note: "the image's own claim; nothing here says otherwise, nothing confirms it"}
	for _, n := range names {
		if n.commit != claimed.Commit {
			commit.Result, commit.Rebuilt = Fail, n.commit
			commit.Note = fmt.Sprintf("the image claims commit %s, %s says %s", claimed.Commit, n.by, n.commit)
		} else if n.confirms && commit.Result == Skip {
			commit.Result, commit.Rebuilt, commit.Note = Pass, n.commit, n.by+" names the same"
		}
	}
	j.subject.Inputs = slices.Concat(made, j.version(), []Check{c, commit, j.source(), j.variant()}, proof, j.againstLock())
	return nil
}

// variant checks what an image claims of itself that no public log knows: that it is a
// variant with these files, this user, these programs. Whoever makes an image could claim
// any, and the rebuild would follow: a claim counts only if it is known here.
func (j *job) variant() Check {
	v := j.inputs.Variant()
	c := Check{Level: LevelInput, Name: "variant " + diff.Printable(v.Name), Result: Fail, Image: asJSON(v)}
	known := []lock.Inputs{lock.Defaults()}
	by, not := "this program knows", "this program does not know"
	if j.Lock != nil {
		known = append(known, j.Lock.Inputs)
		by, not = "this program or the lock at hand knows", "neither this program nor the lock at hand knows"
	}
	for _, in := range known {
		of, err := in.Of(v.Name)
		if err != nil {
			continue
		}
		of = of.Image()
		if asJSON(of.Variant()) != c.Image || !slices.EqualFunc(of.Programs, j.inputs.Programs, func(p, q lock.Program) bool { return p.Package == q.Package }) {
			continue
		}
		c.Result, c.Rebuilt, c.Note = Pass, c.Image, "programs, files and user are those that "+by
		if asJSON(of.Programs) != asJSON(j.inputs.Programs) {
			// Build tags follow upstream's releases.
			c.Result, c.Note = Skip, "the programs' build tags are the image's own claim"
			continue
		}
		return c
	}
	if c.Result == Fail {
		c.Note = fmt.Sprintf("the image claims programs, files or a user that %s: %s, %s", not, diff.Printable(c.Image), diff.Printable(asJSON(j.inputs.Programs)))
	}
	return c
}

// source checks the address of the repository that an image claims to be made by.
func (j *job) source() Check {
	c := Check{Level: LevelInput, Name: "source", Result: Skip, Image: j.inputs.Source, Note: "the image's own claim: " + diff.Printable(j.inputs.Source)}
	switch {
	case j.Lock != nil && j.Lock.Inputs.Source == j.inputs.Source:
		c.Result, c.Note = Pass, "the lock at hand names the same"
	case j.inputs.Source == lock.DefaultSource:
		c.Result, c.Note = Pass, "the repository of this program"
	}
	return c
}

func asJSON(v any) string {
	data, _ := json.Marshal(v) // strings and numbers
	return string(data)
}

// sums asks the checksum database for the sums of all modules of the inputs, of which a
// lock has sums of its own. The database has any commit as a pseudo-version: only a
// release is one that upstream has published.
func (j *job) sums(ctx context.Context) error {
	if v := j.inputs.Tailscale.Version; module.IsPseudoVersion(v) {
		return fmt.Errorf("claims to be made of tailscale %s, a commit that is not a release: only releases can be verified: %w", v, image.ErrForeign)
	}
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
	wrong, other := disagree(j.Lock.Inputs, j.inputs)
	switch {
	case !j.sameRelease():
		c.Note = "names another release, " + j.Lock.Inputs.Tailscale.Version
	case len(wrong) > 0:
		c.Result, c.Note, c.Details = Fail, wrong[0], wrong
	case len(other) > 0:
		c.Note = "names the same release, but " + strings.Join(other, "; ") + ": the image is of another state of the lock"
	default:
		c.Result, c.Note = Pass, "names the same inputs with the same sums"
	}
	return []Check{c}
}

// disagree says what the inputs of a lock and those of an image have otherwise: what
// contradicts, and what may be another state of the lock.
func disagree(have, in lock.Inputs) (wrong, other []string) {
	made := attest.Modules(in, lock.Hosts...)
	mine, unknown := have.Of(in.Variant().Name)
	for _, m := range attest.Modules(have, lock.Hosts...) {
		i := slices.IndexFunc(made, func(o attest.Module) bool { return o.Version == m.Version })
		if i >= 0 && m.Sum != made[i].Sum {
			wrong = append(wrong, fmt.Sprintf("%s: the lock has %s, the checksum database %s", m, m.Sum, made[i].Sum))
		}
	}
	for _, d := range [][3]string{
		{"Go", have.Go.Version, in.Go.Version},
		{"CA roots", have.Roots.Version, in.Roots.Version},
		{"revision", strconv.Itoa(have.Revision), strconv.Itoa(in.Revision)},
		{"format", strconv.Itoa(have.Format), strconv.Itoa(in.Format)},
		{"source", have.Source, in.Source},
	} {
		if d[1] != d[2] {
			other = append(other, fmt.Sprintf("%s %s, the image claims %s", d[0], d[1], d[2]))
		}
	}
	if unknown == nil && have.Tailscale.Version == in.Tailscale.Version {
		// What the lock says of this very revision contradicts another claim.
		for _, d := range [][2]string{
			{asJSON(mine.Image().Programs), asJSON(in.Programs)},
			{asJSON(mine.Image().Variant()), asJSON(in.Variant())},
			{asJSON(claimsOf(mine).Modules), asJSON(claimsOf(in).Modules)},
		} {
			text := fmt.Sprintf("the lock has %s, the image claims %s", d[0], diff.Printable(d[1]))
			switch {
			case d[0] == d[1]:
			case have.Revision == in.Revision && have.Format == in.Format:
				wrong = append(wrong, text)
			default:
				other = append(other, text)
			}
		}
	}
	return wrong, other
}
