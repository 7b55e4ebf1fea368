package github

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/githubtest"
)

const lockFile = "versions.json"

// world is a GitHub on loopback and a client for it that does not wait.
type world struct {
	*testing.T
	server *githubtest.Server
	client *Client
	pauses []time.Duration
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, server: githubtest.New(t, map[string]string{lockFile: "old\n", "README.md": "readme\n"})}
	w.client = &Client{API: w.server.URL, Repository: githubtest.Repository, Token: githubtest.Token}
	w.client.pause = func(ctx context.Context, d time.Duration) error {
		w.pauses = append(w.pauses, d)
		return ctx.Err()
	}
	return w
}

func (w *world) no(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) writes() (n int) {
	for _, r := range w.server.Requests() {
		if !strings.HasPrefix(r, "GET ") {
			n++
		}
	}
	return n
}

func lockChange() Change {
	return Change{Branch: "main", Files: []File{{Path: lockFile, Old: []byte("old\n"), New: []byte("new\n")}}, Message: "lock: v1.2.3"}
}

func TestCommit(t *testing.T) {
	w := newWorld(t)
	commit, err := w.client.Commit(t.Context(), lockChange())
	w.no(err)
	if got := w.server.File(lockFile); got != "new\n" {
		t.Errorf("main has %q", got)
	}
	if got := w.server.Commits(); !slices.Equal(got, []string{"lock: v1.2.3", "first commit"}) {
		t.Errorf("commits %q", got)
	}
	// Once more: it is there, and nothing is written.
	again, err := w.client.Commit(t.Context(), lockChange())
	w.no(err)
	if again != commit || len(commit) != 40 {
		t.Errorf("commit %q, then %q", commit, again)
	}
	if w.writes() != 3 { // a tree, a commit, the branch
		t.Errorf("requests %q", w.server.Requests())
	}
}

// What was built is the parent of the commit, whatever the branch has become, and nothing of
// that is lost.
func TestCommitOnParent(t *testing.T) {
	w := newWorld(t)
	built, err := w.client.LastCommit(t.Context(), "main", lockFile)
	w.no(err)
	w.no(w.server.Push(map[string]string{"README.md": "theirs\n", "new.md": "new\n", "docs/variables.md": "another page\n"}))
	change := lockChange()
	change.Parent = built
	change.Files = append(change.Files, File{Path: "docs/variables.md", New: []byte("page\n"), Replace: true})
	commit, err := w.client.Commit(t.Context(), change)
	w.no(err)
	for path, want := range map[string]string{lockFile: "new\n", "README.md": "theirs\n", "new.md": "new\n", "docs/variables.md": "page\n"} {
		if got := w.server.File(path); got != want {
			t.Errorf("main has %q in %s", got, path)
		}
	}
	for path, want := range map[string]string{lockFile: "new\n", "README.md": "readme\n", "docs/variables.md": "page\n"} {
		if got, err := w.server.FileAt(commit, path); err != nil || got != want {
			t.Errorf("the commit has %q in %s: %v", got, path, err)
		}
	}
	if _, err := w.server.FileAt(commit, "new.md"); err == nil {
		t.Error("the commit has what came later")
	}
	writes := w.writes()
	again, err := w.client.Commit(t.Context(), change)
	w.no(err)
	if again != commit || w.writes() != writes {
		t.Errorf("commit %s, then %s, with %d more requests", commit, again, w.writes()-writes)
	}
}

// A lock of a channel that was never released is a new file.
func TestCommitNewFile(t *testing.T) {
	w := newWorld(t)
	c := Change{Branch: "main", Files: []File{{Path: "locks/versions unstable.json", New: []byte("new\n")}}, Message: "lock"}
	_, err := w.client.Commit(t.Context(), c)
	w.no(err)
	if got := w.server.File(c.Files[0].Path); got != "new\n" {
		t.Errorf("main has %q", got)
	}
}

func TestCommitRefusesWhatSomebodyElseChanged(t *testing.T) {
	for name, test := range map[string]struct {
		change Change
		theirs map[string]string
	}{
		"changed":  {lockChange(), map[string]string{lockFile: "theirs\n"}},
		"new":      {Change{Branch: "main", Files: []File{{Path: "new.json", New: []byte("ours")}}, Message: "m"}, map[string]string{"new.json": "theirs"}},
		"vanished": {Change{Branch: "main", Files: []File{{Path: "gone.json", Old: []byte("old"), New: []byte("new")}}, Message: "m"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.no(w.server.Push(test.theirs))
			before := w.server.Commits()
			if _, err := w.client.Commit(t.Context(), test.change); !errors.Is(err, ErrChanged) {
				t.Errorf("%v, not ErrChanged", err)
			}
			if got := w.server.Commits(); len(got) != len(before) || w.writes() != 0 {
				t.Errorf("commits %q, requests %q", got, w.server.Requests())
			}
		})
	}
}

