package github

import (
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ErrChanged says that a file is neither what it was nor what it is to become.
var ErrChanged = errors.New("somebody else changed it")

// A Change is a change of some files.
type Change struct {
	// Branch is where it goes.
	Branch string
	// Parent is the commit that it was made on; "" is the branch's newest.
	Parent string
	// Files are what it changes. The last commit that changed the first one is that of the
	// change, once it is made.
	Files []File
	// Message is the commit's.
	Message string
}

// A File is a file of a change.
type File struct {
	Path string // in the repository
	// Old is the content that the change was made from, nil for no such file.
	Old []byte
	// New is the content to be.
	New []byte
	// Replace takes the place of whatever is there: of a file that nobody writes by hand.
	Replace bool
}

// Commit commits a change, unless it is on the branch already, and returns the commit: the one
// whose parent is the change's, whatever the branch has become meanwhile. If that is more than
// the parent, a merge brings both together. It gives [ErrChanged] when a file on the branch is
// not what the change was made from.
func (c *Client) Commit(ctx context.Context, change Change) (string, error) {
	return do(ctx, c, func() (string, error) {
		var head struct{ Object struct{ SHA string } }
		if err := c.call(ctx, http.MethodGet, "/git/ref/heads/"+escaped(change.Branch), nil, &head); err != nil {
			return "", err
		}
		there, err := c.has(ctx, head.Object.SHA, change)
		if err != nil {
			return "", err
		}
		if there {
			return c.LastCommit(ctx, change.Branch, change.Files[0].Path)
		}
		commit, err := c.commitOn(ctx, change, change.Message, cmp.Or(change.Parent, head.Object.SHA))
		if err != nil {
			return "", err
		}
		tip := commit
		if change.Parent != "" && change.Parent != head.Object.SHA {
			tip, err = c.commitOn(ctx, change, "merge: "+change.Message, head.Object.SHA, commit)
			if err != nil {
				return "", err
			}
		}
		move := struct {
			SHA string `json:"sha"`
		}{tip}
		err = c.call(ctx, http.MethodPatch, "/git/refs/heads/"+escaped(change.Branch), move, &head)
		if is(err, http.StatusUnprocessableEntity) {
			// The branch moved meanwhile. Whether the files did is read anew.
			return "", passing{err}
		}
		return commit, err
	})
}

// has reports whether a commit has all files as they are to be.
func (c *Client) has(ctx context.Context, commit string, change Change) (bool, error) {
	all := true
	for _, f := range change.Files {
		var there struct{ SHA string }
		err := c.call(ctx, http.MethodGet, "/contents/"+escaped(f.Path)+"?ref="+commit, nil, &there)
		if err != nil && !is(err, http.StatusNotFound) {
			return false, err
		}
		switch {
		case there.SHA == blob(f.New):
		case f.Replace:
			all = false
		case f.Old == nil && there.SHA != "" || f.Old != nil && there.SHA != blob(f.Old):
			return false, fmt.Errorf("github: %s: %s on %s: %w", c.Repository, f.Path, change.Branch, ErrChanged)
		default:
			all = false
		}
	}
	return all, nil
}

// commitOn makes a commit that no branch has yet: the files of a change over those of the
// first parent. GitHub signs it, since nobody else is named as its author.
func (c *Client) commitOn(ctx context.Context, change Change, message string, parents ...string) (string, error) {
	var base struct{ Tree struct{ SHA string } }
	if err := c.call(ctx, http.MethodGet, "/git/commits/"+parents[0], nil, &base); err != nil {
		return "", err
	}
	type entry struct {
		Path    string `json:"path"`
		Mode    string `json:"mode"`
		Type    string `json:"type"`
		Content string `json:"content"`
	}
	var entries []entry
	for _, f := range change.Files {
		entries = append(entries, entry{f.Path, "100644", "blob", string(f.New)})
	}
	var tree, commit struct{ SHA string }
	if err := c.call(ctx, http.MethodPost, "/git/trees", struct {
		Base    string  `json:"base_tree"`
		Entries []entry `json:"tree"`
	}{base.Tree.SHA, entries}, &tree); err != nil {
		return "", err
	}
	err := c.call(ctx, http.MethodPost, "/git/commits", struct {
		Message string   `json:"message"`
		Tree    string   `json:"tree"`
		Parents []string `json:"parents"`
	}{message, tree.SHA, parents}, &commit)
	return commit.SHA, err
}

// escaped is a path as a part of a URL.
func escaped(path string) string { return strings.ReplaceAll(url.PathEscape(path), "%2F", "/") }

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
