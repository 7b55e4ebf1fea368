package github

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ErrChanged says that a file is neither what it was nor what it is to become.
var ErrChanged = errors.New("somebody else changed it")

// A Change is a change of one file.
type Change struct {
	// Branch is where, Path the file's path in the repository.
	Branch, Path string
	// Old is the content that the change was made from, nil for no such file.
	Old []byte
	// New is the content to be.
	New []byte
	// Message is the commit's.
	Message string
}

// Commit commits a change of a file, unless it is there already, and returns the
// last commit that changed the file. It gives [ErrChanged] when the file on the
// branch is not what the change was made from.
func (c *Client) Commit(ctx context.Context, change Change) (string, error) {
	return do(ctx, c, func() (string, error) {
		path := "/contents/" + strings.ReplaceAll(url.PathEscape(change.Path), "%2F", "/")
		var there struct{ SHA string }
		err := c.call(ctx, http.MethodGet, path+"?ref="+url.QueryEscape(change.Branch), nil, &there)
		if err != nil && !is(err, http.StatusNotFound) {
			return "", err
		}
		if there.SHA == blob(change.New) {
			return c.LastCommit(ctx, change.Branch, change.Path)
		}
		if change.Old == nil && there.SHA != "" || change.Old != nil && there.SHA != blob(change.Old) {
			return "", fmt.Errorf("github: %s: %s on %s: %w", c.Repository, change.Path, change.Branch, ErrChanged)
		}
		body := struct {
			Message string `json:"message"`
			Content string `json:"content"`
			SHA     string `json:"sha,omitempty"`
			Branch  string `json:"branch"`
		}{change.Message, base64.StdEncoding.EncodeToString(change.New), there.SHA, change.Branch}
		var done struct{ Commit struct{ SHA string } }
		err = c.call(ctx, http.MethodPut, path, body, &done)
		if is(err, http.StatusConflict) {
			// The branch moved meanwhile. Whether the file did is read anew.
			return "", passing{err}
		}
		return done.Commit.SHA, err
	})
}

// LastCommit is the last commit on a branch that changed a file.
func (c *Client) LastCommit(ctx context.Context, branch, path string) (string, error) {
	var list []struct{ SHA string }
	query := url.Values{"sha": {branch}, "path": {path}, "per_page": {"1"}}
	if err := c.call(ctx, http.MethodGet, "/commits?"+query.Encode(), nil, &list); err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", fmt.Errorf("github: %s: no commit on %s has %s", c.Repository, branch, path)
	}
	return list[0].SHA, nil
}

// blob is git's name for a file of that content.
func blob(content []byte) string {
	return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(content), content)))
}
