// Package githubtest serves a small GitHub to tests: the part of its REST API that
// this project uses, on loopback, over a real git repository. It is as strict as
// GitHub about tokens, request bodies and the order of things, and it can fail.
package githubtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-git/go-git/v5"
)

// Repository is the name of the repository that is served.
const Repository = "example/derper"

// Token is a token that may do everything.
const Token = "ghs_secretForTestsOnly0123456789"

// A Server is a GitHub with one repository.
type Server struct {
	// URL is the API's address.
	URL string
	// Dir is the bare git repository, whose one branch is main.
	Dir string

	repository *git.Repository

	mu       sync.Mutex
	faults   []Fault
	requests []string
	issues   []*Issue
	releases []*Release
	made     int64 // releases and assets
	jobs     []Job
	grants   map[string]map[string]string // by token
	hook     func(request string)

	immutable bool
}

// An Issue is an open issue.
type Issue struct {
	Number   int
	Author   string
	Title    string
	Body     string
	Comments []string
	// PullRequest makes it one, which the API lists among the issues.
	PullRequest bool
}

// A Release is a release with the commit that its git tag names, or will name once it is
// published.
type Release struct {
	ID         int64
	Tag        string
	Commit     string
	Name, Body string
	Draft      bool
	Prerelease bool
	Latest     bool
	Assets     []Asset
}

// An Asset is a file of a release.
type Asset struct {
	ID      int64
	Name    string
	Kind    string // content type
	Content string
	// Broken is set for one whose upload broke off.
	Broken bool
}

// A Job is a job of the one workflow run.
type Job struct {
	Name, Conclusion string
	// Steps are names, Failed is the one of them that failed.
	Steps  []string
	Failed string
	// Log is what the job's log has, "" for none.
	Log string
}

// A Fault is what happens to one request.
type Fault int

const (
	None        Fault = iota
	Unavailable       // 503, and nothing is done
	TooMany           // 429 with Retry-After
	Limited           // 403, as for the secondary rate limit
	Reset             // the connection breaks off, and nothing is done
	Lost              // it is done, and the answer is lost
	Refused           // 403 for good
)

// New serves a repository with the given files on its branch main until the test ends.
func New(t testing.TB, files map[string]string) *Server {
	t.Helper()
	s := &Server{Dir: filepath.Join(t.TempDir(), "derper.git")}
	if err := s.init(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.commit(files, "first commit"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Fail lets the next requests fail, one after the other.
func (s *Server) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults
}

// FailNext is Fail for a hook, about the request that it sees.
func (s *Server) FailNext(f Fault) { s.faults = []Fault{f} }

// Requests are the method and path of each request until now.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// Issues are the open issues.
func (s *Server) Issues() []Issue { return list(s, &s.issues) }

// Releases are the releases that are published, oldest first.
func (s *Server) Releases() []Release {
	return slices.DeleteFunc(list(s, &s.releases), func(r Release) bool { return r.Draft })
}

// Drafts are those that are not.
func (s *Server) Drafts() []Release {
	return slices.DeleteFunc(list(s, &s.releases), func(r Release) bool { return !r.Draft })
}

// Immutable makes releases immutable once they are published: only their title and notes may
// change. No release gets or loses an asset then, with or without it: this server is the
// stricter of the two.
func (s *Server) Immutable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.immutable = true
}

func list[T any](s *Server, of *[]*T) (copies []T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range *of {
		copies = append(copies, *p)
	}
	return copies
}

// Open opens an issue, as somebody else would.
func (s *Server) Open(i Issue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.Number = len(s.issues) + 1
	s.issues = append(s.issues, &i)
}

// CloseIssues closes every issue.
func (s *Server) CloseIssues() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issues = nil
}

// DeleteReleases makes this the GitHub of somebody who has released nothing. The git
// tags go, too.
func (s *Server) DeleteReleases() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.releases {
		s.repository.DeleteTag(r.Tag) // a draft has none
	}
	s.releases = nil
}

// SetJobs says how the jobs of the workflow run stand.
func (s *Server) SetJobs(jobs []Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs = jobs
}

// Push commits files to main, as somebody else would.
func (s *Server) Push(files map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.commit(files, "somebody else's change")
	return err
}

