package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/githubtest"
	"github.com/xavieralpha/derper/internal/lock"
)

// gitHub is a GitHub that has this repository's lock without its outputs, in a
// workflow's environment, with a checkout of it as the working directory. The lock
// with its outputs is in out/.
func gitHub(t *testing.T) (*githubtest.Server, *lock.Lock) {
	t.Helper()
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	before := *l
	before.Outputs = nil
	content, err := before.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	server := githubtest.New(t, map[string]string{lock.File: string(content)})
	t.Chdir(t.TempDir())
	write(t, lock.File, string(content))
	if err := os.Mkdir("out", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Write("out/" + lock.File); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"GITHUB_API_URL": server.URL, "GITHUB_SERVER_URL": "https://git.example.com", "GITHUB_REPOSITORY": githubtest.Repository,
		"GITHUB_TOKEN": githubtest.Token, "GITHUB_REF_NAME": "main", "GITHUB_RUN_ID": "42",
		"GITHUB_OUTPUT": filepath.Join(t.TempDir(), "output"), "GITHUB_STEP_SUMMARY": filepath.Join(t.TempDir(), "summary"),
	} {
		t.Setenv(name, value)
	}
	return server, l
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// build runs the program and returns what it wrote.
func build(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	if got := run(t.Context(), args, &out, &errs); got != code {
		t.Fatalf("build %v: exit code %d, not %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	if strings.Contains(out.String()+errs.String(), githubtest.Token) {
		t.Errorf("build %v: the token is in its output:\n%s%s", args, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func outputs(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(os.Getenv("GITHUB_OUTPUT"))
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(os.Getenv("GITHUB_OUTPUT"))
	return string(data)
}

// TestGitHubRelease guards the end of a release: the lock, then the release, then
// nothing more to do.
func TestGitHubRelease(t *testing.T) {
	server, l := gitHub(t)
	build(t, exitOK, "github", "released")
	if got := outputs(t); got != "released=false\nversion="+l.Inputs.Tailscale.Short()+"\n" {
		t.Errorf("outputs of a lock that was not built: %q", got)
	}
	build(t, exitOK, "github", "released", "--lock", "out/versions.json")
	if got := outputs(t); !strings.HasPrefix(got, "released=false\n") {
		t.Errorf("outputs of a lock that was not released: %q", got)
	}

	for range 2 { // the second time it is all there
		build(t, exitOK, "github", "commit", "out/versions.json")
		write(t, "notes.md", "what is new\n")
		build(t, exitOK, "github", "release", "--notes", "notes.md", "out/versions.json")
	}
	want, err := os.ReadFile("out/versions.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := server.File(lock.File); got != string(want) {
		t.Errorf("main has another lock:\n%s", got)
	}
	if got := server.Commits(); len(got) != 2 || got[0] != "lock: tailscale "+l.Inputs.Tailscale.Version {
		t.Errorf("commits %q", got)
	}
	r := server.Releases()
	if len(r) != 1 || r[0].Tag != l.Inputs.Tailscale.Version || r[0].Prerelease || !strings.Contains(r[0].Body, "what is new") {
		t.Errorf("releases %+v", r)
	}
	build(t, exitOK, "github", "released", "--lock", "out/versions.json")
	if got := outputs(t); !strings.HasPrefix(got, "released=true\n") {
		t.Errorf("outputs after the release: %q", got)
	}
}

func TestGitHubUnstableRelease(t *testing.T) {
	server, l := gitHub(t)
	l.Inputs.Tailscale.Version = "v1.105.7"
	if err := l.Write("out/versions.json"); err != nil {
		t.Fatal(err)
	}
	// The channel's first: there is no such lock yet.
	build(t, exitOK, "github", "commit", "--lock", "versions-unstable.json", "out/versions.json")
	write(t, "notes.md", "what is new\n")
	build(t, exitOK, "github", "release", "--lock", "versions-unstable.json", "--notes", "notes.md", "out/versions.json")
	if r := server.Releases(); len(r) != 1 || r[0].Tag != "v1.105.7" || !r[0].Prerelease || r[0].Latest {
		t.Errorf("releases %+v", r)
	}
	if server.File("versions-unstable.json") == "" || len(server.Commits()) != 2 {
		t.Errorf("commits %q", server.Commits())
	}
}

// TestGitHubCommitRefuses guards against a lock that somebody changed while the
// release was under way, and against one that nobody built.
func TestGitHubCommitRefuses(t *testing.T) {
	server, _ := gitHub(t)
	if err := server.Push(map[string]string{lock.File: "theirs"}); err != nil {
		t.Fatal(err)
	}
	_, stderr := build(t, exitFailed, "github", "commit", "out/versions.json")
	if !strings.Contains(stderr, "versions.json on main: somebody else changed it") || !strings.Contains(stderr, "\nhint: nothing was committed") {
		t.Errorf("stderr:\n%s", stderr)
	}
	_, stderr = build(t, exitFailed, "github", "commit", lock.File)
	if !strings.Contains(stderr, "versions.json: lock: records no outputs") || !strings.Contains(stderr, "--update-lock --lock versions.json") {
		t.Errorf("stderr:\n%s", stderr)
	}
	if server.File(lock.File) != "theirs" {
		t.Errorf("main has %q", server.File(lock.File))
	}
}

func TestGitHubIssue(t *testing.T) {
	server, _ := gitHub(t)
	server.SetJobs([]githubtest.Job{
		{Name: "build", Conclusion: "success", Log: "nothing of interest"},
		{Name: "push", Conclusion: "failure", Steps: []string{"push by digest"}, Failed: "push by digest", Log: "build: push: no space\n"},
	})
	write(t, "report.txt", "FAIL linux/amd64\n```\nnested\n```\n")
	for range 2 {
		build(t, exitOK, "github", "issue", "--title", "release failed", "report.txt", "missing.txt")
	}
	list := server.Issues()
	if len(list) != 1 || list[0].Title != "release failed" {
		t.Fatalf("issues %+v", list)
	}
	for _, want := range []string{
		"Run: https://git.example.com/example/derper/actions/runs/42\n",
		"### push: push by digest\n\n```text\nbuild: push: no space\n```\n",
		"### report.txt\n\n````text\nFAIL linux/amd64\n```\nnested\n```\n````\n",
		"### missing.txt\n\nThere is no such report.\n",
	} {
		if !strings.Contains(list[0].Body, want) {
			t.Errorf("the issue lacks %q:\n%s", want, list[0].Body)
		}
	}
	if strings.Contains(list[0].Body, "nothing of interest") {
		t.Errorf("the issue has a job that did not fail:\n%s", list[0].Body)
	}
}

// TestGitHubIssueWithoutLogs guards that a failure is reported though nothing is
// known of it.
func TestGitHubIssueWithoutLogs(t *testing.T) {
	server, _ := gitHub(t)
	server.Fail(githubtest.Refused)
	build(t, exitOK, "github", "issue", "--title", "release failed")
	if list := server.Issues(); len(list) != 1 || !strings.Contains(list[0].Body, "could not be asked for: github: GET /actions/runs/42/jobs: 403") ||
		strings.Contains(list[0].Body, githubtest.Token) {
		t.Errorf("issues %+v", list)
	}
}

// TestGitHubErrors guards that the hint says what to do.
func TestGitHubErrors(t *testing.T) {
	server, _ := gitHub(t)
	server.Fail(githubtest.Refused)
	_, stderr := build(t, exitFailed, "github", "commit", "out/versions.json")
	if !strings.Contains(stderr, "403 Forbidden: Resource not accessible") || !strings.Contains(stderr, "hint: GITHUB_TOKEN needs the permission contents: write") {
		t.Errorf("stderr:\n%s", stderr)
	}
	for _, args := range [][]string{
		{"github"}, {"github", "unknown"}, {"github", "commit"}, {"github", "commit", "a", "b"}, {"github", "release"},
		{"github", "released", "more"}, {"github", "commit", "--lock", "../versions.json", "out/versions.json"},
	} {
		build(t, exitUsage, args...)
	}
	t.Setenv("GITHUB_REF_NAME", "")
	build(t, exitUsage, "github", "commit", "out/versions.json")
	t.Setenv("GITHUB_TOKEN", "")
	_, stderr = build(t, exitFailed, "github", "released")
	if !strings.Contains(stderr, "GITHUB_TOKEN and GITHUB_REPOSITORY (owner/name) must be set\nhint: ") {
		t.Errorf("stderr:\n%s", stderr)
	}
}

// TestOutputs guards against a value that would be taken for another output.
func TestOutputs(t *testing.T) {
	t.Setenv("GITHUB_OUTPUT", filepath.Join(t.TempDir(), "output"))
	if err := setOutputs("a", "1", "b", "2"); err != nil {
		t.Fatal(err)
	}
	if err := setOutputs("c", "1\nreleased=true"); err == nil {
		t.Error("a value of two lines is taken")
	}
	if got := outputs(t); got != "a=1\nb=2\n" {
		t.Errorf("%q", got)
	}
	t.Setenv("GITHUB_OUTPUT", "")
	if err := setOutputs("a", "1"); err != nil {
		t.Errorf("outside of a workflow: %v", err)
	}
	t.Setenv("GITHUB_STEP_SUMMARY", filepath.Join(t.TempDir(), "summary"))
	for range 2 {
		if err := addSummary("# text\n"); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(os.Getenv("GITHUB_STEP_SUMMARY")); string(data) != "# text\n\n# text\n\n" {
		t.Errorf("%q, %v", data, err)
	}
}
