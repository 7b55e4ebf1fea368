package github

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// maxBody is how many characters the body of an issue, a comment or a release may have.
const maxBody = 65536

// Bot is the author of what a workflow opens with its own token.
const Bot = "github-actions[bot]"

// Report opens an issue and returns its address. If the author, the user that the token
// belongs to, has one with that title open, it gets a comment: who fails every day
// does not open an issue every day. Anybody can open an issue with the same title;
// such a one does not count.
func (c *Client) Report(ctx context.Context, author, title, body string) (address string, err error) {
	body = cut(body, maxBody)
	return do(ctx, c, func() (string, error) {
		open, err := c.openIssue(ctx, author, title)
		if err != nil {
			return "", err
		}
		switch {
		case open.Number == 0:
			err = c.call(ctx, http.MethodPost, "/issues", map[string]string{"title": title, "body": body}, &open)
		case open.Body == body: // made by a try whose answer was lost
		default:
			err = c.call(ctx, http.MethodPost, fmt.Sprintf("/issues/%d/comments", open.Number), map[string]string{"body": body}, &open)
		}
		return open.Address, err
	})
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

// openIssue finds the author's oldest open issue with a title, one without a number if there is none.
func (c *Client) openIssue(ctx context.Context, author, title string) (issue, error) {
	const page = 100
	for n := 1; ; n++ {
		var list []issue
		path := fmt.Sprintf("/issues?state=open&sort=created&direction=asc&per_page=%d&page=%d", page, n)
		if err := c.call(ctx, http.MethodGet, path, nil, &list); err != nil {
			return issue{}, err
		}
		for _, i := range list {
			if i.Title == title && i.User.Login == author && i.PullRequest == nil {
				return i, nil
			}
		}
		if len(list) < page {
			return issue{}, nil
		}
	}
}

// cut shortens a text to so many bytes, at the end of a line where there is one.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const note = "\n\n(shortened)\n"
	text = strings.ToValidUTF8(text[:limit-len(note)], "")
	if i := strings.LastIndexByte(text, '\n'); i > limit/2 {
		text = text[:i]
	}
	return text + note
}