// Hook calls f with the method and path of every request, before it is carried out.
func (s *Server) Hook(f func(request string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Grant makes a token that may do no more than the permissions say, as contents: write.
func (s *Server) Grant(permissions map[string]string) (token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token = fmt.Sprintf("%s_%d", Token, len(s.grants)+1)
	if s.grants == nil {
		s.grants = map[string]map[string]string{}
	}
	s.grants[token] = permissions
	return token
}

// may says whether a token may make a request.
func (s *Server) may(token string, req *http.Request, what string) bool {
	if token == Token {
		return true
	}
	scope := map[string]string{"contents": "contents", "commits": "contents", "git": "contents", "releases": "contents", "issues": "issues", "actions": "actions"}[what]
	right := s.grants[token][scope]
	return right == "write" || right == "read" && req.Method == http.MethodGet
}

// File is a file's content on main, "" for no such file.
func (s *Server) File(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.file(path)
	if f == nil {
		return ""
	}
	content, _ := f.Contents()
	return content
}

// FileAt is a file at a commit.
func (s *Server) FileAt(commit, path string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.resolve(commit)
	if err != nil {
		return "", err
	}
	f, err := c.File(path)
	if err != nil {
		return "", err
	}
	return f.Contents()
}

// Revision is the hash of the commit that a branch, a tag or an expression such as tag^ means,
// "" for none.
func (s *Server) Revision(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.resolve(name)
	if err != nil {
		return ""
	}
	return c.Hash.String()
}

// Commits are the subjects of main's commits, newest first.
func (s *Server) Commits() (subjects []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head, err := s.head()
	if err != nil {
		return nil
	}
	commits, _ := s.history(head, "")
	for _, c := range commits {
		subject, _, _ := strings.Cut(c.Message, "\n")
		subjects = append(subjects, subject)
	}
	return subjects
}

// serve carries out one request, or fails it.
func (s *Server) serve(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, req.Method+" "+req.URL.Path)
	if s.hook != nil {
		s.hook(req.Method + " " + req.URL.Path)
	}
	var fault Fault
	if len(s.faults) > 0 {
		fault, s.faults = s.faults[0], s.faults[1:]
	}
	switch fault {
	case Unavailable:
		answer(w, http.StatusServiceUnavailable, message("no server is available"))
	case TooMany:
		w.Header().Set("Retry-After", "7")
		answer(w, http.StatusTooManyRequests, message("too many requests"))
	case Limited:
		w.Header().Set("Retry-After", "3")
		answer(w, http.StatusForbidden, message("You have exceeded a secondary rate limit."))
	case Refused:
		// With the token in the message, so that a test sees whether it gets out.
		answer(w, http.StatusForbidden, message("Resource not accessible by integration: "+req.Header.Get("Authorization")))
	case Reset:
		panic(http.ErrAbortHandler)
	case Lost:
		s.route(httptest.NewRecorder(), req)
		panic(http.ErrAbortHandler)
	default:
		s.route(w, req)
	}
}

func (s *Server) route(w http.ResponseWriter, req *http.Request) {
	if strings.HasPrefix(req.URL.Path, "/logs/") {
		s.storedLog(w, req)
		return
	}
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	if token != Token && s.grants[token] == nil {
		answer(w, http.StatusUnauthorized, message("Bad credentials"))
		return
	}
	if req.Header.Get("X-GitHub-Api-Version") == "" || req.Header.Get("User-Agent") == "" {
		answer(w, http.StatusBadRequest, message("X-GitHub-Api-Version and User-Agent are missing"))
		return
	}
	path, ok := strings.CutPrefix(strings.TrimPrefix(req.URL.Path, uploads), "/repos/"+Repository+"/")
	if !ok {
		answer(w, http.StatusNotFound, message("Not Found"))
		return
	}
	what, rest, _ := strings.Cut(path, "/")
	if !s.may(token, req, what) {
		answer(w, http.StatusForbidden, message("Resource not accessible by integration"))
		return
	}
	var status int
	var result any
	switch what {
	case "contents":
		status, result = s.contents(req, rest)
	case "commits":
		status, result = s.listCommits(req)
	case "git":
		status, result = s.serveGit(req, rest)
	case "issues":
		status, result = s.serveIssues(req, rest)
	case "releases":
		status, result = s.serveReleases(req, rest)
	case "actions":
		if status, result = s.serveActions(w, req, rest); status == http.StatusFound {
			return
		}
	default:
		status, result = http.StatusNotFound, message("Not Found")
	}
	answer(w, status, result)
}

func message(s string) any { return map[string]string{"message": s} }

// invalid is GitHub's answer to a request whose body it does not take.
func invalid(code string) (int, any) {
	return http.StatusUnprocessableEntity, map[string]any{
		"message": "Validation Failed",
		"errors":  []map[string]string{{"resource": "test", "code": code}},
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// decode reads a request's body, which has no other fields than v.
func decode(req *http.Request, v any) error {
	if got := req.Header.Get("Content-Type"); got != "application/json" {
		return fmt.Errorf("content type %q", got)
	}
	dec := json.NewDecoder(req.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("more than one value")
	}
	return nil
}
