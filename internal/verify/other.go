package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/revision"
	"github.com/xavieralpha/derper/internal/toolchain"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// Others says that an image that this program makes otherwise is compared with what the
// revision of this project makes whose release it is.
type Others struct {
	// Checkout is a folder with the source of that revision, "" for the one that the git tag
	// leads to that the image's version names.
	Checkout string
	// Shared are folders of the cache that the revision's program uses itself instead of a
	// copy, see [revision.Job].
	Shared []string
}

// A Builder is the revision of this project whose program built what an image was compared
// with.
type Builder struct {
	revision.Revision
	// Closed is set when it had neither network nor files of this machine.
	Closed bool `json:"closed"`
	// Otherwise names what this program makes otherwise, and is therefore what that revision's
	// source says.
	Otherwise []string `json:"otherwise"`
}

// Name is the revision in words.
func (b *Builder) Name() string { return diff.Printable(b.Revision.String()) }

// others compares an image that this program makes otherwise with what the revision makes that
// it is of. That decides only about what is this project's own: upstream's programs must be
// what this program compiles.
func (j *job) others(ctx context.Context) error {
	s := j.subject
	if j.Others == nil || s.Verdict != Differs || slices.ContainsFunc(s.Inputs, Check.failed) || s.upstreamDiffers() {
		return nil
	}
	r := revision.Revision{Checkout: j.Others.Checkout}
	if r.Checkout == "" {
		var err error
		if r, err = revision.Find(ctx, j.Modules, j.inputs.ImageVersion()); err != nil {
			return j.unknown(err)
		}
		if ThisProgram().is(r) {
			return nil
		}
	}
	work, err := j.Cache.TempDir()
	if err != nil {
		return err
	}
	j.temporary = append(j.temporary, work)
	j.Display.Printf("%s: this program makes %s otherwise: comparing with what %s makes", diff.Printable(s.Ref), join(s.otherwise()), diff.Printable(r.String()))
	source := filepath.Join(work, "source")
	if err := r.Fetch(ctx, j.Modules, source); err != nil {
		return j.unknown(err)
	}
	c := Check{Level: LevelInput, Name: r.Mod().String(), Result: Pass, Rebuilt: r.Sum, Note: "git tag " + r.Tag + "; the sum is the checksum database's"}
	if r.Checkout != "" {
		c.Name, c.Rebuilt, c.Result, c.Note = "builder", "", Skip, "the source in "+diff.Printable(r.Checkout)+", which nobody vouches for here"
	} else if err := j.ofRelease(r, source, &c); err != nil {
		return j.unknown(err)
	}
	if s.Inputs = append(s.Inputs, c); c.failed() {
		s.explain()
		return nil
	}
	b := &Builder{Revision: r, Otherwise: s.otherwise()}
	built, err := j.letBuild(ctx, b, source, work)
	if err != nil {
		return j.unknown(fmt.Errorf("%s: %w", r, err))
	}
	before := *s
	s.Builder, s.Platforms, s.Index = b, nil, nil
	if err := j.compare(ctx, built, func(int) {}); err != nil {
		*s = before
		return j.unknown(fmt.Errorf("%s: its layout: %w", r, err))
	}
	j.conclude(ctx)
	return nil
}

// unknown says that it is not known whether an image is what its revision makes.
func (j *job) unknown(err error) error {
	s := j.subject
	s.Verdict, s.Means, s.MeansNot = Unverified, nil, nil
	return fmt.Errorf("this program makes %s otherwise, and it cannot be compared with what the revision makes that made it: %w", join(s.otherwise()), err)
}

// ofRelease checks that the source of a release has a lock with the image's inputs.
func (j *job) ofRelease(r revision.Revision, source string, c *Check) error {
	l, err := r.Lock(source)
	if err != nil {
		return err
	}
	wrong, other := disagree(l.Inputs, j.inputs)
	if have, claimed := l.Inputs.Tailscale.Commit, j.inputs.Tailscale.Commit; have != claimed {
		wrong = append(wrong, fmt.Sprintf("the lock has commit %s, the image claims %s", have, claimed))
	}
	if name := j.inputs.Variant().Name; !slices.Contains(l.Inputs.VariantNames(), name) {
		wrong = append(wrong, "the lock has no variant "+diff.Printable(name))
	}
	if len(wrong)+len(other) > 0 {
		c.Result, c.Details = Fail, append(wrong, other...)
		c.Note = fmt.Sprintf("the image says that it is %s, which was made of other inputs: %s", r.Tag, c.Details[0])
	}
	return nil
}

