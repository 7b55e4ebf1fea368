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
func (r *Release) update(ctx context.Context, before *lock.Lock, _ []lock.Platform) error {
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
	if v := l.Inputs.Variants; len(v) > 1 || v[0].Name != lock.Default || v[0].Suffix != "" {
		return fmt.Errorf("%s: has other variants than %s, and this program releases only that", r.LockFile, lock.Default)
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
	return r.journal.put("update", "", e)
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func (r *Release) build(ctx context.Context, _ *lock.Lock, _ []lock.Platform) error {
	return r.Tools.Build(ctx, r.path(lockName), r.layout())
}

func (r *Release) test(ctx context.Context, _ *lock.Lock, platforms []lock.Platform) error {
	return r.Tools.Test(ctx, r.layout(), platforms, r.path(testName))
}

func (r *Release) push(ctx context.Context, l *lock.Lock, _ []lock.Platform) error {
	err := r.pushWith(ctx, l, nil)
	if errors.Is(err, image.ErrCorrupt) && r.whole {
		// What the layout has is found corrupt when it is read: it is built anew. A
		// machine that may push and did not build compiles nothing.
		fmt.Fprintf(r.Log, "%v; rebuilding\n", err)
		if err = errors.Join(image.DropCorrupt(r.layout()), r.build(ctx, l, nil)); err == nil {
			err = r.pushWith(ctx, l, nil)
		}
	}
	return err
}

// tag moves the tags. What the one that always moves named before is in the journal
// before anything moves, for the notes.
func (r *Release) tag(ctx context.Context, l *lock.Lock, _ []lock.Platform) error {
	var err error
	tags, e := tagsOf(l.Inputs.ImageVersion()), r.entry(Push)
	if !r.journal.covers("before", "", e.Images, nil) {
		if e.Before, err = r.named(ctx, r.Repositories[0], tags[len(tags)-1].Name); err != nil {
			return err
		}
		if err := r.journal.put("before", "", e); err != nil {
			return err
		}
	}
	if err := r.Registry.NameBefore(ctx, l, r.Repositories); err != nil {
		return err
	}
	return r.pushWith(ctx, l, tags)
}

func (r *Release) pushWith(ctx context.Context, l *lock.Lock, tags []registry.Tag) error {
	image, err := registry.Read(r.layout(), l)
	if err != nil {
		return err
	}
	image.Tags = tags
	r.Registry.Display = r.display()
	defer r.Registry.Display.Close()
	_, err = r.Registry.Push(ctx, registry.Plan{
		Images: []*registry.Content{image}, Repositories: r.Repositories, Retag: r.Retag, Verify: tags == nil,
	})
	return err
}

func (r *Release) verify(ctx context.Context, l *lock.Lock, _ []lock.Platform) error {
	return r.Tools.Verify(ctx, l, r.references(l))
}

// sign leaves what is signed already as it is.
func (r *Release) sign(ctx context.Context, _ *lock.Lock, _ []lock.Platform) error {
	if r.Signer == nil {
		return nil
	}
	return r.Signer.Sign(ctx, r.path(lockName), r.layout(), r.Repositories)
}

// published reports whether the registries have all of the release: its tags are in
// place everywhere, and what they name is signed.
func (r *Release) published(ctx context.Context, l *lock.Lock) (bool, error) {
	tags := tagsOf(l.Inputs.ImageVersion())
	digest, err := v1.NewHash(l.Output().Index)
	if err != nil {
		return false, err
	}
	report, err := r.Registry.Push(ctx, registry.Plan{
		Images: []*registry.Content{registry.ByDigest(l.Inputs.Version(), digest, tags...)}, Repositories: r.Repositories, Retag: r.Retag, DryRun: true,
	})
	if err != nil {
		return false, err
	}
	moves := slices.ContainsFunc(report.Repositories, func(p *registry.PushedRepository) bool { return p.Missing != nil })
	if moves || r.Signer == nil {
		return !moves, nil
	}
	signed, err := r.Signer.Signed(ctx, r.references(l))
	if err == nil && !signed {
		r.say("%s: the tags are in place, and the image is not signed by %s", l.Inputs.ImageVersion(), r.Signer)
	}
	return signed, err
}
