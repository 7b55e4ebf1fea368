package githubtest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// uploads begins the paths of uploads, which GitHub has on another host.
const uploads = "/uploads"

// A releaseBody is the body of a request about a release. What is not there stays as it is.
type releaseBody struct {
	Tag        *string `json:"tag_name"`
	Target     *string `json:"target_commitish"`
	Name, Body *string
	Draft      *bool
	Prerelease *bool
	MakeLatest *string `json:"make_latest"`
}

// serveReleases finds, makes, changes and publishes releases, and has their assets.
// Source: https://docs.github.com/en/rest/releases.
func (s *Server) serveReleases(req *http.Request, rest string) (int, any) {
	if strings.HasPrefix(req.URL.Path, uploads) {
		return s.upload(req, rest)
	}
	find := func(is func(*Release) bool) *Release {
		if i := slices.IndexFunc(s.releases, is); i >= 0 {
			return s.releases[i]
		}
		return nil
	}
	if tag, ok := strings.CutPrefix(rest, "tags/"); ok && req.Method == http.MethodGet {
		if r := find(func(r *Release) bool { return r.Tag == tag && !r.Draft }); r != nil { // it has no drafts
			return http.StatusOK, s.show(r)
		}
		return http.StatusNotFound, message("Not Found")
	}
	if id, ok := strings.CutPrefix(rest, "assets/"); ok && req.Method == http.MethodDelete {
		return s.removeAsset(id)
	}
	if rest == "" && req.Method == http.MethodGet {
		size, err := strconv.Atoi(req.URL.Query().Get("per_page"))
		if err != nil || size < 1 || size > 100 {
			return invalid("invalid")
		}
		list := []any{}
		for _, r := range slices.Backward(s.releases) {
			if len(list) < size {
				list = append(list, s.show(r))
			}
		}
		return http.StatusOK, list
	}
	var body releaseBody
	if req.Method != http.MethodPost && req.Method != http.MethodPatch {
		return http.StatusNotFound, message("Not Found")
	}
	if err := decode(req, &body); err != nil || body.Body != nil && len(*body.Body) > 65536 {
		return invalid("invalid")
	}
	if rest == "" && req.Method == http.MethodPost {
		r := &Release{ID: int64(len(s.releases) + 1), Draft: true}
		if body.Tag == nil || body.Draft == nil || !*body.Draft { // which would be public without its assets
			return invalid("missing_field")
		}
		if status, answer := s.change(r, body); status != http.StatusOK {
			return status, answer
		}
		s.releases = append(s.releases, r)
		return http.StatusCreated, s.show(r)
	}
	r := find(func(r *Release) bool { return fmt.Sprint(r.ID) == rest })
	if r == nil || req.Method != http.MethodPatch {
		return http.StatusNotFound, message("Not Found")
	}
	changed := *r
	status, answer := s.change(&changed, body)
	if status == http.StatusOK {
		*r = changed
		answer = s.show(r)
	}
	return status, answer
}

// change changes a release as a body says. The git tag is made when a draft is published.
func (s *Server) change(r *Release, body releaseBody) (int, any) {
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	was := *r
	set(&r.Tag, body.Tag)
	set(&r.Name, body.Name)
	set(&r.Body, body.Body)
	if body.Draft != nil {
		r.Draft = *body.Draft
	}
	if body.Prerelease != nil {
		r.Prerelease = *body.Prerelease
	}
	if body.Target != nil && was.Draft {
		commit, err := s.resolve(*body.Target)
		if err != nil {
			return invalid("invalid target_commitish")
		}
		r.Commit = commit.Hash.String()
	}
	if body.MakeLatest != nil {
		if r.Latest = *body.MakeLatest == "true"; r.Latest && (r.Draft || r.Prerelease) {
			return invalid("invalid make_latest")
		}
	}
	switch {
	case !was.Draft && s.immutable && (r.Tag != was.Tag || r.Prerelease != was.Prerelease || r.Draft):
		return http.StatusUnprocessableEntity, message("Only title and notes of an immutable release can be modified")
	case !was.Draft || r.Draft:
		return http.StatusOK, nil
	case slices.ContainsFunc(s.releases, func(other *Release) bool { return other.Tag == r.Tag && !other.Draft }):
		return invalid("already_exists")
	}
	commit, err := s.resolve(r.Commit)
	if err == nil {
		err = s.addTag(r.Tag, commit.Hash)
	}
	if err != nil {
		return invalid("invalid tag_name")
	}
	return http.StatusOK, nil
}

// show is what the API says of a release.
func (s *Server) show(r *Release) map[string]any {
	assets := []any{}
	for _, a := range r.Assets {
		assets = append(assets, a.show())
	}
	return map[string]any{"id": r.ID, "tag_name": r.Tag, "name": r.Name, "body": r.Body, "prerelease": r.Prerelease,
		"draft": r.Draft, "html_url": s.address("releases", int(r.ID)), "assets": assets,
		"upload_url": fmt.Sprintf("%s%s/repos/%s/releases/%d/assets{?name,label}", s.URL, uploads, Repository, r.ID)}
}

func (a Asset) show() map[string]any {
	state := "uploaded"
	if a.Broken {
		state = "starter"
	}
	return map[string]any{"id": a.ID, "name": a.Name, "state": state, "size": len(a.Content), "digest": fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(a.Content)))}
}

// upload gives a draft an asset. One that is published is refused: GitHub does so where
// releases are immutable.
// Source: https://docs.github.com/en/rest/releases/assets.
func (s *Server) upload(req *http.Request, rest string) (int, any) {
	id, ok := strings.CutSuffix(rest, "/assets")
	i := slices.IndexFunc(s.releases, func(r *Release) bool { return fmt.Sprint(r.ID) == id })
	name, kind := req.URL.Query().Get("name"), req.Header.Get("Content-Type")
	switch {
	case !ok || i < 0 || req.Method != http.MethodPost:
		return http.StatusNotFound, message("Not Found")
	case !s.releases[i].Draft:
		return http.StatusUnprocessableEntity, message("Cannot upload assets to an immutable release.")
	case name == "" || kind == "":
		return http.StatusBadRequest, message("Bad Request")
	case slices.ContainsFunc(s.releases[i].Assets, func(a Asset) bool { return a.Name == name }):
		return invalid("already_exists")
	}
	content, err := io.ReadAll(req.Body)
	if err != nil {
		return http.StatusBadRequest, message(err.Error())
	}
	s.made++
	a := Asset{ID: s.made, Name: name, Kind: kind, Content: string(content)}
	s.releases[i].Assets = append(s.releases[i].Assets, a)
	return http.StatusCreated, a.show()
}

func (s *Server) removeAsset(id string) (int, any) {
	for _, r := range s.releases {
		i := slices.IndexFunc(r.Assets, func(a Asset) bool { return fmt.Sprint(a.ID) == id })
		if i < 0 {
			continue
		}
		if !r.Draft {
			return http.StatusUnprocessableEntity, message("Cannot delete assets of an immutable release.")
		}
		r.Assets = slices.Delete(r.Assets, i, i+1)
		return http.StatusNoContent, nil
	}
	return http.StatusNotFound, message("Not Found")
}

// BreakUploads leaves the assets of all drafts as an upload that broke off does.
func (s *Server) BreakUploads() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.releases {
		for i := range r.Assets {
			if r.Draft {
				r.Assets[i].Content, r.Assets[i].Broken = "", true
			}
		}
	}
}
