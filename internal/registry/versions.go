package registry

import (
	"context"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/semver"
)

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