// Another file of the branch may have changed meanwhile.
func TestCommitBesideOthers(t *testing.T) {
	w := newWorld(t)
	w.no(w.server.Push(map[string]string{"README.md": "theirs\n"}))
	_, err := w.client.Commit(t.Context(), lockChange())
	w.no(err)
	if w.server.File(lockFile) != "new\n" || w.server.File("README.md") != "theirs\n" {
		t.Errorf("main has %q, %q", w.server.File(lockFile), w.server.File("README.md"))
	}
}

func TestReport(t *testing.T) {
	w := newWorld(t)
	for n := range 120 { // more than a page
		w.server.Open(githubtest.Issue{Title: fmt.Sprint("another ", n)})
	}
	w.server.Open(githubtest.Issue{Author: Bot, Title: "release failed", PullRequest: true})
	w.server.Open(githubtest.Issue{Author: "stranger", Title: "release failed"})
	first, err := w.client.Report(t.Context(), Bot, "release failed", "on Monday")
	w.no(err)
	second, err := w.client.Report(t.Context(), Bot, "release failed", "on Tuesday")
	w.no(err)
	issues := w.server.Issues()
	if len(issues) != 123 {
		t.Fatalf("%d issues are open", len(issues))
	}
	got := issues[122]
	if got.Title != "release failed" || got.Body != "on Monday" || !slices.Equal(got.Comments, []string{"on Tuesday"}) {
		t.Errorf("%+v", got)
	}
	if !strings.HasSuffix(first, "/issues/123") || !strings.HasPrefix(second, first) {
		t.Errorf("addresses %s, %s", first, second)
	}
}

func TestWithdraw(t *testing.T) {
	w := newWorld(t)
	commit, err := w.client.LastCommit(t.Context(), "main", lockFile)
	w.no(err)
	_, err = w.client.Release(t.Context(), ReleaseNotes{Tag: "v1.2.3", Commit: commit, Notes: "the notes", Index: "sha256:aa"})
	w.no(err)
	for range 2 { // the second time it is marked
		w.no(w.client.Withdraw(t.Context(), "v1.2.3", "**Withdrawn.**"))
	}
	w.no(w.client.Withdraw(t.Context(), "v1.2.4", "**Withdrawn.**")) // was never released
	r := w.server.Releases()
	if len(r) != 1 || !strings.HasPrefix(r[0].Body, "**Withdrawn.**\n\nthe notes") || !r[0].Prerelease || r[0].Latest {
		t.Errorf("%+v", r)
	}
	if released, err := w.client.Released(t.Context(), "v1.2.3", "sha256:aa"); !released || err != nil {
		t.Errorf("a release that is withdrawn was one: %v, %v", released, err)
	}
	if n := w.writes(); n != 3 { // to draft, to publish, to withdraw
		t.Errorf("requests %q", w.server.Requests())
	}
}

// TestWithdrawImmutable guards a release of which only the notes may change.
func TestWithdrawImmutable(t *testing.T) {
	w := newWorld(t)
	w.server.Immutable()
	r := ReleaseNotes{Tag: "v1.2.3", Commit: "main", Notes: "the notes", Index: "sha256:aa", Assets: map[string][]byte{"a.json": []byte("{}")}}
	_, err := w.client.Release(t.Context(), r)
	w.no(err)
	w.no(w.client.Withdraw(t.Context(), "v1.2.3", "**Withdrawn.**"))
	r.Index, r.Notes = "sha256:bb", "other notes"
	_, err = w.client.Release(t.Context(), r) // the notes may be written anew
	w.no(err)
	if got := w.server.Releases(); len(got) != 1 || got[0].Prerelease || !strings.HasPrefix(got[0].Body, "other notes") || len(got[0].Assets) != 1 {
		t.Errorf("%+v", got)
	}
	w.no(w.client.Withdraw(t.Context(), "v1.2.3", "**Withdrawn.**"))
	if got := w.server.Releases()[0]; !strings.HasPrefix(got.Body, "**Withdrawn.**\n\nother notes") {
		t.Errorf("%+v", got)
	}
}

