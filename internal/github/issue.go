package github

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// maxBody is how many characters the body of an issue, a comment or a release may have.
const maxBody = 65536

// Workflow is the author of what a workflow opens with its own token.
const Workflow = "github-actions[bot]"

// Report opens an issue and returns its address. If the author, the user that the token
// belongs to, has one with that title open, it gets a comment: who fails every day
// does not open an issue every day. Anybody can open an issue with the same title;
// such a one does not count.
func (c *Client) Report(ctx context.Context, author, title, body string) (address string, err error) {
	body = cut(body, maxBody)
	err = c.do(ctx, func() error {
		address, err = c.report(ctx, author, title, body)
		return err
	})
	return address, err
}

func (c *Client) report(ctx context.Context, author, title, body string) (string, error) {
	open, err := c.openIssue(ctx, author, title)
	if err != nil {
		return "", err
	}
	var made struct {
		Address string `json:"html_url"`
	}
	switch {
	case open == nil:
		err = c.call(ctx, http.MethodPost, "/issues", map[string]string{"title": title, "body": body}, &made)
	case open.Body == body: // made by a try whose answer was lost
		return open.Address, nil
	default:
		err = c.call(ctx, http.MethodPost, fmt.Sprintf("/issues/%d/comments", open.Number), map[string]string{"body": body}, &made)
	}
	return made.Address, err
}

type issue struct {
	Number  int
	Title   string
	Body    string
	Address string `json:"html_url"`
	User    struct{ Login string }
	// PullRequest is there if it is one: the API lists them as issues.
	PullRequest *struct{} `json:"pull_request"`
}

// openIssue finds the author's oldest open issue with a title, nil if there is none.
func (c *Client) openIssue(ctx context.Context, author, title string) (*issue, error) {
	const page = 100
	for n := 1; ; n++ {
		var list []issue
		path := fmt.Sprintf("/issues?state=open&sort=created&direction=asc&per_page=%d&page=%d", page, n)
		if err := c.call(ctx, http.MethodGet, path, nil, &list); err != nil {
			return nil, err
		}
		for _, i := range list {
			if i.Title == title && i.User.Login == author && i.PullRequest == nil {
				return &i, nil
			}
		}
		if len(list) < page {
			return nil, nil
		}
	}
}

// cut shortens a text to so many bytes, at the end of a line where there is one.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const note = "\n\n(shortened)\n"
	text = text[:limit-len(note)]
	for len(text) > 0 && !utf8.RuneStart(text[len(text)-1]) {
		text = text[:len(text)-1]
	}
	if i := strings.LastIndexByte(text, '\n'); i > limit/2 {
		text = text[:i]
	}
	return text + note
}
