package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ReleaseNotes are a release on GitHub: a git tag with notes.
type ReleaseNotes struct {
	// Tag is the git tag, which is made at Commit unless it is there.
	Tag, Commit string
	// Notes are in Markdown.
	Notes string
	// Index is the digest of the image index that was released. It stands in the
	// notes, where [Client.Released] finds it.
	Index string
	// Prerelease marks a release of the unstable channel.
	Prerelease bool
}

// release is a release as the API has it.
type release struct {
	ID         int64  `json:"id,omitempty"`
	Tag        string `json:"tag_name"`
	Target     string `json:"target_commitish,omitempty"`
	Name       string `json:"name"`
	Body       string `json:"body"`
	Prerelease bool   `json:"prerelease"`
	MakeLatest string `json:"make_latest,omitempty"`
	Address    string `json:"html_url,omitempty"`
}

// mark is the line of the notes that says which index was released.
func mark(index string) string { return "<!-- index: " + index + " -->" }

// Release creates a release and returns its address. If there is one with that tag and
// another index, its notes are replaced; the git tag stays where it is, because Go's module proxies
// never forget what a tag named first.
func (c *Client) Release(ctx context.Context, r ReleaseNotes) (address string, err error) {
	err = c.do(ctx, func() error {
		address, err = c.release(ctx, r)
		return err
	})
	return address, err
}

func (c *Client) release(ctx context.Context, r ReleaseNotes) (string, error) {
	want := release{
		Tag:        r.Tag,
		Name:       r.Tag,
		Body:       cut(r.Notes, maxBody-len(mark(r.Index))-2) + "\n\n" + mark(r.Index),
		Prerelease: r.Prerelease,
		MakeLatest: fmt.Sprint(!r.Prerelease),
	}
	there, err := c.tagged(ctx, r.Tag)
	if err != nil {
		return "", err
	}
	var made release
	switch {
	case there == nil:
		want.Target = r.Commit
		err = c.call(ctx, http.MethodPost, "/releases", want, &made)
		var e *Error
		if errors.As(err, &e) && e.Status == http.StatusUnprocessableEntity && strings.Contains(e.Message, "already_exists") {
			return "", again{err} // made meanwhile; now there is one to change
		}
	case strings.Contains(there.Body, mark(r.Index)):
		return there.Address, nil // its notes compare with what was before it
	default:
		err = c.call(ctx, http.MethodPatch, fmt.Sprintf("/releases/%d", there.ID), want, &made)
	}
	return made.Address, err
}

// Withdraw marks the release with a tag as withdrawn: its notes say so first, and it is a
// pre-release from then on, which GitHub calls no longer the latest. A release that
// is marked, or is not there, is left as it is.
func (c *Client) Withdraw(ctx context.Context, tag, notice string) error {
	return c.do(ctx, func() error {
		r, err := c.tagged(ctx, tag)
		if err != nil || r == nil || strings.HasPrefix(r.Body, notice) {
			return err
		}
		change := release{Tag: r.Tag, Name: r.Name, Body: notice + "\n\n" + r.Body, Prerelease: true, MakeLatest: "false"}
		return c.call(ctx, http.MethodPatch, fmt.Sprintf("/releases/%d", r.ID), change, nil)
	})
}

// Released says whether there is a release with that tag whose notes name that index.
func (c *Client) Released(ctx context.Context, tag, index string) (released bool, err error) {
	err = c.do(ctx, func() error {
		there, err := c.tagged(ctx, tag)
		released = there != nil && strings.Contains(there.Body, mark(index))
		return err
	})
	return released, err
}

// tagged is the release with a tag, nil if there is none.
func (c *Client) tagged(ctx context.Context, tag string) (*release, error) {
	var r release
	err := c.call(ctx, http.MethodGet, "/releases/tags/"+url.PathEscape(tag), nil, &r)
	if is(err, http.StatusNotFound) {
		return nil, nil
	}
	return &r, err
}