// TestAssets guards that nobody sees a release without its files: they come first, those of
// a draft that somebody else's run left are right in the end, and a release that is public
// gets no more.
func TestAssets(t *testing.T) {
	w := newWorld(t)
	commit, err := w.client.LastCommit(t.Context(), "main", lockFile)
	w.no(err)
	r := ReleaseNotes{Tag: "1.2.3-r0", Commit: commit, Notes: "the notes", Index: "sha256:aa",
		Assets: map[string][]byte{"linux-amd64.spdx.json": []byte(`{"a":1}`), "test-default.xml": []byte("<a/>"), "empty": {}}}
	check := func(want map[string]string) {
		t.Helper()
		list := w.server.Releases()
		if len(list) != 1 || len(w.server.Drafts()) != 0 || list[0].Commit != commit || !list[0].Latest {
			t.Fatalf("%+v, drafts %+v", list, w.server.Drafts())
		}
		got := map[string]string{}
		for _, a := range list[0].Assets {
			got[a.Name] = a.Kind + " " + a.Content
		}
		if !maps.Equal(got, want) {
			t.Errorf("%q, not %q", got, want)
		}
	}
	// GitHub takes no asset of that name.
	w.server.Hook(func(request string) {
		if strings.HasSuffix(request, "/assets") {
			w.server.FailNext(githubtest.Refused)
		}
	})
	if _, err := w.client.Release(t.Context(), r); err == nil || !strings.Contains(err.Error(), "asset empty: github: POST /assets: 403") {
		t.Errorf("%v", err)
	}
	if len(w.server.Releases()) != 0 || len(w.server.Drafts()) != 1 {
		t.Fatalf("published %+v", w.server.Releases())
	}
	released, err := w.client.Released(t.Context(), r.Tag, r.Index)
	if w.no(err); released {
		t.Error("a draft is no release")
	}
	w.server.Hook(nil)
	draft := r
	draft.Assets = map[string][]byte{"linux-amd64.spdx.json": []byte(`{"a":2}`), "test-default.xml": []byte("<a/>"), "of-another-run.json": []byte("{}")}
	w.server.Hook(func(request string) { // all is there but for its publication
		if strings.HasPrefix(request, "PATCH ") {
			w.server.FailNext(githubtest.Refused)
		}
	})
	if _, err := w.client.Release(t.Context(), draft); err == nil || len(w.server.Drafts()) != 1 || len(w.server.Drafts()[0].Assets) != 3 {
		t.Fatalf("%v, drafts %+v", err, w.server.Drafts())
	}
	w.server.Hook(nil)
	_, err = w.client.Release(t.Context(), r)
	w.no(err)
	want := map[string]string{"linux-amd64.spdx.json": `application/json {"a":1}`, "test-default.xml": "application/xml <a/>", "empty": "application/octet-stream "}
	check(want)
	_, err = w.client.Release(t.Context(), draft) // the same image again
	w.no(err)
	check(want)
	w.server.DeleteReleases()

	// An upload that broke off leaves an asset that is none.
	w.server.Hook(func(request string) {
		if strings.HasPrefix(request, "PATCH ") {
			w.server.FailNext(githubtest.Refused)
		}
	})
	_, _ = w.client.Release(t.Context(), r)
	w.server.Hook(nil)
	w.server.BreakUploads()
	_, err = w.client.Release(t.Context(), r)
	w.no(err)
	check(want)
}

// TestUploadHost guards that the token goes to GitHub alone, whatever an answer says.
func TestUploadHost(t *testing.T) {
	for _, test := range []struct{ api, template, want string }{
		{API, "https://uploads.github.com/repos/a/b/releases/1/assets{?name,label}", "https://uploads.github.com/repos/a/b/releases/1"},
		{"https://api.octo.ghe.com", "https://uploads.octo.ghe.com/repos/a/b/releases/1/assets{?name,label}", "https://uploads.octo.ghe.com/repos/a/b/releases/1"},
		{"https://git.example.com/api/v3", "https://git.example.com/api/uploads/repos/a/b/releases/1/assets{?name,label}", "https://git.example.com/api/uploads/repos/a/b/releases/1"},
		{API, "http://uploads.github.com/repos/a/b/releases/1/assets", ""},
		{API, "https://uploads.github.com.example.com/repos/a/b/releases/1/assets", ""},
		{API, "https://example.com/repos/a/b/releases/1/assets", ""},
		{API, "", ""},
	} {
		got, err := (&Client{API: test.api}).uploads(test.template)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %s: %q, %v", test.api, test.template, got, err)
		}
	}
}

