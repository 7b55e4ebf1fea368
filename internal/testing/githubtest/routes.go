package githubtest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// contents says which files there are.
// Source: https://docs.github.com/en/rest/repos/contents.
func (s *Server) contents(req *http.Request, path string) (int, any) {
	c, err := s.resolve(req.URL.Query().Get("ref"))
	if err != nil || req.Method != http.MethodGet {
		return http.StatusNotFound, message("Not Found")
	}
	f, err := c.File(path)
	if err != nil {
		return http.StatusNotFound, message("Not Found")
	}
	return http.StatusOK, map[string]any{"type": "file", "path": path, "sha": f.Hash.String()}
}

// serveGit makes trees and commits, and moves the branch.
// Source: https://docs.github.com/en/rest/git.
func (s *Server) serveGit(req *http.Request, rest string) (int, any) {
	sha := func(status int, h plumbing.Hash, err error) (int, any) {
		if err != nil {
			return http.StatusUnprocessableEntity, message(err.Error())
		}
		return status, map[string]string{"sha": h.String()}
	}
	switch what, name, _ := strings.Cut(rest, "/"); req.Method + " " + what {
	case "GET ref", "PATCH refs":
		head, err := s.head()
		if err != nil || name != "heads/main" {
			return http.StatusNotFound, message("Not Found")
		}
		if req.Method == http.MethodPatch {
			var body struct {
				SHA   string
				Force bool
			}
			if err := decode(req, &body); err != nil {
				return http.StatusBadRequest, message(err.Error())
			}
			next, err := s.resolve(body.SHA)
			if err != nil {
				return http.StatusUnprocessableEntity, message("Object does not exist")
			}
			if forward, err := head.IsAncestor(next); err != nil || !forward && !body.Force {
				return http.StatusUnprocessableEntity, message("Update is not a fast forward")
			}
			if err := s.repository.Storer.SetReference(plumbing.NewHashReference(mainBranch, next.Hash)); err != nil {
				return http.StatusInternalServerError, message(err.Error())
			}
			head = next
		}
		return http.StatusOK, map[string]any{"ref": "refs/heads/main", "object": map[string]string{"type": "commit", "sha": head.Hash.String()}}
	case "GET commits":
		c, err := s.resolve(name)
		if err != nil {
			return http.StatusNotFound, message("Not Found")
		}
		return http.StatusOK, map[string]any{"sha": c.Hash.String(), "tree": map[string]string{"sha": c.TreeHash.String()}}
	case "POST trees":
		var body struct {
			Base string                                       `json:"base_tree"`
			Tree []struct{ Path, Mode, Type, Content string } `json:"tree"`
		}
		if err := decode(req, &body); err != nil {
			return http.StatusBadRequest, message(err.Error())
		}
		base, err := s.repository.TreeObject(plumbing.NewHash(body.Base))
		if err != nil {
			return http.StatusUnprocessableEntity, message("base_tree does not exist")
		}
		files := map[string]string{}
		for _, e := range body.Tree {
			if e.Mode != "100644" || e.Type != "blob" || e.Path == "" {
				return invalid("invalid")
			}
			files[e.Path] = e.Content
		}
		h, err := s.tree(base, files)
		return sha(http.StatusCreated, h, err)
	case "POST commits":
		var body struct {
			Message, Tree string
			Parents       []string
		}
		if err := decode(req, &body); err != nil {
			return http.StatusBadRequest, message(err.Error())
		}
		if body.Message == "" {
			return invalid("missing_field")
		}
		var parents []plumbing.Hash
		for _, p := range body.Parents {
			if _, err := s.resolve(p); err != nil {
				return http.StatusUnprocessableEntity, message("Parent SHA does not exist")
			}
			parents = append(parents, plumbing.NewHash(p))
		}
		h, err := s.store(newCommit(body.Message, plumbing.NewHash(body.Tree), parents...))
		return sha(http.StatusCreated, h, err)
	}
	return http.StatusNotFound, message("Not Found")
}

func (s *Server) listCommits(req *http.Request) (int, any) {
	q := req.URL.Query()
	from, err := s.resolve(q.Get("sha"))
	if err != nil {
		return http.StatusNotFound, message("Not Found")
	}
	commits, err := s.history(from, q.Get("path"))
	size, serr := strconv.Atoi(q.Get("per_page"))
	if err != nil || serr != nil || size < 1 {
		return invalid("invalid")
	}
	list := []map[string]string{}
	for _, c := range commits[:min(size, len(commits))] {
		list = append(list, map[string]string{"sha": c.Hash.String()})
	}
	return http.StatusOK, list
}

