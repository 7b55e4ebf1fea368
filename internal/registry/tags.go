package registry

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/lock"
)

// A Tag is a name for a release in a repository.
type Tag struct {
	Name string
	// Moves is set for one that goes on to the next release, as latest does. One
	// that does not move names a version, and only ever one digest.
	Moves bool
}

// Tags are the names that a release has in every repository: the version's own, then
// those that move to it.
func Tags(version string, c lock.Channel) ([]Tag, error) {
	v, err := canonical(version)
	if err != nil {
		return nil, err
	}
	tags := []Tag{{Name: v}, {Name: v[1:]}}
	if c == lock.Stable {
		return append(tags, Tag{Name: semver.MajorMinor(v)[1:], Moves: true}, Tag{Name: "latest", Moves: true}), nil
	}
	return append(tags, Tag{Name: string(lock.Unstable), Moves: true}), nil
}

// NamedTags are tags that somebody chose for a version. Any that is not the version
// itself moves.
func NamedTags(version string, names []string) ([]Tag, error) {
	v, err := canonical(version)
	if err != nil {
		return nil, err
	}
	var own, moving []Tag
	for _, n := range names {
		if !validTag.MatchString(n) {
			return nil, fmt.Errorf("tag %q: wants up to 128 letters, digits, dots, dashes and underscores, the first no dot or dash", n)
		}
		tag, list := Tag{Name: n, Moves: n != v && n != v[1:]}, &own
		if tag.Moves {
			list = &moving
		}
		if !slices.Contains(*list, tag) {
			*list = append(*list, tag)
		}
	}
	return append(own, moving...), nil
}

// validTag matches what may be a tag.
// Source: OCI distribution specification, v1.1, pulling manifests.
var validTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// Versions are those that a repository has tags of, as v1.102.3, from the oldest to the
// newest.
func (c *Client) Versions(ctx context.Context, repository string) ([]string, error) {
	r, err := c.Open(ctx, repository, Pull)
	if err != nil {
		return nil, err
	}
	var tags []string
	err = c.again(ctx, func() (err error) {
		tags, err = remote.List(r.name, r.options(ctx)...)
		return err
	})
	if err != nil {
		return nil, c.failed(r, "tags", err)
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool {
		v, err := canonical(tag)
		return err != nil || v != tag
	})
	semver.Sort(tags)
	return tags, nil
}

// canonical is a version with its v.
func canonical(version string) (string, error) {
	v := "v" + strings.TrimPrefix(version, "v")
	if semver.Canonical(v) != v || semver.Build(v) != "" {
		return "", fmt.Errorf("version %q: is not of the form 1.102.3", version)
	}
	return v, nil
}
