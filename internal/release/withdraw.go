package release

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/mod/semver"

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
	// named another release, or no earlier release has it.
	From string `json:"from"`
	To   string `json:"to"`
}

// Withdraw moves the tags that move from a release back to the release before it, in
// all repositories, and marks it in the lock, so that it is not published again until
// there is a newer one. The tags of the version itself stay. The mark comes first: a
// withdrawal that is interrupted is finished by running it again, and no schedule
// publishes the release meanwhile.
//
// A tag goes back to the newest earlier release that would have it: 1.104 to another
// 1.104, latest to the channel's. One that no earlier release has stays where it is.
func (r *Release) Withdraw(ctx context.Context, version string) (*Withdrawal, error) {
	unlock, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	version = "v" + strings.TrimPrefix(version, "v")
	l, err := lock.Read(r.LockFile)
	if err != nil {
		return nil, err
	}
	tags, err := registry.Tags(version, lock.ChannelOf(version))
	if err != nil {
		return nil, err
	}
	earlier, err := r.earlier(ctx, version, l.Withdrawn)
	if err != nil {
		return nil, err
	}
	withdrawn, err := r.digest(ctx, version)
	if err != nil {
		return nil, err
	}
	var plans []registry.Plan // one for each release that tags go back to
	w := &Withdrawal{Version: strings.TrimPrefix(version, "v")}
	for _, tag := range tags {
		if !tag.Moves {
			continue
		}
		var to *registry.Content
		i := slices.IndexFunc(earlier, func(v string) bool { // newest first
			have, _ := registry.Tags(v, lock.ChannelOf(v)) // of a version, which registries have: no error
			return slices.Contains(have, tag)
		})
		if i >= 0 {
			digest, err := r.digest(ctx, earlier[i])
			if err != nil {
				return nil, err
			}
			to = registry.ByDigest(earlier[i], digest)
		}
		for _, repository := range r.Repositories {
			from, err := r.named(ctx, repository, tag.Name)
			if err != nil {
				return nil, err
			}
			t := WithdrawnTag{Tag: repository + ":" + tag.Name, From: from, To: from}
			if from == withdrawn.String() && to != nil {
				t.To = to.Digest.String()
			}
			w.Tags = append(w.Tags, t)
		}
		if to == nil {
			continue
		}
		i = slices.IndexFunc(plans, func(p registry.Plan) bool { return p.Release.Version == to.Version })
		if i < 0 {
			i = len(plans)
			plans = append(plans, registry.Plan{Release: to, Repositories: r.Repositories, From: withdrawn})
		}
		plans[i].Tags = append(plans[i].Tags, tag)
	}
	if len(plans) == 0 {
		return nil, fmt.Errorf("withdraw %s: no earlier release of its channel is in all of %s; --repo names fewer", version, strings.Join(r.Repositories, ", "))
	}
	if !slices.Contains(l.Withdrawn, version) {
		l.Withdrawn = append(l.Withdrawn, version)
		slices.SortFunc(l.Withdrawn, semver.Compare)
	}
	if err := r.Recorder.Withdraw(ctx, l, version); err != nil {
		return nil, fmt.Errorf("withdraw %s: %w", version, err)
	}
	r.say("%s is marked as withdrawn", version)
	for _, p := range plans {
		if _, err := r.Registry.Move(ctx, p); err != nil {
			return nil, &StepError{"tag", err}
		}
	}
	return w, nil
}

// earlier are the versions below one, of the same channel, that every repository has a
// tag of and that were not withdrawn; the newest first.
func (r *Release) earlier(ctx context.Context, version string, withdrawn []string) ([]string, error) {
	var common []string
	for i, repository := range r.Repositories {
		have, err := r.Registry.Versions(ctx, repository)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(have, version) {
			return nil, fmt.Errorf("withdraw %s: %s has no such release", version, repository)
		}
		if i == 0 {
			common = have
		}
		common = slices.DeleteFunc(common, func(v string) bool { return !slices.Contains(have, v) })
	}
	common = slices.DeleteFunc(common, func(v string) bool {
		return semver.Compare(v, version) >= 0 || lock.ChannelOf(v) != lock.ChannelOf(version) || slices.Contains(withdrawn, v)
	})
	slices.SortFunc(common, func(a, b string) int { return semver.Compare(b, a) })
	return common, nil
}

// digest is the digest of a version's image, which must be the same in all repositories.
func (r *Release) digest(ctx context.Context, version string) (digest v1.Hash, err error) {
	for i, repository := range r.Repositories {
		s, err := r.named(ctx, repository, version)
		if err != nil {
			return digest, err
		}
		h, err := v1.NewHash(s)
		if err == nil && i > 0 && h != digest {
			err = fmt.Errorf("it is %s in %s", digest, r.Repositories[0])
		}
		if err != nil {
			return digest, fmt.Errorf("%s:%s: %q: %w", repository, version, s, err)
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
