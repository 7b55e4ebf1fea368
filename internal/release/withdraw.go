package release

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// A Withdrawal says what became of the tags of a release that was withdrawn.
type Withdrawal struct {
	Version string         `json:"version"`
	Tags    []WithdrawnTag `json:"tags"`
}

// A WithdrawnTag says where a tag was, and where it is.
type WithdrawnTag struct {
	// Tag is the tag as REPOSITORY:TAG.
	Tag string `json:"tag"`
	// From is the digest that it named, To the one that it names: the same one where it
	// named another image, or no earlier image has it.
	From string `json:"from"`
	To   string `json:"to"`
	// Stays is set for a tag that still names what was withdrawn: no earlier image has it.
	Stays bool `json:"stays,omitempty"`
}

// Withdraw moves the tags that move, of all variants, from an image back to the one before
// it, in all repositories or in none, and marks it in the lock, so that it is not published
// again until there is another one. What is withdrawn is one revision, 1.102.3-r1, or, by
// the version of the release, all its revisions. Their own tags stay. The mark comes first:
// a withdrawal that is interrupted is finished by running it again, and no schedule
// publishes the image meanwhile.
//
// A tag goes back to the newest earlier image that would have it: 1.104 to another
// 1.104, latest to the channel's. One that no earlier image has stays where it is.
func (r *Release) Withdraw(ctx context.Context, version string) (*Withdrawal, error) {
	unlock, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := lock.ParseImageVersion(version)
	if err != nil {
		return nil, fmt.Errorf("withdraw: %w", err)
	}
	mark := v.Tailscale
	if strings.TrimPrefix(version, "v") == v.String() {
		mark = v.String()
	}
	l, err := lock.Read(r.LockFile)
	if err != nil {
		return nil, err
	}
	plan := registry.Plan{Repositories: r.Repositories}
	w := &Withdrawal{Version: strings.TrimPrefix(mark, "v")}
	var tagged []string
	for _, variant := range l.Inputs.Variants {
		bad, err := r.withdrawVariant(ctx, l, variant, mark, &plan, w)
		if err != nil {
			return nil, err
		}
		if variant.Suffix == "" { // for whose tags releases are named
			tagged = bad
		}
	}
	if plan.From == nil {
		return nil, fmt.Errorf("withdraw %s: %s has no such image", version, strings.Join(r.Repositories, " or "))
	}
	if !slices.Contains(l.Withdrawn, mark) {
		l.Withdrawn = append(l.Withdrawn, mark)
		slices.SortFunc(l.Withdrawn, func(a, b string) int {
			v, _ := lock.ParseImageVersion(a) // of a lock, which is checked
			w, _ := lock.ParseImageVersion(b)
			return cmp.Or(v.Compare(w), cmp.Compare(a, b))
		})
	}
	if err := r.Recorder.Withdraw(ctx, l, w.Version, tagged); err != nil {
		return nil, fmt.Errorf("withdraw %s: %w", version, err)
	}
	r.say("%s is marked as withdrawn", mark)
	if plan.Images == nil {
		return w, nil
	}
	if _, err := r.Registry.Move(ctx, plan); err != nil {
		return nil, &StepError{"tag", err}
	}
	return w, nil
}

