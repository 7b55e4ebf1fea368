package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Workflow is the run of GitHub Actions that this program is a part of, as the variables
// of its environment describe it; Getenv reads them. Outside of GitHub Actions there are
// none.
// Source: https://docs.github.com/en/actions/reference/workflows-and-actions/variables.
type Workflow struct{ Getenv func(string) string }

// Client is the client for the repository that the workflow runs in.
func (w Workflow) Client() (*Client, error) {
	c := &Client{
		API:        strings.TrimRight(cmp.Or(w.Getenv("GITHUB_API_URL"), API), "/"),
		Repository: w.Getenv("GITHUB_REPOSITORY"),
		Token:      w.Getenv("GITHUB_TOKEN"),
	}
	if c.Token == "" || strings.Count(c.Repository, "/") != 1 {
		return nil, ErrNoToken
	}
	return c, nil
}

// ErrNoToken says that nothing gives the right to speak to GitHub.
var ErrNoToken = errors.New("github: GITHUB_TOKEN and GITHUB_REPOSITORY (owner/name) must be set")

// Server is GitHub's address, without a slash at its end.
func (w Workflow) Server() string {
	return strings.TrimRight(cmp.Or(w.Getenv("GITHUB_SERVER_URL"), "https://github.com"), "/")
}

// Repository is the address of the repository that the workflow runs in, "" outside of one.
func (w Workflow) Repository() string {
	name := w.Getenv("GITHUB_REPOSITORY")
	if name == "" {
		return ""
	}
	return w.Server() + "/" + name
}

// Run is the address of the run, "" outside of one.
func (w Workflow) Run() string {
	id := w.Getenv("GITHUB_RUN_ID")
	if id == "" || w.Repository() == "" {
		return ""
	}
	return w.Repository() + "/actions/runs/" + id
}

// SetOutputs gives values to the later steps of the workflow, as name and value in turn.
// Outside of one it does nothing.
// Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands.
func (w Workflow) SetOutputs(pairs ...string) error {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if strings.ContainsAny(pairs[i+1], "\r\n") {
			return fmt.Errorf("output %s: has more than one line: %q", pairs[i], pairs[i+1])
		}
		fmt.Fprintf(&b, "%s=%s\n", pairs[i], pairs[i+1])
	}
	return w.appendTo("GITHUB_OUTPUT", b.String())
}

// AddSummary adds Markdown to the page of the run. Outside of one it does nothing.
func (w Workflow) AddSummary(markdown string) error {
	return w.appendTo("GITHUB_STEP_SUMMARY", strings.TrimRight(markdown, "\n")+"\n\n")
}

// appendTo adds to the file that a variable names, which other steps have, too.
func (w Workflow) appendTo(variable, text string) error {
	name := w.Getenv(variable)
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	return nil
}

// Describe is the text of an issue about the run, which failed: its failed jobs whose names
// begin with jobs, with the ends of their logs, and the content of files. What GitHub does
// not tell is left out of it, and said in it.
func (w Workflow) Describe(ctx context.Context, c *Client, jobs string, files []string) (string, error) {
	var b strings.Builder
	if run := w.Getenv("GITHUB_RUN_ID"); run != "" {
		fmt.Fprintf(&b, "Run: %s\n", w.Run())
		failures, err := c.Failures(ctx, run)
		if err != nil {
			fmt.Fprintf(&b, "\nIts jobs could not be asked for: %v\n", err)
		}
		for _, failure := range failures {
			if !strings.HasPrefix(failure.Job, jobs) {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n", strings.TrimSuffix(failure.Job+": "+failure.Step, ": "))
			if failure.Log != "" {
				b.WriteString(Fenced(failure.Log))
			}
		}
	}
	for _, name := range files {
		fmt.Fprintf(&b, "\n### %s\n", filepath.Base(name))
		content, err := os.ReadFile(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // the run did not come that far
			b.WriteString("\nThere is no such report.\n")
		case err != nil:
			return "", err
		default:
			b.WriteString(Fenced(string(content)))
		}
	}
	return b.String(), nil
}

// Fenced is text as it is, in Markdown: in a fence longer than any in it.
// Source: https://spec.commonmark.org/0.31.2/#fenced-code-blocks.
func Fenced(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return "\n" + fence + "text\n" + strings.TrimRight(text, "\n") + "\n" + fence + "\n"
}