// letBuild lets the program of a revision build what this program has built.
func (j *job) letBuild(ctx context.Context, by *Builder, source, work string) (built *build, err error) {
	unlock, err := j.Cache.Lock(ctx, "toolchain", func() {})
	if err != nil {
		return nil, err
	}
	task := j.Display.Start("compile "+by.Name(), "")
	file, job, err := func() (string, *revision.Job, error) {
		defer unlock()
		g, err := by.Go(ctx, j.Modules, source, j.inputs.Go, pipeline.Host)
		if err != nil {
			return "", nil, err
		}
		tool, err := toolchain.Install(ctx, j.Modules, g, pipeline.Host, j.Cache.Dir(), nil, j.Display.Printf)
		if err != nil {
			return "", nil, err
		}
		job := &revision.Job{
			Inputs: j.inputs, Platforms: j.build, Tool: tool, Host: pipeline.Host,
			Cache: j.Cache, Compiled: j.Fresh, Shared: j.Others.Shared, Source: source, Work: work,
		}
		file, err := job.Compile(ctx)
		return file, job, err
	}()
	task.End(err)
	if err != nil {
		return nil, err
	}
	task = j.Display.Start("build with "+by.Name(), "")
	var layout string
	layout, by.Closed, err = job.Build(ctx, file)
	task.End(err)
	j.measure()
	if err != nil {
		return nil, err
	}
	f, err := open(ctx, registry.Path(layout), nil)
	if f != nil && f.opened.Files != nil {
		j.opened = append(j.opened, f.opened.Files)
	}
	if err != nil {
		return nil, fmt.Errorf("its layout: %w", err)
	}
	return j.ofLayout(f)
}

// ofLayout is a build in the form of a layout: an image for each platform, with its attestation.
func (j *job) ofLayout(f *found) (*build, error) {
	if f.kind != KindIndex {
		return nil, errors.New("its layout has no index")
	}
	b := &build{images: map[lock.Platform]*foundImage{}}
	for _, img := range f.images {
		p := img.platform()
		i := slices.IndexFunc(f.attestations, func(a *foundAttestation) bool { return a.about == img.digest })
		if i < 0 || b.images[p] != nil || !slices.Contains(j.build, p) {
			return nil, fmt.Errorf("its layout has an image for %s twice, without an attestation, or besides what it was to build", img.name)
		}
		img.stated, b.images[p] = f.attestations[i], img
	}
	if len(b.images) != len(j.build) {
		return nil, fmt.Errorf("its layout has images for %d platforms, expected %d", len(b.images), len(j.build))
	}
	if len(j.build) == len(j.expected) {
		b.index = f.manifest
	}
	return b, nil
}

// is reports whether the program is that of a revision.
func (p Program) is(r revision.Revision) bool {
	commit, err := module.PseudoVersionRev(r.Version)
	return p.Version == r.Version || err == nil && strings.HasPrefix(p.Revision, commit) && isCommit.MatchString(p.Revision)
}

// ofProject reports whether a program of the image is compiled from this project's own source.
func ofProject(name string) bool {
	return slices.Contains([]string{plan.Entrypoint, plan.Tools}, path.Base(name))
}

// upstreamDiffers reports whether a program of upstream's differs from what this program
// compiles. No revision of this project changes what those are.
func (s *Subject) upstreamDiffers() bool {
	return slices.ContainsFunc(s.Platforms, func(p *PlatformResult) bool {
		return slices.ContainsFunc(p.Checks, func(c Check) bool { return c.Level == LevelBinary && c.failed() && !ofProject(c.Name) })
	})
}

// otherwise names what differs by itself.
func (s *Subject) otherwise() (names []string) {
	if s.Builder != nil {
		return s.Builder.Otherwise
	}
	for _, e := range s.Explanations {
		for _, name := range e.Names {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) > 3 {
		names = append(names[:3], fmt.Sprintf("%d others", len(names)-3))
	}
	return names
}

// discard removes what another revision's program has made.
func (j *job) discard() {
	for _, c := range j.opened {
		c.Close()
	}
	for _, dir := range j.temporary {
		_ = cache.RemoveAll(dir) // what stays is removed when the cache is opened again
	}
	j.opened, j.temporary = nil, nil
}
