package release

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/delivery"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// entry is what the journal says of a step with such needs that is done now.
func (r *Release) entry(needs Need) entry {
	e := entry{Program: r.Program, Repositories: r.repositoriesOf(needs)}
	switch {
	case needs&Containers != 0:
		e.With = r.Runner
	case needs&Identity != 0 && r.Signer != nil:
		e.With, e.Command = r.Signer.String(), r.Signer.Command()
	}
	if l, err := r.lock(); err == nil && l.Outputs != nil {
		e.Images = digestsOf(l)
	}
	return e
}

// update makes the release's lock: the one in LockFile, or what follows on it. The
// outputs of an earlier run for the same inputs are kept.
func (r *Release) update(ctx context.Context, before *lock.Lock, _ []Part) error {
	old, err := os.ReadFile(r.LockFile)
	if err != nil && !(r.Renew && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	var l *lock.Lock
	if err == nil {
		if l, err = lock.Read(r.LockFile); err != nil {
			return err
		}
	}
	var changes []string
	if r.Renew {
		if l, changes, err = r.Tools.Update(ctx, l); err != nil {
			return err
		}
	}
	// Another program may give another image.
	if before != nil && l.Outputs == nil && r.journal.entries["build"].Program == r.Program {
		was := before.Inputs
		was.Revision, was.Format = l.Inputs.Revision, l.Inputs.Format // which the step build sets
		if reflect.DeepEqual(was, l.Inputs) && reflect.DeepEqual(before.Published, l.Published) {
			l.Inputs, l.Outputs = before.Inputs, before.Outputs
		}
	}
	if err := l.Write(r.path(lockName)); err != nil {
		return err
	}
	if l.IsWithdrawn() {
		r.say("update: %s was withdrawn, and is not published until there is another image", l.Inputs.ImageVersion())
	}
	e := r.entry(Sources)
	e.Base, e.Changes = digestOf(old), changes
	if last := r.journal.entries["update"]; len(changes) == 0 && last.Base == e.Base {
		e.Changes = last.Changes // only the run that brings the release knows them
	}
	return r.journal.put("update", Part{}, e)
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func (r *Release) compile(ctx context.Context, _ *lock.Lock, parts []Part) error {
	return r.Tools.Compile(ctx, r.path(lockName), variantsOf(parts), r.path(compiledName))
}

func (r *Release) build(ctx context.Context, _ *lock.Lock, _ []Part) error {
	return r.Tools.Build(ctx, r.path(lockName), r.path(compiledName), r.layout())
}

// variantsOf are the variants of parts, each once.
func variantsOf(parts []Part) (names []string) {
	for _, p := range parts {
		if !slices.Contains(names, p.Variant) {
			names = append(names, p.Variant)
		}
	}
	return names
}

// test tests the variants one after the other, each on all its platforms.
func (r *Release) test(ctx context.Context, l *lock.Lock, parts []Part) error {
	r.tested = map[Part][]attest.Tests{}
	for _, v := range l.Inputs.Variants {
		var platforms []lock.Platform
		for _, p := range parts {
			if p.Variant == v.Name {
				platforms = append(platforms, p.Platform)
			}
		}
		if platforms == nil {
			continue
		}
		report := testName + "-" + v.Name
		if r.Platforms != nil { // other machines have the others
			report += "-" + platforms[0].Slug()
		}
		tests, err := r.Tools.Test(ctx, delivery.LayoutOf(r.layout(), v), platforms, r.path(report+".xml"))
		if err != nil {
			return err
		}
		for _, t := range tests {
			part := Part{v.Name, t.Platform}
			r.tested[part] = append(r.tested[part], t)
		}
	}
	return nil
}

// results are what the step test found for a variant, as the journal has it: it may come from
// other machines, and whoever signs looks that it is of the images at hand.
func (r *Release) results(in lock.Inputs, variant string) (tests []attest.Tests, err error) {
	for _, p := range in.Platforms {
		part := Part{variant, p}
		found := r.journal.entries[entryName("test", part)].Tests
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: the journal has no results of the step test for %s: run it again", r.Folder, part)
		}
		tests = append(tests, found...)
	}
	return tests, nil
}

func (r *Release) push(ctx context.Context, l *lock.Lock, _ []Part) error {
	err := r.pushWith(ctx, l, false)
	if errors.Is(err, image.ErrCorrupt) && r.whole {
		// What the layout has is found corrupt when it is read: it is built anew. A
		// machine that may push and did not build compiles nothing.
		fmt.Fprintf(r.Log, "%v; rebuilding\n", err)
		err = nil
		for _, v := range l.Inputs.Variants {
			err = errors.Join(err, image.DropCorrupt(delivery.LayoutOf(r.layout(), v)))
		}
		if err = errors.Join(err, r.build(ctx, l, nil)); err == nil {
			err = r.pushWith(ctx, l, false)
		}
	}
	return err
}

// tag moves the tags. What those that always move named before is in the journal before
// anything moves, for the notes.
func (r *Release) tag(ctx context.Context, l *lock.Lock, _ []Part) error {
	if e := r.entry(Push); !r.journal.covers("before", Part{}, e.Images, nil) {
		e.Before = Digests{}
		for _, v := range l.Inputs.Variants {
			tags := tagsOf(l.Inputs.ImageVersion(), v)
			digest, err := r.named(ctx, r.Repositories[0], tags[len(tags)-1].Name)
			if err != nil {
				return err
			}
			if digest != "" {
				e.Before[v.Name] = digest
			}
		}
		if err := r.journal.put("before", Part{}, e); err != nil {
			return err
		}
	}
	if err := r.Registry.NameBefore(ctx, l, r.Repositories); err != nil {
		return err
	}
	return r.pushWith(ctx, l, true)
}

// pushWith pushes the images of all variants, with their tags or without.
func (r *Release) pushWith(ctx context.Context, l *lock.Lock, tags bool) error {
	plan := registry.Plan{Repositories: r.Repositories, Retag: r.Retag, Verify: !tags}
	for _, v := range l.Inputs.Variants {
		of, err := l.Of(v.Name)
		if err != nil {
			return err
		}
		content, err := registry.Read(delivery.LayoutOf(r.layout(), v), of)
		if err != nil {
			return err
		}
		if tags {
			content.Tags = tagsOf(l.Inputs.ImageVersion(), v)
		}
		plan.Images = append(plan.Images, content)
	}
	r.Registry.Display = r.display()
	defer r.Registry.Display.Close()
	_, err := r.Registry.Push(ctx, plan)
	return err
}

func (r *Release) verify(ctx context.Context, l *lock.Lock, parts []Part) error {
	return r.Tools.Verify(ctx, l, r.references(l, variantsOf(parts)...))
}

// sign leaves what is signed already as it is.
func (r *Release) sign(ctx context.Context, l *lock.Lock, _ []Part) error {
	if r.Signer == nil {
		return nil
	}
	for _, v := range l.Inputs.Variants {
		tests, err := r.results(l.Inputs, v.Name)
		if err != nil {
			return err
		}
		found := Findings{Scans: r.path(scansName), Tests: tests}
		if err := r.Signer.Sign(ctx, r.path(lockName), delivery.LayoutOf(r.layout(), v), found, r.Repositories); err != nil {
			return err
		}
	}
	return nil
}

// published reports whether the registries have all of the release: its tags are in
// place everywhere, and what they name is signed.
func (r *Release) published(ctx context.Context, l *lock.Lock) (bool, error) {
	plan := registry.Plan{Repositories: r.Repositories, Retag: r.Retag, DryRun: true}
	for _, v := range l.Inputs.Variants {
		digest, err := v1.NewHash(l.Outputs[v.Name].Index)
		if err != nil {
			return false, err
		}
		plan.Images = append(plan.Images, registry.ByDigest(l.Inputs.Version(), digest, tagsOf(l.Inputs.ImageVersion(), v)...))
	}
	report, err := r.Registry.Push(ctx, plan)
	if err != nil {
		return false, err
	}
	moves := slices.ContainsFunc(report.Repositories, func(p *registry.PushedRepository) bool { return p.Missing != nil })
	if moves || r.Signer == nil {
		return !moves, nil
	}
	signed, err := r.Signer.Signed(ctx, r.references(l, l.Inputs.VariantNames()...))
	if err == nil && !signed {
		r.say("%s: the tags are in place, and an image is not signed by %s", l.Inputs.ImageVersion(), r.Signer)
	}
	return signed, err
}
