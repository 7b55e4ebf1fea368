package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
)

// A Plan is what to push, and where to.
type Plan struct {
	// Images are those of a release, one for each variant, with their tags.
	Images       []*Content
	Repositories []string
	// From leaves moving tags where they are that name another digest than these; nil
	// for none.
	From []v1.Hash
	// Retag lets moving tags go back to an older version.
	Retag bool
	// Verify looks everything over also where all tags are in place already.
	Verify bool
	// DryRun only says what would be done.
	DryRun bool

	there bool // it is in the repositories already, and nothing is uploaded
}

// versions are those of the images: of a release one, of a withdrawal one for each variant.
func (p Plan) versions() string {
	var list []string
	for _, image := range p.Images {
		list = append(list, fmt.Sprint(image.Version))
	}
	return strings.Join(slices.Compact(list), ", ")
}

// Pushed says what became of a push, or would.
type Pushed struct {
	Images       []PushedImage       `json:"images"`
	DryRun       bool                `json:"dryRun"`
	Repositories []*PushedRepository `json:"repositories"`
}

// A PushedImage names one of the images.
type PushedImage struct {
	Version string `json:"version"`
	Variant string `json:"variant,omitempty"`
	Digest  string `json:"digest"`
}

// A PushedRepository is one repository's part of Pushed.
type PushedRepository struct {
	Repository string `json:"repository"`
	// References are those of the images, by digest.
	References []string `json:"references"`
	// Missing is what it lacked before, and what was therefore uploaded or mounted;
	// nil when all its tags were in place, and nothing else was looked at.
	Missing *Missing `json:"missing,omitempty"`
	// MountedFrom is the repository that blobs may have been mounted from.
	MountedFrom string      `json:"mountedFrom,omitempty"`
	Tags        []PushedTag `json:"tags"`
}

// A PushedTag says where a tag was and is.
type PushedTag struct {
	Tag string `json:"tag"`
	// From is the digest that it pointed at; empty for none.
	From string `json:"from,omitempty"`
	To   string `json:"to"`
	// Changed is set when the two are not the same.
	Changed bool `json:"changed"`
}

// Push pushes images to repositories and moves their tags to them, as the package says: no
// tag of any of them moves before all are everywhere. What it returns is what was found and
// done up to an error.
//
// Among the errors are a [TagError] for a tag that may not move, and a [MoveError]
// for tags that were left half way.
func (c *Client) Push(ctx context.Context, p Plan) (*Pushed, error) {
	pushed := &Pushed{DryRun: p.DryRun}
	for i, img := range p.Images {
		pushed.Images = append(pushed.Images, PushedImage{img.Version, img.Variant, img.Digest.String()})
		if img.store == nil && !p.DryRun && !p.there {
			return pushed, fmt.Errorf("release %s: has no content to push", img.Version)
		}
		for _, other := range p.Images[:i] {
			for _, tag := range other.Tags {
				if slices.Contains(img.Tags, tag) {
					return pushed, fmt.Errorf("tag %s is for two images: %s and %s", tag.Name, other.Digest, img.Digest)
				}
			}
		}
	}
	targets, err := c.targets(ctx, p.Repositories)
	if err != nil {
		return pushed, err
	}
	for _, t := range targets {
		t.all = &content{}
		for _, img := range p.Images {
			if !p.there {
				t.all.addAll(&img.content)
				continue
			}
			t.all.store = t
			err := t.all.add(ctx, v1.Descriptor{Digest: img.Digest})
			if NotFound(err) {
				err = fmt.Errorf("%s: version %s %w: %w", t, img.Version, ErrIncomplete, err)
			}
			if err != nil {
				return pushed, err
			}
		}
	}
	if err := c.lookUp(ctx, p, targets); err != nil {
		return pushed, err
	}
	inPlace := true
	for _, t := range targets {
		r := &PushedRepository{Repository: t.String()}
		for _, img := range pushed.Images {
			r.References = append(r.References, t.String()+"@"+img.Digest)
		}
		for _, m := range t.moves {
			tag := PushedTag{Tag: m.tag.Name, To: m.to.digest.String(), Changed: !m.done()}
			if m.from != nil {
				tag.From = m.from.digest.String()
			}
			r.Tags = append(r.Tags, tag)
			inPlace = inPlace && m.done()
		}
		pushed.Repositories = append(pushed.Repositories, r)
	}
	if !p.Verify && inPlace {
		return pushed, nil
	}
	if err := c.survey(ctx, p, targets, pushed); err != nil || p.DryRun {
		return pushed, err
	}
	if err := c.uploadAll(ctx, targets); err != nil {
		return pushed, err
	}
	// Minutes may have passed: who else has moved tags?
	if err = c.lookUp(ctx, p, targets); err != nil {
		return pushed, err
	}
	if err := ctx.Err(); err != nil {
		return pushed, err
	}
	var moves []*move
	for _, t := range targets {
		moves = append(moves, t.moves...)
	}
	return pushed, c.moveAll(ctx, moves)
}

// Move moves tags to images that all repositories have, whole, as to an older one to go
// back to; a tag that does not move is set where there is none. It uploads nothing, and is
// as careful with the tags as [Client.Push]. The error is [ErrIncomplete] if a repository
// lacks something of an image.
func (c *Client) Move(ctx context.Context, p Plan) (*Pushed, error) {
	p.there, p.Retag, p.Verify = true, true, true
	return c.Push(ctx, p)
}