// withdrawVariant adds to the plan where the moving tags of a variant go back to, and what
// they must name to do so, and says in w what becomes of them. It returns the tags of the
// images that are withdrawn.
func (r *Release) withdrawVariant(ctx context.Context, l *lock.Lock, variant lock.Variant, mark string, plan *registry.Plan, w *Withdrawal) (tagged []string, err error) {
	have, err := r.have(ctx, variant)
	if err != nil {
		return nil, err
	}
	isWithdrawn := func(p registry.Published) bool { return p.In([]string{mark}) }
	var from []v1.Hash
	var newest lock.ImageVersion
	for _, p := range have {
		if isWithdrawn(p) { // the newest is the last
			digest, err := r.digest(ctx, p)
			if err != nil {
				return nil, err
			}
			newest, from, tagged = p.ImageVersion, append(from, digest), append(tagged, p.Tag)
		}
	}
	if from == nil {
		return nil, nil // it was released without this variant
	}
	plan.From = append(plan.From, from...)
	earlier := slices.DeleteFunc(have, func(p registry.Published) bool {
		return p.Compare(newest) >= 0 || isWithdrawn(p) || p.In(l.Withdrawn) || lock.ChannelOf(p.Tailscale) != lock.ChannelOf(newest.Tailscale)
	})
	slices.Reverse(earlier) // the newest first
	for _, tag := range tagsOf(newest, variant) {
		if !tag.Moves {
			continue
		}
		to, err := r.goesBackTo(ctx, tag, variant, earlier, from)
		if err != nil {
			return nil, err
		}
		for _, repository := range r.Repositories {
			at, err := r.named(ctx, repository, tag.Name)
			if err != nil {
				return nil, err
			}
			t := WithdrawnTag{Tag: repository + ":" + tag.Name, From: at, To: at}
			if slices.ContainsFunc(from, func(d v1.Hash) bool { return d.String() == at }) {
				if t.Stays = to == nil; to != nil {
					t.To = to.Digest.String()
				}
			}
			w.Tags = append(w.Tags, t)
		}
		if to == nil {
			continue
		}
		i := slices.IndexFunc(plan.Images, func(c *registry.Content) bool { return c.Digest == to.Digest })
		if i < 0 {
			i = len(plan.Images)
			plan.Images = append(plan.Images, to)
		}
		plan.Images[i].Tags = append(plan.Images[i].Tags, tag)
	}
	return tagged, nil
}

// goesBackTo is the newest of the earlier images of a variant that would have a tag, and is
// none of those that are withdrawn, under whatever name; nil for none.
func (r *Release) goesBackTo(ctx context.Context, tag registry.Tag, variant lock.Variant, earlier []registry.Published, withdrawn []v1.Hash) (*registry.Content, error) {
	for _, p := range earlier {
		if !slices.Contains(tagsOf(p.ImageVersion, variant), tag) {
			continue
		}
		digest, err := r.digest(ctx, p)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(withdrawn, digest) {
			return registry.ByDigest(p.String(), digest), nil
		}
	}
	return nil, nil
}

// have are the images of a variant that every repository has, from the oldest to the newest.
func (r *Release) have(ctx context.Context, variant lock.Variant) (common []registry.Published, err error) {
	for i, repository := range r.Repositories {
		have, err := r.Registry.Versions(ctx, repository, variant.Suffix)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			common = have
		}
		common = slices.DeleteFunc(common, func(p registry.Published) bool { return !slices.Contains(have, p) })
	}
	return common, nil
}

// digest is the digest of an image, which must be the same in all repositories.
func (r *Release) digest(ctx context.Context, p registry.Published) (digest v1.Hash, err error) {
	for i, repository := range r.Repositories {
		s, err := r.named(ctx, repository, p.Tag)
		if err != nil {
			return digest, err
		}
		h, err := v1.NewHash(s)
		if err == nil && i > 0 && h != digest {
			err = fmt.Errorf("it is %s in %s", digest, r.Repositories[0])
		}
		if err != nil {
			return digest, fmt.Errorf("%s:%s: %q: %w", repository, p.Tag, s, err)
		}
		digest = h
	}
	return digest, nil
}

// named is the digest that a tag names in a repository, "" for none.
func (r *Release) named(ctx context.Context, repository, tag string) (string, error) {
	opened, err := r.Registry.Open(ctx, repository+":"+tag, registry.Pull)
	if err != nil {
		return "", err
	}
	d, err := opened.Resolve(ctx)
	if registry.NotFound(err) {
		return "", nil
	}
	return d.Digest.String(), err
}