func TestReportOfAnyLength(t *testing.T) {
	w := newWorld(t)
	_, err := w.client.Report(t.Context(), Bot, "long", strings.Repeat("ein großer Bericht\n", 10_000))
	w.no(err)
	body := w.server.Issues()[0].Body
	if len(body) > maxBody || !strings.HasSuffix(body, "Bericht\n\n(shortened)\n") {
		t.Errorf("%d bytes, at the end %q", len(body), body[len(body)-40:])
	}
}

func TestRelease(t *testing.T) {
	w := newWorld(t)
	commit, err := w.client.LastCommit(t.Context(), "main", lockFile)
	w.no(err)
	r := ReleaseNotes{Tag: "v1.2.3", Commit: commit, Notes: "the notes", Index: "sha256:aa"}
	released := func(want bool) {
		t.Helper()
		got, err := w.client.Released(t.Context(), r.Tag, r.Index)
		w.no(err)
		if got != want {
			t.Errorf("released %v", got)
		}
	}
	released(false)
	address, err := w.client.Release(t.Context(), r)
	w.no(err)
	released(true)
	got := w.server.Releases()[0]
	if got.Tag != "v1.2.3" || got.Commit != commit || got.Prerelease || !got.Latest || !strings.HasPrefix(got.Body, "the notes\n") {
		t.Errorf("%+v", got)
	}
	if !strings.HasSuffix(address, "/releases/1") {
		t.Errorf("address %s", address)
	}

	// The same image again changes nothing, whatever is said of it now.
	before := w.writes()
	again := r
	again.Notes = "poorer notes"
	_, err = w.client.Release(t.Context(), again)
	w.no(err)
	if w.writes() != before {
		t.Errorf("requests %q", w.server.Requests())
	}

	// The same version, built anew: other notes, the same tag.
	r.Index, r.Notes, r.Commit = "sha256:bb", "other notes", ""
	released(false)
	_, err = w.client.Release(t.Context(), r)
	w.no(err)
	released(true)
	if list := w.server.Releases(); len(list) != 1 || list[0].Commit != commit || !strings.HasPrefix(list[0].Body, "other notes") {
		t.Errorf("%+v", list)
	}
}

