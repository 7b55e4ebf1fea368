package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/testing/githubtest"
)

// gitHub is a GitHub, in a workflow's environment, with a checkout as the working
// directory.
func gitHub(t *testing.T) *githubtest.Server {
	t.Helper()
	server := githubtest.New(t, map[string]string{"README.md": "test\n"})
	t.Chdir(t.TempDir())
	for name, value := range map[string]string{
		"GITHUB_API_URL": server.URL, "GITHUB_SERVER_URL": "https://git.example.com", "GITHUB_REPOSITORY": githubtest.Repository,
		"GITHUB_TOKEN": githubtest.Token, "GITHUB_REF_NAME": "main", "GITHUB_RUN_ID": "42",
		"GITHUB_OUTPUT": filepath.Join(t.TempDir(), "output"), "GITHUB_STEP_SUMMARY": filepath.Join(t.TempDir(), "summary"),
	} {
		t.Setenv(name, value)
	}
	return server
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

func TestGitHubIssue(t *testing.T) {
	server := gitHub(t)
	server.SetJobs([]githubtest.Job{
		{Name: "build", Conclusion: "success", Log: "nothing of interest"},
		{Name: "push", Conclusion: "failure", Steps: []string{"push by digest"}, Failed: "push by digest", Log: "build: push: no space\n"},
	})
	write(t, "report.txt", "FAIL linux/amd64\n```\nnested\n```\n")
	// Anybody can open an issue with that title, and is not answered in it.
	server.Open(githubtest.Issue{Author: "stranger", Title: "release failed"})
	for range 2 {
		build(t, cli.ExitOK, "github", "issue", "--title", "release failed", "report.txt", "missing.txt")
	}
	list := server.Issues()
	if len(list) != 2 || list[1].Title != "release failed" || len(list[0].Comments) > 0 {
		t.Fatalf("issues %+v", list)
	}
	list = list[1:]
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
	server := gitHub(t)
	server.Fail(githubtest.Refused)
	build(t, cli.ExitOK, "github", "issue", "--title", "release failed")
	if list := server.Issues(); len(list) != 1 || !strings.Contains(list[0].Body, "could not be asked for: github: GET /actions/runs/42/jobs: 403") ||
		strings.Contains(list[0].Body, githubtest.Token) {
		t.Errorf("issues %+v", list)
	}
}

// TestGitHubErrors guards that the hint says what to do.
func TestGitHubErrors(t *testing.T) {
	server := gitHub(t)
	server.Fail(githubtest.None, githubtest.Refused)
	_, stderr := build(t, cli.ExitFailed, "github", "issue")
	if !strings.Contains(stderr, "403 Forbidden: Resource not accessible") || !strings.Contains(stderr, "hint: GITHUB_TOKEN needs the permission issues: write") {
		t.Errorf("stderr:\n%s", stderr)
	}
	for _, args := range [][]string{
		{"github"}, {"github", "unknown"}, {"release", "--step", "record", "--github", "--lock", "../versions.json"},
	} {
		build(t, cli.ExitUsage, args...)
	}
	t.Setenv("GITHUB_REF_NAME", "")
	build(t, cli.ExitUsage, "release", "--step", "record", "--github")
	t.Setenv("GITHUB_TOKEN", "")
	_, stderr = build(t, cli.ExitFailed, "github", "issue")
	if !strings.Contains(stderr, "GITHUB_TOKEN and GITHUB_REPOSITORY (owner/name) must be set\nhint: ") {
		t.Errorf("stderr:\n%s", stderr)
	}
}
