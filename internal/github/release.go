package github

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ReleaseNotes are a release on GitHub: a git tag with notes and files.
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
	// Assets are files of the release, by their names, which are letters, digits, dots and dashes:
	// GitHub gives others a name of its own.
	Assets map[string][]byte
}

// release is a release as the API has it.
type release struct {
	ID         int64   `json:"id,omitempty"`
	Tag        string  `json:"tag_name"`
	Target     string  `json:"target_commitish,omitempty"`
	Name       string  `json:"name"`
	Body       string  `json:"body"`
	Draft      bool    `json:"draft"`
	Prerelease bool    `json:"prerelease"`
	MakeLatest string  `json:"make_latest,omitempty"`
	Address    string  `json:"html_url,omitempty"`
	Upload     string  `json:"upload_url,omitempty"`
	Assets     []asset `json:"assets,omitempty"`
}

// mark is the line of the notes that says which index was released.
func mark(index string) string { return "<!-- index: " + index + " -->" }

// Release creates a release and returns its address: as a draft first, which gets the assets
// and is then published. So it is whole whenever anybody sees it, and a repository may make
// its releases immutable. A draft that an earlier run left is completed.
//
// If there is a release with that tag and another index, its notes are replaced; the git tag
// and the assets stay as they are.
func (c *Client) Release(ctx context.Context, r ReleaseNotes) (address string, err error) {
	return do(ctx, c, func() (string, error) {
		want := release{
			Tag:        r.Tag,
			Name:       r.Tag,
			Body:       cut(r.Notes, maxBody-len(mark(r.Index))-2) + "\n\n" + mark(r.Index),
			Prerelease: r.Prerelease,
		}
		there, err := c.tagged(ctx, r.Tag)
		if err != nil {
			return "", err
		}
		if there.ID != 0 {
			if !strings.Contains(there.Body, mark(r.Index)) { // else its notes compare with what was before it
				want.MakeLatest = fmt.Sprint(!r.Prerelease)
				err = c.call(ctx, http.MethodPatch, fmt.Sprintf("/releases/%d", there.ID), want, &there)
			}
			return there.Address, err
		}
		want.Target, want.Draft = r.Commit, true
		if there, err = c.draft(ctx, r.Tag); err == nil && there.ID == 0 {
			err = c.call(ctx, http.MethodPost, "/releases", want, &there)
		}
		if err == nil {
			err = c.attach(ctx, there, r.Assets)
		}
		if err != nil {
			return "", err
		}
		want.Draft, want.MakeLatest = false, fmt.Sprint(!r.Prerelease)
		err = c.call(ctx, http.MethodPatch, fmt.Sprintf("/releases/%d", there.ID), want, &there)
		return there.Address, err
	})
}

// draft is the draft of a release with a tag, without an ID if there is none. Only a list has
// drafts. It begins with the newest; one that is no longer on its first page is forgotten.
func (c *Client) draft(ctx context.Context, tag string) (release, error) {
	var list []release
	err := c.call(ctx, http.MethodGet, "/releases?per_page=100", nil, &list)
	for _, r := range list {
		if r.Draft && r.Tag == tag {
			return r, err
		}
	}
	return release{}, err
}

// Withdraw marks the release with a tag as withdrawn: its notes say so first, and it is a
// pre-release from then on, which GitHub calls no longer the latest. A release that
// is marked, or is not there, is left as it is.
func (c *Client) Withdraw(ctx context.Context, tag, notice string) error {
	_, err := do(ctx, c, func() (release, error) {
		r, err := c.tagged(ctx, tag)
		if err != nil || r.ID == 0 || strings.HasPrefix(r.Body, notice) {
			return r, err
		}
		change := release{Tag: r.Tag, Name: r.Name, Body: notice + "\n\n" + r.Body, Prerelease: true, MakeLatest: "false"}
		path := fmt.Sprintf("/releases/%d", r.ID)
		if err = c.call(ctx, http.MethodPatch, path, change, &r); is(err, http.StatusUnprocessableEntity) {
			// Of a release that is immutable only title and notes change.
			err = c.call(ctx, http.MethodPatch, path, map[string]string{"body": change.Body}, &r)
		}
		return r, err
	})
	return err
}

// Released says whether there is a release with that tag whose notes name that index.
func (c *Client) Released(ctx context.Context, tag, index string) (released bool, err error) {
	return do(ctx, c, func() (bool, error) {
		there, err := c.tagged(ctx, tag)
		return strings.Contains(there.Body, mark(index)), err
	})
}

// tagged is the release with a tag, without an ID if there is none.
func (c *Client) tagged(ctx context.Context, tag string) (r release, err error) {
	if err = c.call(ctx, http.MethodGet, "/releases/tags/"+url.PathEscape(tag), nil, &r); is(err, http.StatusNotFound) {
		err = nil
	}
	return r, err
}