func TestPrerelease(t *testing.T) {
	w := newWorld(t)
	_, err := w.client.Release(t.Context(), ReleaseNotes{Tag: "v1.3.0", Commit: "main", Notes: "n", Index: "sha256:aa", Prerelease: true})
	w.no(err)
	if got := w.server.Releases()[0]; !got.Prerelease || got.Latest {
		t.Errorf("%+v", got)
	}
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	var log strings.Builder
	for i := range 200 {
		fmt.Fprintf(&log, "2026-11-22T04:00:00.0000000Z line %d\r\n", i)
	}
	log.WriteString("2026-11-22T04:00:01.0000000Z ##[error]Process completed with exit code 1.\r\n")
	log.WriteString("2026-11-22T04:00:02.0000000Z Post job cleanup.\r\n")
	w.server.SetJobs([]githubtest.Job{
		{Name: "build", Conclusion: "success", Steps: []string{"checkout", "build"}, Log: "fine"},
		{Name: "push", Conclusion: "failure", Steps: []string{"checkout", "push", "after"}, Failed: "push", Log: log.String()},
		{Name: "lost", Conclusion: "timed_out"},
		{Name: "report"}, // the one that asks
	})
	list, err := w.client.Failures(t.Context(), "42")
	w.no(err)
	if len(list) != 2 || list[0].Job != "push" || list[0].Step != "push" || list[1] != (Failure{Job: "lost"}) {
		t.Fatalf("%+v", list)
	}
	lines := strings.Split(list[0].Log, "\n")
	if len(lines) != logLines || lines[0] != "line 141" || lines[len(lines)-1] != "##[error]Process completed with exit code 1." {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
}

// Each operation comes to the same end, whichever of its requests meets whichever
// fault that passes.
func TestFaults(t *testing.T) {
	operations := map[string]struct {
		do    func(w *world) error
		wants func(w *world) bool
	}{
		"commit": {
			func(w *world) error { _, err := w.client.Commit(w.Context(), lockChange()); return err },
			func(w *world) bool {
				return slices.Equal(w.server.Commits(), []string{"lock: v1.2.3", "first commit"})
			}},
		"report": {
			func(w *world) error { _, err := w.client.Report(w.Context(), Bot, "t", "b"); return err },
			func(w *world) bool {
				i := w.server.Issues()
				return len(i) == 1 && i[0].Body == "b" && len(i[0].Comments) == 0
			}},
		"release": {
			func(w *world) error {
				_, err := w.client.Release(w.Context(), ReleaseNotes{Tag: "v1", Commit: "main", Notes: "n", Index: "i", Assets: map[string][]byte{"a": []byte("1"), "b": []byte("2")}})
				return err
			},
			func(w *world) bool {
				r := w.server.Releases()
				return len(r) == 1 && strings.HasPrefix(r[0].Body, "n\n") && len(r[0].Assets) == 2 && len(w.server.Drafts()) == 0
			}},
		"failures": {
			func(w *world) error {
				w.server.SetJobs([]githubtest.Job{{Name: "a", Conclusion: "failure", Log: "the log"}})
				list, err := w.client.Failures(w.Context(), "1")
				if err == nil && (len(list) != 1 || list[0].Log != "the log") {
					err = fmt.Errorf("%+v", list)
				}
				return err
			},
			func(*world) bool { return true }},
	}
	faults := []githubtest.Fault{githubtest.Unavailable, githubtest.TooMany, githubtest.Limited, githubtest.Reset, githubtest.Lost}
	tried := 0
	for name, op := range operations {
		count := func() int {
			w := newWorld(t)
			w.no(op.do(w))
			return len(w.server.Requests())
		}()
		for _, fault := range faults {
			for n := range count {
				w := newWorld(t)
				w.server.Fail(append(make([]githubtest.Fault, n), fault)...)
				if err := op.do(w); err != nil {
					t.Errorf("%s: request %d: fault %d: %v", name, n+1, fault, err)
				}
				if !op.wants(w) {
					t.Errorf("%s: request %d: fault %d: commits %q, issues %+v, releases %+v", name, n+1, fault, w.server.Commits(), w.server.Issues(), w.server.Releases())
				}
				// The transport repeats some requests by itself.
				if fault < githubtest.Reset && len(w.pauses) != 1 || len(w.pauses) > 1 {
					t.Errorf("%s: request %d: fault %d: pauses %v", name, n+1, fault, w.pauses)
				}
				tried++
			}
		}
	}
	t.Logf("%d faults tried", tried)
}

// The server says how long to wait.
func TestWaitsAsAsked(t *testing.T) {
	w := newWorld(t)
	w.server.Fail(githubtest.TooMany, githubtest.Limited)
	_, err := w.client.Released(t.Context(), "v1", "i")
	w.no(err)
	if want := []time.Duration{7 * time.Second, 3 * time.Second}; !slices.Equal(w.pauses, want) {
		t.Errorf("pauses %v, not %v", w.pauses, want)
	}
}

// A fault that stays ends it, after a few tries.
func TestGivesUp(t *testing.T) {
	w := newWorld(t)
	w.server.Fail(slices.Repeat([]githubtest.Fault{githubtest.Unavailable}, 100)...)
	_, err := w.client.Commit(t.Context(), lockChange())
	var e *Error
	if !errors.As(err, &e) || e.Status != 503 || !strings.Contains(err.Error(), "tried 5 times") {
		t.Errorf("%v", err)
	}
	if n := len(w.server.Requests()); n != tries {
		t.Errorf("%d requests", n)
	}
}

// Refusals are final, and say nothing of the token.
func TestRefused(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"forbidden":   func(w *world) { w.server.Fail(githubtest.Refused) },
		"wrong token": func(w *world) { w.client.Token = "ghs_another" },
		"no token":    func(w *world) { w.client.Token = "" },
		"no address":  func(w *world) { w.client.API = "http://[" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			prepare(w)
			_, err := w.client.Commit(t.Context(), lockChange())
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "ghs_") {
				t.Errorf("the token is in %q", err)
			}
			if len(w.server.Requests()) > 1 || len(w.pauses) > 0 {
				t.Errorf("tried again: %q", w.server.Requests())
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.client.Commit(ctx, lockChange()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A token that may only read does nothing by halves.
func TestWithoutPermission(t *testing.T) {
	w := newWorld(t)
	w.client.Token = w.server.Grant(map[string]string{"contents": "read", "issues": "read"})
	for name, err := range map[string]error{
		"commit":  second(w.client.Commit(t.Context(), lockChange())),
		"report":  second(w.client.Report(t.Context(), Bot, "t", "b")),
		"release": second(w.client.Release(t.Context(), ReleaseNotes{Tag: "v1", Commit: "main", Index: "i"})),
	} {
		if !is(err, 403) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(w.server.Commits()) != 1 || len(w.server.Issues()) != 0 || len(w.server.Releases()) != 0 {
		t.Error("something was done")
	}
}

func second(_ string, err error) error { return err }
