package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/github"
)

const githubSynopsis = `github issue reports a workflow run that failed: it opens an issue with the failed jobs, the ends of their
logs, and the files that are named. If this workflow has an issue with that title open, it gets a comment;
an issue that somebody else opened is left alone.

In a workflow, GITHUB_REPOSITORY and its like are set; give it GITHUB_TOKEN.`

const githubExample = `  build github issue --title 'the release failed' report.txt`

func runGitHub(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("github issue [flags] [FILE ...]", githubSynopsis, githubExample, stdout)
	title := flags.String("title", "a workflow failed", "the issue's `title`")
	jobs := flags.String("jobs", "", "report only jobs whose names begin so")
	author := flags.String("author", github.Workflow, "the `user` that the token belongs to, whose issues get comments")
	words, err := flags.parse(args, func(words []string) error {
		if len(words) == 0 || words[0] != "issue" {
			return cli.Usage("github: expected subcommand \"issue\"")
		}
		return nil
	})
	if err != nil {
		return err
	}
	c, err := githubClient()
	if err != nil {
		return err
	}
	var b strings.Builder
	if run := os.Getenv("GITHUB_RUN_ID"); run != "" {
		server := strings.TrimRight(cmp.Or(os.Getenv("GITHUB_SERVER_URL"), "https://github.com"), "/")
		fmt.Fprintf(&b, "Run: %s/%s/actions/runs/%s\n", server, c.Repository, run)
		failures, err := c.Failures(ctx, run)
		if err != nil {
			// What is known is reported all the same.
			fmt.Fprintf(&b, "\nIts jobs could not be asked for: %v\n", err)
		}
		for _, failure := range failures {
			if !strings.HasPrefix(failure.Job, *jobs) {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n", strings.TrimSuffix(failure.Job+": "+failure.Step, ": "))
			if failure.Log != "" {
				b.WriteString(fenced(failure.Log))
			}
		}
	}
	for _, name := range words[1:] {
		fmt.Fprintf(&b, "\n### %s\n", filepath.Base(name))
		content, err := os.ReadFile(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // the run did not come that far
			b.WriteString("\nThere is no such report.\n")
		case err != nil:
			return err
		default:
			b.WriteString(fenced(string(content)))
		}
	}
	address, err := c.Report(ctx, *author, *title, b.String())
	if err != nil {
		return explain(err, githubHints("issues: write and actions: read"))
	}
	fmt.Fprintln(stdout, address)
	return nil
}

// githubClient is the client for the repository that a workflow runs in.
func githubClient() (*github.Client, error) {
	c := &github.Client{
		API:        strings.TrimRight(cmp.Or(os.Getenv("GITHUB_API_URL"), github.API), "/"),
		Repository: os.Getenv("GITHUB_REPOSITORY"),
		Token:      os.Getenv("GITHUB_TOKEN"),
	}
	if c.Token == "" || strings.Count(c.Repository, "/") != 1 {
		return nil, cli.Failed(errors.New("github: GITHUB_TOKEN and GITHUB_REPOSITORY (owner/name) must be set"),
			"a workflow sets the one in env:, as ${{ github.token }}; GitHub sets the other")
	}
	return c, nil
}

// fenced is text as it is, in Markdown: in a fence longer than any in it.
// Source: https://spec.commonmark.org/0.31.2/#fenced-code-blocks.
func fenced(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return "\n" + fence + "text\n" + strings.TrimRight(text, "\n") + "\n" + fence + "\n"
}

// setOutputs gives values to the later steps of a workflow on GitHub, as name and
// value in turn. Elsewhere it does nothing.
// Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands.
func setOutputs(pairs ...string) error {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if strings.ContainsAny(pairs[i+1], "\r\n") {
			return fmt.Errorf("output %s: has more than one line: %q", pairs[i], pairs[i+1])
		}
		fmt.Fprintf(&b, "%s=%s\n", pairs[i], pairs[i+1])
	}
	return appendTo("GITHUB_OUTPUT", b.String())
}

// addSummary adds Markdown to the page of a workflow's run on GitHub. Elsewhere it
// does nothing.
func addSummary(markdown string) error {
	return appendTo("GITHUB_STEP_SUMMARY", strings.TrimRight(markdown, "\n")+"\n\n")
}

// appendTo adds to the file that a variable names, which other steps have, too.
func appendTo(variable, text string) error {
	name := os.Getenv(variable)
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

// githubRepository is the address of the repository that a workflow runs in, "" outside
// of one.
func githubRepository() string {
	name := os.Getenv("GITHUB_REPOSITORY")
	if name == "" {
		return ""
	}
	return strings.TrimRight(cmp.Or(os.Getenv("GITHUB_SERVER_URL"), "https://github.com"), "/") + "/" + name
}
