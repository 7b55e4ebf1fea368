package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// A Plan is what to push, and where to.
type Plan struct {
	Release      *Release
	Repositories []string
	Tags         []Tag
	// Retag lets the tag of a version go on to another digest, and a moving tag
	// back to an older version.
	Retag bool
	// Verify looks everything over also where all tags are in place already.
	Verify bool
	// DryRun only says what would be done.
	DryRun bool
}

// A Report says what became of a push, or would.
type Report struct {
	Version      string              `json:"version"`
	Digest       string              `json:"digest"`
	DryRun       bool                `json:"dryRun"`
	Repositories []*RepositoryReport `json:"repositories"`
}

// A RepositoryReport is one repository's part of a Report.
type RepositoryReport struct {
	Repository string `json:"repository"`
	Reference  string `json:"reference"`
	// Missing is what it lacked before, and what was therefore uploaded or mounted;
	// nil when all its tags were in place, and nothing else was looked at.
	Missing *Missing `json:"missing,omitempty"`
	// MountedFrom is the repository that blobs may have been mounted from.
	MountedFrom string      `json:"mountedFrom,omitempty"`
	Tags        []TagReport `json:"tags"`
}

// A TagReport says where a tag was and is.
type TagReport struct {
	Tag string `json:"tag"`
	// From is the digest that it pointed at; empty for none.
	From string `json:"from,omitempty"`
	To   string `json:"to"`
	// Changed is set when the two are not the same.
	Changed bool `json:"changed"`
}

// Push pushes a release to repositories and moves the tags to it, as the package
// says. The report is of what was found and done up to an error.
//
// Among the errors are a [TagError] for a tag that may not move, and a [MoveError]
// for tags that were left half way.
func (c *Client) Push(ctx context.Context, p Plan) (*Report, error) {
	report := &Report{Version: p.Release.Version, Digest: p.Release.Digest.String(), DryRun: p.DryRun}
	if len(p.Release.content.blobs) == 0 && !p.DryRun {
		return report, fmt.Errorf("release %s: has no content to push", p.Release.Version)
	}
	targets, err := c.targets(ctx, p.Repositories)
	if err != nil {
		return report, err
	}
	moves, err := c.lookUp(ctx, p, targets, false)
	if err != nil {
		return report, err
	}
	for i, t := range targets {
		r := &RepositoryReport{Repository: t.String(), Reference: t.String() + "@" + report.Digest}
		for _, m := range moves[i] {
			r.Tags = append(r.Tags, TagReport{Tag: m.tag.Name, From: m.fromDigest(), To: report.Digest, Changed: !m.done()})
		}
		report.Repositories = append(report.Repositories, r)
	}
	if !p.Verify && inPlace(moves) {
		return report, nil
	}
	lacks, err := c.survey(ctx, p, targets, report)
	if err != nil || p.DryRun {
		return report, err
	}
	if err := c.uploadAll(ctx, p, targets, lacks); err != nil {
		return report, err
	}
	// Minutes may have passed: who else has moved tags?
	if moves, err = c.lookUp(ctx, p, targets, true); err != nil {
		return report, err
	}
	if err := ctx.Err(); err != nil {
		return report, err
	}
	for i := range targets {
		for _, m := range moves[i] {
			m.added = slices.ContainsFunc(lacks[i].manifests, func(x *manifest) bool { return x.digest == p.Release.Digest })
		}
	}
	return report, c.moveAll(ctx, slices.Concat(moves...))
}

// targets opens the repositories, each once, and each with the right to pull from those
// before it in the same registry.
func (c *Client) targets(ctx context.Context, names []string) ([]*Repository, error) {
	if len(names) == 0 {
		return nil, errors.New("no repository to push to")
	}
	targets := make([]*Repository, len(names))
	var before []reference
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range names {
		if err := CheckName(n); err != nil {
			return nil, err
		}
		ref, err := parse(n)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(before, func(b reference) bool { return b.name == ref.name }) {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(before), func(b reference) bool { return b.name.Registry != ref.name.Registry })
		before = append(before, ref)
		i := len(before) - 1
		g.Go(func() (err error) {
			targets[i], err = c.open(gctx, n, Push, others)
			return err
		})
	}
	return targets[:len(before)], g.Wait()
}

// lookUp finds out where the tags are, in every repository, and whether they may
// move.
func (c *Client) lookUp(ctx context.Context, p Plan, targets []*Repository, uploaded bool) ([][]*move, error) {
	found := make([][]*move, len(targets))
	g, gctx := errgroup.WithContext(ctx)
	for i, t := range targets {
		found[i] = make([]*move, len(p.Tags))
		for j, tag := range p.Tags {
			g.Go(func() error {
				m, err := t.lookUp(gctx, p, tag, uploaded)
				found[i][j] = m
				return c.failed(t, "tag "+tag.Name, err)
			})
		}
	}
	return found, g.Wait()
}

// survey finds out what each repository lacks.
func (c *Client) survey(ctx context.Context, p Plan, targets []*Repository, report *Report) ([]*content, error) {
	lacks := make([]*content, len(targets))
	g, gctx := errgroup.WithContext(ctx)
	for i, t := range targets {
		g.Go(func() (err error) {
			if lacks[i], err = t.missing(gctx, &p.Release.content); err != nil {
				return c.failed(t, "look", err)
			}
			m, err := lacks[i].summary()
			report.Repositories[i].Missing = &m
			if from := source(targets, i); from != nil && len(lacks[i].blobs) > 0 {
				report.Repositories[i].MountedFrom = from.String()
			}
			return err
		})
	}
	return lacks, g.Wait()
}

// source is the repository that blobs for target i are mounted from: the one before
// it in the same registry.
func source(targets []*Repository, i int) *Repository {
	for j := i - 1; j >= 0; j-- {
		if targets[j].name.Registry == targets[i].name.Registry {
			return targets[j]
		}
	}
	return nil
}

// uploadAll uploads to all registries at once, and within a registry to one
// repository after the other, so that blobs can be mounted.
func (c *Client) uploadAll(ctx context.Context, p Plan, targets []*Repository, lacks []*content) error {
	g, gctx := errgroup.WithContext(ctx)
	done := make([]chan struct{}, len(targets))
	for i := range done {
		done[i] = make(chan struct{})
	}
	for i, t := range targets {
		from := source(targets, i)
		g.Go(func() error {
			if from != nil {
				select {
				case <-done[slices.Index(targets, from)]:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
			}
			count, end := c.bar(t, lacks[i])
			err := t.upload(gctx, &p.Release.content, lacks[i], from, count)
			end(err)
			if err != nil {
				return c.failed(t, "push", err)
			}
			close(done[i])
			return nil
		})
	}
	return g.Wait()
}

// bar shows how the upload to a repository goes.
func (c *Client) bar(r *Repository, lacks *content) (count func(int64), end func(error)) {
	total, err := lacks.summary()
	if c.Display == nil || err != nil {
		return func(int64) {}, func(error) {}
	}
	task := c.Display.Start("push "+r.String(), "B")
	var mu sync.Mutex
	var done int64
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		task.Set(done, total.Bytes)
	}, task.End
}

// A TagError says that a tag may not move.
type TagError struct {
	Repository, Tag string
	// From is the digest that it points at, To the one that it would move to.
	From, To string
	// Version is what From is, where From tells.
	Version string
	moves   bool
}

func (e *TagError) Error() string {
	if e.moves {
		return fmt.Sprintf("it is at %s, version %s, which is newer", e.From, e.Version)
	}
	return fmt.Sprintf("it names %s already, and would name %s", e.From, e.To)
}