// serveIssues lists and opens issues and comments on them.
// Source: https://docs.github.com/en/rest/issues.
func (s *Server) serveIssues(req *http.Request, rest string) (int, any) {
	show := func(i *Issue) map[string]any {
		m := map[string]any{"number": i.Number, "title": i.Title, "body": i.Body, "html_url": s.address("issues", i.Number),
			"user": map[string]string{"login": i.Author}}
		if i.PullRequest {
			m["pull_request"] = map[string]string{}
		}
		return m
	}
	if number, ok := strings.CutSuffix(rest, "/comments"); ok && req.Method == http.MethodPost {
		var body struct{ Body string }
		if err := decode(req, &body); err != nil || body.Body == "" {
			return invalid("missing_field")
		}
		n, _ := strconv.Atoi(number)
		i := slices.IndexFunc(s.issues, func(i *Issue) bool { return i.Number == n })
		if i < 0 {
			return http.StatusNotFound, message("Not Found")
		}
		s.issues[i].Comments = append(s.issues[i].Comments, body.Body)
		return http.StatusCreated, map[string]string{"html_url": s.address("issues", n) + "#issuecomment"}
	}
	switch {
	case rest != "":
	case req.Method == http.MethodGet:
		q := req.URL.Query()
		size, _ := strconv.Atoi(q.Get("per_page"))
		page, _ := strconv.Atoi(q.Get("page"))
		if q.Get("state") != "open" || size < 1 || size > 100 || page < 1 {
			return invalid("invalid")
		}
		list := []map[string]any{}
		for _, i := range s.issues[min((page-1)*size, len(s.issues)):min(page*size, len(s.issues))] {
			list = append(list, show(i))
		}
		return http.StatusOK, list
	case req.Method == http.MethodPost:
		var body struct{ Title, Body string }
		if err := decode(req, &body); err != nil || body.Title == "" || len(body.Body) > 65536 {
			return invalid("missing_field")
		}
		i := &Issue{Number: len(s.issues) + 1, Author: "github-actions[bot]", Title: body.Title, Body: body.Body}
		s.issues = append(s.issues, i)
		return http.StatusCreated, show(i)
	}
	return http.StatusNotFound, message("Not Found")
}

// serveActions lists the jobs of the workflow run and sends to their logs, which
// GitHub keeps elsewhere.
// Source: https://docs.github.com/en/rest/actions/workflow-jobs.
func (s *Server) serveActions(w http.ResponseWriter, req *http.Request, rest string) (int, any) {
	part := strings.Split(rest, "/")
	switch {
	case req.Method == http.MethodGet && len(part) == 3 && part[0] == "runs" && part[2] == "jobs":
		list := []map[string]any{}
		for i, j := range s.jobs {
			var steps []map[string]any
			for _, name := range j.Steps {
				conclusion := "success"
				if name == j.Failed {
					conclusion = "failure"
				}
				steps = append(steps, map[string]any{"name": name, "conclusion": conclusion})
			}
			var conclusion any // null while the job runs
			if j.Conclusion != "" {
				conclusion = j.Conclusion
			}
			list = append(list, map[string]any{"id": i + 1, "name": j.Name, "conclusion": conclusion, "steps": steps})
		}
		return http.StatusOK, map[string]any{"total_count": len(list), "jobs": list}
	case req.Method == http.MethodGet && len(part) == 3 && part[0] == "jobs" && part[2] == "logs":
		// localhost is another host than 127.0.0.1, and must not get the token.
		http.Redirect(w, req, strings.Replace(s.URL, "127.0.0.1", "localhost", 1)+"/logs/"+part[1], http.StatusFound)
		return http.StatusFound, nil
	}
	return http.StatusNotFound, message("Not Found")
}

func (s *Server) storedLog(w http.ResponseWriter, req *http.Request) {
	n, _ := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/logs/"))
	switch {
	case req.Header.Get("Authorization") != "":
		answer(w, http.StatusBadRequest, message("a token has come where none belongs"))
	case n < 1 || n > len(s.jobs) || s.jobs[n-1].Log == "":
		answer(w, http.StatusNotFound, message("BlobNotFound"))
	default:
		fmt.Fprint(w, s.jobs[n-1].Log)
	}
}

func (s *Server) address(what string, n int) string {
	return fmt.Sprintf("%s/%s/%s/%d", s.URL, Repository, what, n)
}
