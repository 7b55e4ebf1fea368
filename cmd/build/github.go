package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/github"
)

// newGitHub has one command of its own, issue.
func newGitHub(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "github COMMAND",
		Short:   "report a failed workflow run on GitHub",
		Long:    "github has one command, which reports a workflow run that failed.",
		Example: "  build github issue --title 'the release failed' report.txt",
	}
	c.AddCommand(newIssue(e))
	return cli.Group(c)
}

func newIssue(e *env) *cobra.Command {
	var title, jobs, author string
	c := &cobra.Command{
		Use:   "issue [flags] [FILE ...]",
		Short: "open an issue about a workflow run that failed",
		Long: `issue reports a workflow run that failed: it opens an issue with the failed
jobs, the ends of their logs, and the files that are named. If this workflow has
an issue with that title open, it gets a comment; an issue that somebody else
opened is left alone.

In a workflow, GITHUB_REPOSITORY and its like are set; give it GITHUB_TOKEN.`,
		Example: "  build github issue --title 'the release failed' report.txt",
	}
	f := c.Flags()
	f.StringVar(&title, "title", "a workflow failed", "the issue's `title`")
	f.StringVar(&jobs, "jobs", "", "report only jobs whose names begin with this `text`")
	f.StringVar(&author, "author", github.Bot, "the `user` that the token belongs to, whose issues get comments")
	c.RunE = func(c *cobra.Command, files []string) error {
		client, err := e.gitHub()
		if err != nil {
			return err
		}
		text, err := e.workflow().Describe(c.Context(), client, jobs, files)
		if err != nil {
			return err
		}
		address, err := client.Report(c.Context(), author, title, text)
		if err != nil {
			return explain(err, githubHints("issues: write and actions: read"))
		}
		_, err = fmt.Fprintln(e.stdout, address)
		return err
	}
	return c
}