// NameBefore gives the image that was published before the lock's, of the same release of
// tailscale, the tag of its revision where it has none: it was published when there were no
// revisions, under tags that now move on. It is for the default variant. A repository that
// does not have the image is left as it is.
func (c *Client) NameBefore(ctx context.Context, l *lock.Lock, repositories []string) error {
	p := l.Published
	if p == nil || p.Revision >= l.Inputs.Revision {
		return nil
	}
	digest, err := v1.NewHash(p.Index[lock.Default])
	if err != nil {
		return nil // no image of this variant
	}
	v := lock.ImageVersion{Tailscale: l.Inputs.Tailscale.Version, Revision: p.Revision}
	for _, repository := range repositories {
		opened, err := c.Open(ctx, repository+":"+v.String(), Pull)
		if err == nil {
			_, err = opened.Resolve(ctx)
		}
		if NotFound(err) {
			plan := Plan{Images: []*Content{ByDigest(v.String(), digest, Tag{Name: v.String()})}, Repositories: []string{repository}}
			if _, err = c.Move(ctx, plan); errors.Is(err, ErrIncomplete) {
				err = nil // it was never there
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A target is a repository with what it is to have, what it lacks of that, and where its
// tags are.
type target struct {
	*Repository
	from, next *target // the one before it in the same registry, and the one after it
	all, lacks *content
	moves      []*move
}

// targets opens the repositories, each once, and each with the right to pull from those
// before it in the same registry.
func (c *Client) targets(ctx context.Context, names []string) (targets []*target, err error) {
	if len(names) == 0 {
		return nil, errors.New("no repository to push to")
	}
	for _, n := range names {
		if err := CheckName(n); err != nil {
			return nil, err
		}
		ref, err := parse(n)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(targets, func(b *target) bool { return b.name == ref.name }) {
			continue
		}
		t := &target{Repository: &Repository{reference: ref, client: c}}
		for _, before := range targets {
			if before.name.Registry == ref.name.Registry {
				t.from = before
			}
		}
		if t.from != nil {
			t.from.next = t
		}
		targets = append(targets, t)
	}
	return targets, each(ctx, targets, func(ctx context.Context, _ int, t *target) error {
		var others []name.Repository
		for b := t.from; b != nil; b = b.from {
			others = append(others, b.name)
		}
		return t.login(ctx, Push, others)
	})
}

// lookUp finds out where the tags are, in every repository, and whether they may
// move.
func (c *Client) lookUp(ctx context.Context, p Plan, targets []*target) error {
	return each(ctx, targets, func(ctx context.Context, _ int, t *target) error {
		type name struct {
			tag Tag
			of  *Content
		}
		var names []name
		for _, img := range p.Images {
			for _, tag := range img.Tags {
				names = append(names, name{tag, img})
			}
		}
		moves := make([]*move, len(names))
		err := each(ctx, names, func(ctx context.Context, i int, n name) (err error) {
			moves[i], err = t.lookUp(ctx, p, n.of, n.tag)
			return c.failed(t.Repository, "tag "+n.tag.Name, err)
		})
		t.moves = slices.DeleteFunc(moves, func(m *move) bool { return m == nil })
		return err
	})
}

// survey finds out what each repository lacks.
func (c *Client) survey(ctx context.Context, p Plan, targets []*target, pushed *Pushed) error {
	return each(ctx, targets, func(ctx context.Context, i int, t *target) error {
		if err := t.survey(ctx); err != nil {
			return c.failed(t.Repository, "look", err)
		}
		lacks := t.lacks.summary()
		if p.there && len(lacks.Digests) > 0 {
			return fmt.Errorf("%s: version %s %w: it lacks %s", t, p.versions(), ErrIncomplete, strings.Join(lacks.Digests, ", "))
		}
		pushed.Repositories[i].Missing = lacks
		if t.from != nil && lacks.Blobs > 0 {
			pushed.Repositories[i].MountedFrom = t.from.String()
		}
		return nil
	})
}

// uploadAll uploads to all registries at once, and within a registry to one
// repository after the other, so that blobs can be mounted.
func (c *Client) uploadAll(ctx context.Context, targets []*target) error {
	display := c.Display
	if display == nil {
		display = progress.New(io.Discard)
		defer display.Close()
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, first := range targets {
		if first.from != nil {
			continue // after that one
		}
		g.Go(func() error {
			for t := first; t != nil; t = t.next {
				task, total := display.Start("push "+t.String(), "B"), t.lacks.summary().Bytes
				var mu sync.Mutex
				var done int64
				err := t.upload(ctx, func(n int64) {
					mu.Lock()
					defer mu.Unlock()
					done += n
					task.Set(done, total)
				})
				task.End(err)
				if err != nil {
					return c.failed(t.Repository, "push", err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// A TagError says that a tag may not move.
type TagError struct {
	Repository, Tag string
	// From is the digest that it points at, To the one that it would move to.
	From, To string
	// Version is what From is, where From tells.
	Version string
	// Moves is set for a tag that moves, and only not backwards.
	Moves bool
}

func (e *TagError) Error() string {
	if e.Moves {
		return fmt.Sprintf("it is at %s, version %s, which is newer", e.From, e.Version)
	}
	return fmt.Sprintf("it names %s for ever, and would name %s", e.From, e.To)
}
