package registry

import (
	"context"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/semver"
)

// Versions are those that a repository has tags of, as 1.102.3, from the oldest to the
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
		return err != nil || v == tag
	})
	slices.SortFunc(tags, func(a, b string) int { return semver.Compare("v"+a, "v"+b) })
	return tags, nil
}

// Tagged is what tags of a repository name. A tag that is not there is not in the map.
func (c *Client) Tagged(ctx context.Context, repository string, tags ...string) (map[string]v1.Hash, error) {
	r, err := c.Open(ctx, repository, Pull)
	if err != nil {
		return nil, err
	}
	found := map[string]v1.Hash{}
	for _, tag := range tags {
		d, err := r.head(ctx, r.name.Tag(tag))
		if err != nil {
			return nil, c.failed(r, "tag "+tag, err)
		}
		if d != nil {
			found[tag] = d.Digest
		}
	}
	return found, nil
}
