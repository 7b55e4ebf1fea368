package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
)

const githubSynopsis = `github does what a release needs of GitHub. Each command can be run again at any time.

  released      says whether the lock's image is released: whether the release of its version names
                its index
  commit FILE   commits FILE, a lock with outputs, in the place of the lock, unless somebody else
                changed that since the checkout
  release FILE  makes the release of FILE's version, or replaces its notes; without --notes, they are made
                of what the first repository has
  issue [FILE]  opens an issue with the run's failed jobs, the ends of their logs, and the files;
                if one with that title is open, it gets a comment

In a workflow, GITHUB_REPOSITORY and its like are set; give it GITHUB_TOKEN.`

const githubExample = `  build github released
  build github commit --branch main out/versions.json
  build github release --branch main out/versions.json
  build github issue --title 'the release failed' report.txt`

// githubFlags are the flags of build github.
type githubFlags struct {
	lockFile, branch, notes, title, jobs string
	repositories                         []string
}

// githubCommands are the words that build github takes.
var githubCommands = map[string]func(ctx context.Context, c *github.Client, f githubFlags, args []string, stdout io.Writer) error{
	"released": githubReleased,
	"commit":   githubCommit,
	"release":  githubRelease,
	"issue":    githubIssue,
}

// runGitHub is build github.
func runGitHub(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("github released|commit|release|issue [flags]", githubSynopsis, githubExample, stdout)
	var f githubFlags
	flags.StringVar(&f.lockFile, "lock", lock.File, "the lock `file`")
	flags.StringVar(&f.branch, "branch", os.Getenv("GITHUB_REF_NAME"), "the `branch` that has the lock; default is the workflow's")
	flags.StringVar(&f.notes, "notes", "", "`file` with the release's notes, in Markdown")
	flags.Func("repo", "`repository` that the release is in, may be repeated, or a list with commas (default "+strings.Join(registry.Default, " and ")+")", collect(&f.repositories))
	flags.StringVar(&f.title, "title", "a workflow failed", "the issue's `title`")
	flags.StringVar(&f.jobs, "jobs", "", "report only jobs whose names begin so")
	words, err := flags.parse(args)
	if err != nil {
		return err
	}
	if len(words) == 0 || githubCommands[words[0]] == nil {
		return usageError("github: wants one of released, commit, release, issue")
	}
	if (words[0] == "commit" || words[0] == "release") && f.branch == "" {
		return usageError("github %s: wants --branch", words[0])
	}
	c := &github.Client{
		API:        strings.TrimRight(orElse(os.Getenv("GITHUB_API_URL"), github.API), "/"),
		Repository: os.Getenv("GITHUB_REPOSITORY"),
		Token:      os.Getenv("GITHUB_TOKEN"),
	}
	if c.Token == "" || strings.Count(c.Repository, "/") != 1 {
		return &codedError{errors.New("github: GITHUB_TOKEN and GITHUB_REPOSITORY (owner/name) must be set"), exitFailed,
			"a workflow sets the one in env:, as ${{ github.token }}; GitHub sets the other"}
	}
	if err := githubCommands[words[0]](ctx, c, f, words[1:], stdout); err != nil {
		return githubError(words[0], err)
	}
	return nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// githubError has the hint that goes with an error of a command.
func githubError(command string, err error) error {
	var coded *codedError
	if errors.As(err, &coded) {
		return err
	}
	var answer *github.Error
	hint := hintFor(err)
	switch {
	case errors.Is(err, github.ErrChanged):
		hint = "nothing was committed; the next run starts from what is there now"
	case errors.As(err, &answer) && (answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden || answer.Status == http.StatusNotFound):
		hint = "GITHUB_TOKEN needs the permission " + map[string]string{
			"released": "contents: read", "commit": "contents: write", "release": "contents: write",
			"issue": "issues: write and actions: read",
		}[command] + "; a rule that protects the branch may refuse it, too"
	}
	return &codedError{err, exitFailed, hint}
}

func githubReleased(ctx context.Context, c *github.Client, f githubFlags, args []string, stdout io.Writer) error {
	if len(args) > 0 {
		return usageError("github released: unexpected argument %q", args[0])
	}
	l, err := lock.Read(f.lockFile)
	if err != nil {
		return err
	}
	version, released := l.Inputs.Tailscale.Version, false
	if l.Outputs == nil {
		fmt.Fprintf(stdout, "%s: %s has not been built yet\n", f.lockFile, version)
	} else {
		if released, err = c.Released(ctx, version, l.Outputs.Index); err != nil {
			return err
		}
		not := "not "
		if released {
			not = ""
		}
		fmt.Fprintf(stdout, "%s: %s is %sreleased as %s\n", f.lockFile, version, not, l.Outputs.Index)
	}
	return setOutputs("released", fmt.Sprint(released), "version", l.Inputs.Tailscale.Short())
}

func githubCommit(ctx context.Context, c *github.Client, f githubFlags, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return usageError("github commit: wants one FILE")
	}
	if !filepath.IsLocal(f.lockFile) {
		return usageError("--lock: %s is not below the checkout's folder", f.lockFile)
	}
	l, err := builtLock(args[0])
	if err != nil {
		return err
	}
	content, err := l.Bytes()
	if err != nil {
		return err
	}
	old, err := os.ReadFile(f.lockFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	commit, err := c.Commit(ctx, github.Change{
		Branch: f.branch, Path: filepath.ToSlash(filepath.Clean(f.lockFile)), Old: old, New: content,
		Message: fmt.Sprintf("lock: tailscale %s\n\n%s", l.Inputs.Tailscale.Version, l.Outputs.Index),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s of tailscale %s is in %s on %s, commit %s\n", f.lockFile, l.Inputs.Tailscale.Version, c.Repository, f.branch, commit)
	return nil
}

// builtLock reads a lock that has outputs.
func builtLock(name string) (*lock.Lock, error) {
	l, err := lock.Read(name)
	if err == nil && l.Outputs == nil {
		err = &codedError{fmt.Errorf("%s: %w", name, lock.ErrNoOutputs), exitFailed, "build it first: " + self() + " --platform all --update-lock --lock " + name}
	}
	return l, err
}

func githubRelease(ctx context.Context, c *github.Client, f githubFlags, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return usageError("github release: wants one FILE")
	}
	l, err := builtLock(args[0])
	if err != nil {
		return err
	}
	var notes []byte
	if f.notes != "" {
		notes, err = os.ReadFile(f.notes)
	} else {
		notes, err = makeNotes(ctx, l, f)
	}
	if err != nil {
		return err
	}
	commit, err := c.LastCommit(ctx, f.branch, filepath.ToSlash(filepath.Clean(f.lockFile)))
	if err != nil {
		return err
	}
	version := l.Inputs.Tailscale.Version
	address, err := c.Release(ctx, github.Release{
		Tag: version, Commit: commit, Notes: string(notes), Index: l.Outputs.Index, Prerelease: lock.ChannelOf(version) == lock.Unstable,
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, address)
	return addSummary(string(notes))
}

// makeNotes makes the notes of a lock's release as the first repository has it,
// compared with that of the lock in the checkout.
func makeNotes(ctx context.Context, l *lock.Lock, f githubFlags) ([]byte, error) {
	n := &release.Notes{Repositories: f.repositories}
	if len(n.Repositories) == 0 {
		n.Repositories = registry.Default
	}
	tags, err := tagsOf(l.Inputs.Tailscale.Version, "", nil)
	if err != nil {
		return nil, err
	}
	for _, t := range tags {
		n.Tags = append(n.Tags, t.Name)
	}
	keychain, err := credentials(n.Repositories)
	if err != nil {
		return nil, err
	}
	repository, err := (&registry.Client{Keychain: keychain}).Open(ctx, n.Repositories[0], registry.Pull)
	if err != nil {
		return nil, err
	}
	describe := func(digest string) (*release.Image, error) {
		h, err := v1.NewHash(digest)
		if err != nil {
			return nil, err
		}
		index, err := image.IndexOf(ctx, repository, v1.Descriptor{Digest: h})
		if err != nil {
			return nil, err
		}
		return release.Describe(index)
	}
	if n.Image, err = describe(l.Outputs.Index); err != nil {
		return nil, err
	}
	// The first release of a channel or a repository has none before it.
	if old, err := lock.Read(f.lockFile); err == nil && old.Outputs != nil && old.Outputs.Index != l.Outputs.Index {
		if before, err := describe(old.Outputs.Index); err == nil {
			n.Before = before
		}
	}
	for _, r := range n.Repositories {
		n.Verify = append(n.Verify, verifySignatureCommand(os.Getenv)+strings.TrimPrefix(r, "http://")+"@"+l.Outputs.Index)
	}
	var b bytes.Buffer
	err = n.Write(&b)
	return b.Bytes(), err
}

// signer is the workflow that signs what the workflows here publish.
const signer = ".github/workflows/sign.yml"

// verifySignatureCommand is how anybody checks who signed what this workflow published.
func verifySignatureCommand(env func(string) string) string {
	server := strings.TrimRight(orElse(env("GITHUB_SERVER_URL"), "https://github.com"), "/")
	return fmt.Sprintf("build verify-signature --issuer https://token.actions.githubusercontent.com --identity %s/%s/%s@refs/heads/%s ",
		server, env("GITHUB_REPOSITORY"), signer, env("GITHUB_REF_NAME"))
}

func githubIssue(ctx context.Context, c *github.Client, f githubFlags, args []string, stdout io.Writer) error {
	var b strings.Builder
	if run := os.Getenv("GITHUB_RUN_ID"); run != "" {
		server := strings.TrimRight(orElse(os.Getenv("GITHUB_SERVER_URL"), "https://github.com"), "/")
		fmt.Fprintf(&b, "Run: %s/%s/actions/runs/%s\n", server, c.Repository, run)
		failures, err := c.Failures(ctx, run)
		if err != nil {
			// What is known is reported all the same.
			fmt.Fprintf(&b, "\nIts jobs could not be asked for: %v\n", err)
		}
		for _, failure := range failures {
			if !strings.HasPrefix(failure.Job, f.jobs) {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n", strings.TrimSuffix(failure.Job+": "+failure.Step, ": "))
			if failure.Log != "" {
				b.WriteString(fenced(failure.Log))
			}
		}
	}
	for _, name := range args {
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
	address, err := c.Report(ctx, f.title, b.String())
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, address)
	return nil
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
