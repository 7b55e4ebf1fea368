package github

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// asset is a file of a release as the API has it.
type asset struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	// State is uploaded, or starter for one whose upload broke off.
	State string `json:"state"`
	Size  int    `json:"size"`
	// Digest is sha256:HEX; older servers have none.
	Digest string `json:"digest"`
}

// attach gives a draft the assets that it is to have, and no others. What is there already is
// left as it is.
func (c *Client) attach(ctx context.Context, draft release, want map[string][]byte) error {
	there := map[string]bool{}
	for _, a := range draft.Assets {
		content, wanted := want[a.Name]
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
		if there[a.Name] = wanted && a.State == "uploaded" && a.Size == len(content) && (a.Digest == "" || a.Digest == digest); there[a.Name] {
			continue
		}
		if err := c.call(ctx, http.MethodDelete, fmt.Sprintf("/releases/assets/%d", a.ID), nil, nil); err != nil && !is(err, http.StatusNotFound) {
			return err
		}
	}
	base, err := c.uploads(draft.Upload)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if there[name] {
			continue
		}
		var made asset
		query := "/assets?name=" + url.QueryEscape(name)
		if err := c.send(ctx, http.MethodPost, base, query, kindOf(name), want[name], &made); err != nil {
			return fmt.Errorf("asset %s: %w", name, err)
		}
		if made.Name != name || made.Size != len(want[name]) {
			return fmt.Errorf("github: asset %s of %d bytes: GitHub has made it %s of %d bytes", name, len(want[name]), made.Name, made.Size)
		}
	}
	return nil
}

// kindOf is the content type of a file of that name, on whatever machine.
func kindOf(name string) string {
	switch path.Ext(name) {
	case ".json":
		return "application/json"
	case ".xml":
		return "application/xml"
	}
	return "application/octet-stream"
}

// uploads is the address below which a release has its assets, by the template that the API
// gave: https://uploads.github.com/repos/OWNER/NAME/releases/1/assets{?name,label}. The token
// goes to no other host than the API's and the one of that name beside it.
func (c *Client) uploads(template string) (string, error) {
	address, _, _ := strings.Cut(template, "{")
	u, err := url.Parse(address)
	api, aerr := url.Parse(c.API)
	if err != nil || aerr != nil || u.Scheme != api.Scheme || u.Host != api.Host && u.Host != "uploads."+strings.TrimPrefix(api.Host, "api.") ||
		!strings.HasSuffix(u.Path, "/assets") {
		return "", fmt.Errorf("github: not an address for uploads of %s: %q", c.API, template)
	}
	return strings.TrimSuffix(address, "/assets"), nil
}
