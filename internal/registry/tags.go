package registry

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/lock"
)

// A Tag is a name for an image in a repository.
type Tag struct {
	Name string
	// Moves is set for one that goes on to newer images, as latest and 1.102.3 do. One
	// that does not move names an image for ever: 1.102.3-r1.
	Moves bool
}

// Tags are the names that an image has in every repository: that of its revision, then
// those that move to it. They end in the suffix of its variant; that of the channel stable
// is also a name of its own: latest-debug is debug, too.
func Tags(v lock.ImageVersion, suffix string, c lock.Channel) []Tag {
	release := strings.TrimPrefix(v.Tailscale, "v")
	moving := []string{release, v.Tailscale}
	if c == lock.Stable {
		moving = append(moving, semver.MajorMinor(v.Tailscale)[1:], "latest")
	} else {
		moving = append(moving, string(lock.Unstable))
	}
	tags := []Tag{{Name: v.String() + suffix}}
	for _, name := range moving {
		tags = append(tags, Tag{Name: name + suffix, Moves: true})
	}
	if own := strings.TrimPrefix(suffix, "-"); own != "" && c == lock.Stable {
		tags = append(tags, Tag{Name: own, Moves: true})
	}
	return tags
}

// NamedTags are tags that somebody chose for an image. One that names a revision must be
// the image's; any other moves.
func NamedTags(v lock.ImageVersion, suffix string, names []string) ([]Tag, error) {
	var own, moving []Tag
	for _, n := range names {
		if !validTag.MatchString(n) {
			return nil, fmt.Errorf("tag %q: expected up to 128 letters, digits, dots, dashes and underscores, not beginning with a dot or dash", n)
		}
		tag, list := Tag{Name: n, Moves: n != v.String()+suffix}, &own
		if tag.Moves && ofRevision.MatchString(n) {
			return nil, fmt.Errorf("tag %q: names another revision than the image's, %s", n, v)
		}
		if tag.Moves {
			list = &moving
		}
		if !slices.Contains(*list, tag) {
			*list = append(*list, tag)
		}
	}
	return append(own, moving...), nil
}

// A Choice says under which names an image is to be found.
type Choice struct {
	// Names are chosen by hand; none for those of the channel.
	Names []string
	// Channel is stable, unstable or, for what the version says, "".
	Channel string
	// None is for no tag at all.
	None bool
}

// Tags are the tags that were chosen for the image of a lock's first variant.
func (c Choice) Tags(in lock.Inputs) ([]Tag, error) {
	v, suffix := in.ImageVersion(), in.Variant().Suffix
	if c.None {
		return nil, nil
	}
	if len(c.Names) > 0 {
		return NamedTags(v, suffix, c.Names)
	}
	channel, err := lock.ParseChannel(cmp.Or(c.Channel, string(lock.ChannelOf(v.Tailscale))))
	if err != nil {
		return nil, err
	}
	return Tags(v, suffix, channel), nil
}

// ofRevision matches the tags of revisions, of any variant.
var ofRevision = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?-r[0-9]+(-[a-z][a-z0-9]*)?$`)

// validTag matches what may be a tag.
// Source: OCI distribution specification, v1.1, pulling manifests.
var validTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// A Published is an image that a repository has a name of for good.
type Published struct {
	lock.ImageVersion
	// Tag is that name: 1.102.3-r1, or v1.102.3 of a release that was published when
	// images had no revisions.
	Tag string
}

// Versions are the images that a repository has of the variant whose tags end in a suffix,
// from the oldest to the newest.
func (c *Client) Versions(ctx context.Context, repository, suffix string) ([]Published, error) {
	r, err := c.Open(ctx, repository, Pull)
	if err != nil {
		return nil, err
	}
	tags, err := r.tags(ctx)
	if err != nil {
		return nil, c.failed(r, "tags", err)
	}
	var list []Published
	revised := map[string]bool{}
	for _, tag := range tags {
		if v, err := lock.ParseImageVersion(strings.TrimSuffix(tag, suffix)); err == nil && v.String()+suffix == tag {
			list = append(list, Published{v, tag})
			revised[v.Tailscale] = true
		}
	}
	for _, tag := range tags { // which were of the variant without a suffix
		if v, err := lock.ParseImageVersion(tag); err == nil && suffix == "" && v.Tailscale == tag && !revised[tag] && semver.Prerelease(tag) == "" {
			list = append(list, Published{v, tag})
		}
	}
	slices.SortFunc(list, func(a, b Published) int { return a.Compare(b.ImageVersion) })
	return list, nil
}

// maxTags is the most that is read of a list of tags, in bytes and in pages: a registry may
// have one page more for ever.
const (
	maxTags     = 16 << 20
	maxTagPages = 1 << 12
)

func (r *Repository) tags(ctx context.Context) (tags []string, err error) {
	err = r.client.again(ctx, func() error {
		puller, err := remote.NewPuller(r.options(ctx)...)
		if err != nil {
			return err
		}
		list, err := puller.Lister(ctx, r.name)
		if err != nil {
			return err
		}
		tags = nil
		for pages, size := 0, 0; list.HasNext(); pages++ {
			page, err := list.Next(ctx)
			if err != nil {
				return err
			}
			for _, tag := range page.Tags {
				size += len(tag) + 16 // of a string
			}
			if tags = append(tags, page.Tags...); size > maxTags || pages > maxTagPages {
				return fmt.Errorf("%w: more than %d MiB, or %d pages, of tags", limit.Err, maxTags>>20, maxTagPages)
			}
		}
		return nil
	})
	return tags, err
}
