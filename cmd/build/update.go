package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/upstream"
)

// channels are tailscale's.
var channels = []string{string(lock.Stable), string(lock.Unstable)}

// updateResult is what build update says, in JSON but for what only its text has.
type updateResult struct {
	New      bool                     `json:"new"`
	Written  bool                     `json:"written"`
	Release  string                   `json:"release"`
	Channel  lock.Channel             `json:"channel"`
	Changes  []upstream.Change        `json:"changes"`
	Compare  string                   `json:"compare,omitempty"`
	Flags    []flags.Change           `json:"flags"`
	Features []upstream.FeatureChange `json:"features"`
	Pending  []upstream.Change        `json:"pending"`
	Warnings []string                 `json:"warnings"`

	LockFile string   `json:"-"`
	Check    bool     `json:"-"`
	Again    []string `json:"-"` // the arguments without --check
}

const updateText = `{{if .New}}INPUT	OLD	NEW
{{range .Changes}}{{.Input}}	{{or .Old "none"}}	{{.New}}
{{end}}{{else}}nothing new: {{.LockFile}} has tailscale {{.Release}} ({{.Channel}})
{{end}}{{if .Compare}}
compare  {{.Compare}}
{{range .Flags}}flags    {{.}}
{{else}}flags    no change in derper's command line
{{end}}{{end -}}
{{range .Features}}feature  {{.}}
{{end -}}
{{range .Pending}}pending  {{.Input}} {{.Old}} → {{.New}}, with the next release or {{self}} update --version {{$.Release}}
{{end}}{{if .Written}}
{{.LockFile}} is written, without outputs
next: {{self}} --platform all --update-lock{{if ne .LockFile "` + lock.File + `"}} --lock {{.LockFile}}{{end}}
{{else if and .New .Check}}
{{.LockFile}} is as it was
next: {{self}} update{{range .Again}} {{.}}{{end}}
{{end}}`

// updateOptions are the flags of build update.
type updateOptions struct {
	inputFlags
	upstream.Wish
	source string // tailscale's repository
	create bool   // a lock that does not exist is made
}

func newUpdate(e *env) *cobra.Command {
	o := updateOptions{inputFlags: inputFlags{platforms: "all"}}
	var check bool
	c := &cobra.Command{
		Use:   "update",
		Short: "update the lock to tailscale's newest release",
		Long: `update finds the newest tailscale release, proves that its git tag and its
module are the same source, and writes it into the lock, with the Go and the CA
roots that go with it and no outputs. The module proxy, the checksum database
and the git repository must be reached and agree, and the proxy must serve all
modules that the release requires, else nothing is changed. With the release
unchanged, a newer patch of its Go is taken, and newer CA roots with it, or
alone when those of the lock are 30 days old: that makes the next revision.
Roots that wait are named, and --version with the lock's own release takes them.`,
		Example: `  build update --check
  build update --check --source-repo ../tailscale
  build update --version v1.102.3`,
		Args:              cli.None,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.registerLock(c)
	f := c.Flags()
	f.StringVar(&o.cacheDir, "cache", "", "cache `folder` (default derper in the user cache directory)")
	f.StringVar((*string)(&o.Channel), "channel", string(lock.Stable), "`channel` of which the newest release is taken: stable or unstable")
	cli.Offer(c, "channel", channels...)
	f.StringVar(&o.Version, "version", "", "take this `version`, such as v1.102.3, be it older or newer")
	f.BoolVar(&o.Downgrade, "allow-downgrade", false, "go back when the channel's newest release is older than the lock's")
	f.StringVar(&o.source, "source-repo", e.upstream, "`URL` or folder of tailscale's git repository")
	f.BoolVar(&o.create, "create", false, "make the lock, with all platforms, when there is none")
	f.BoolVar(&check, "check", false, fmt.Sprintf("change nothing; the exit code is %d when there is something new", cli.ExitNew))
	out := newPrinter(e, c)
	c.PreRunE = func(*cobra.Command, []string) error {
		if _, err := lock.ParseChannel(string(o.Channel)); err != nil {
			return cli.Usage("--channel: %w", err)
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		next, r, err := e.update(c.Context(), &o)
		if err != nil {
			return err
		}
		r.Written, r.Check = r.New && !check, check
		r.Again = given(c, "check", "json", "quiet")
		if r.Written {
			if err := next.Write(o.lockFile); err != nil {
				return err
			}
		}
		if err := errors.Join(e.summarize(r), out.print(r, updateText)); err != nil {
			return err
		}
		if r.New && check {
			return cli.Coded(cli.ExitNew, errors.New("there is something new"), "")
		}
		return nil
	}
	return c
}

// resultOf is the result of an update, of which nothing is written yet.
func resultOf(u *upstream.Update, warnings []string, lockFile string) *updateResult {
	release := u.New.Tailscale.Version
	r := &updateResult{
		New: u.IsNew(), Release: release, Channel: lock.ChannelOf(release), LockFile: lockFile,
		Changes: list(u.Changes()), Flags: list(u.Flags), Features: list(u.Features), Pending: list(u.Pending), Warnings: list(warnings),
	}
	if from := u.Old.Tailscale.Version; from != "" && from != release {
		r.Compare = upstream.CompareURL(from, release)
	}
	return r
}

// list is what JSON has as a list, also if there is nothing in it.
func list[T any](of []T) []T { return append([]T{}, of...) }

// summarize adds what an update says to the page of the workflow's run.
func (e *env) summarize(r *updateResult) error {
	var text strings.Builder
	if err := render(&text, updateText, r); err != nil {
		return err
	}
	return e.workflow().AddSummary(github.Fenced(text.String()))
}

// update finds out what is new, and returns the lock that takes it. Nothing is written.
func (e *env) update(ctx context.Context, o *updateOptions) (*lock.Lock, *updateResult, error) {
	l, _, err := o.read()
	if o.create && errors.Is(err, fs.ErrNotExist) {
		l, err = &lock.Lock{Schema: lock.SchemaVersion, Inputs: lock.Defaults()}, nil
		l.Inputs.Source = cmp.Or(e.workflow().Repository(), l.Inputs.Source)
	}
	if err != nil {
		return nil, nil, err
	}
	display := e.display()
	defer display.Close()
	c, err := o.openCache(display)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	var warnings []string
	source := &upstream.Source{Modules: e.modules(c), Repository: o.source, Warn: func(format string, args ...any) {
		warning := fmt.Sprintf(format, args...)
		warnings = append(warnings, warning)
		display.Printf("build: update: %s", warning)
	}}
	task := display.Start("update: ask the module proxy and "+source.Shown(), "")
	u, err := source.Update(ctx, l.Inputs, o.Wish)
	task.End(err)
	if err != nil {
		err = explain(fmt.Errorf("update: %w", err), append(slices.Clone(generalHints), hints{{always, ""}}...))
		coded, _ := errors.AsType[*cli.Error](err)
		coded.Hint = strings.TrimPrefix(coded.Hint+"; the lock is as it was", "; ")
		return nil, nil, err
	}
	return u.Lock(l), resultOf(u, warnings, o.lockFile), nil
}
