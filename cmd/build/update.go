package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/upstream"
)

const updateSynopsis = `update finds the newest tailscale release, proves that its git tag and its module are the same
source, and writes it into the lock, with the Go and the CA roots that go with it and no outputs. The
module proxy, the checksum database and the git repository must be reached and agree, else nothing is
changed. A newer Go or newer roots alone are no reason for another image of the same release: they are
told, and --version with the lock's own release takes them.`

const updateExample = `  build update --check
  build update --version v1.102.3`

// updateResult is what build update says, in JSON but for what only its text has.
type updateResult struct {
	New      bool                  `json:"new"`
	Written  bool                  `json:"written"`
	Release  string                `json:"release"`
	Channel  lock.Channel          `json:"channel"`
	Changes  []upstream.Change     `json:"changes"`
	Compare  string                `json:"compare,omitempty"`
	Flags    []upstream.FlagChange `json:"flags"`
	Pending  []upstream.Change     `json:"pending"`
	Warnings []string              `json:"warnings"`

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
{{range .Pending}}pending  {{.Input}} {{.Old}} → {{.New}}, with the next release or {{self}} update --version {{$.Release}}
{{end}}{{if .Written}}
{{.LockFile}} is written, without outputs
next: {{self}} --platform all --update-lock{{if ne .LockFile "` + lock.File + `"}} --lock {{.LockFile}}{{end}}
{{else if and .New .Check}}
{{.LockFile}} is as it was
next: {{self}} update{{range .Again}} {{.}}{{end}}
{{end}}`

func runUpdate(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("update [flags]", updateSynopsis, updateExample, stdout)
	in := inputFlags{platforms: "all"}
	flags.StringVar(&in.lockFile, "lock", lock.File, "the lock `file`")
	flags.StringVar(&in.cacheDir, "cache", "", "cache `folder`; default is derper in the user cache directory")
	var w upstream.Wish
	channel := flags.String("channel", "stable", "`channel` of which the newest release is taken: stable or unstable")
	flags.StringVar(&w.Version, "version", "", "take this `version`, such as v1.102.3, be it older or newer")
	flags.BoolVar(&w.Downgrade, "allow-downgrade", false, "go back when the channel's newest release is older than the lock's")
	repository := flags.String("repository", upstreamRepository, "`URL` or folder of tailscale's git repository")
	flags.BoolVar(&in.create, "create", false, "make the lock, with all platforms, when there is none")
	check := flags.Bool("check", false, fmt.Sprintf("change nothing; the exit code is %d when there is something new", cli.ExitNew))
	flags.BoolVar(&flags.asJSON, "json", false, "print the result as JSON")
	_, err := flags.parse(args, nil)
	if err != nil {
		return err
	}
	if w.Channel, err = lock.ParseChannel(*channel); err != nil {
		return cli.Usage("--channel: %w", err)
	}
	l, u, warnings, err := findUpdate(ctx, &in, w, *repository, stderr)
	if err != nil {
		return err
	}
	r := resultOf(u, warnings, in.lockFile)
	r.Written, r.Check = r.New && !*check, *check
	r.Again = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.TrimLeft(arg, "-") == "check" })
	if r.Written {
		if err := l.Write(in.lockFile); err != nil {
			return err
		}
	}
	var text strings.Builder
	if err := errors.Join(render(&text, updateText, r), addSummary(fenced(text.String())), flags.print(r, updateText)); err != nil {
		return err
	}
	if r.New && *check {
		return cli.Coded(cli.ExitNew, errors.New("there is something new"), "")
	}
	return nil
}

// resultOf is the result of an update, of which nothing is written yet.
func resultOf(u *upstream.Update, warnings []string, lockFile string) *updateResult {
	release := u.New.Tailscale.Version
	r := &updateResult{
		New: u.IsNew(), Release: release, Channel: lock.ChannelOf(release), LockFile: lockFile,
		Changes: list(u.Changes()), Flags: list(u.Flags), Pending: list(u.Pending), Warnings: list(warnings),
	}
	if from := u.Old.Tailscale.Version; from != "" && from != release {
		r.Compare = upstream.CompareURL(from, release)
	}
	return r
}

// list is what JSON has as a list, also if there is nothing in it.
func list[T any](of []T) []T { return append([]T{}, of...) }

// findUpdate finds out what is new, and returns the lock that takes it.
func findUpdate(ctx context.Context, in *inputFlags, w upstream.Wish, repository string, stderr io.Writer) (
	_ *lock.Lock, _ *upstream.Update, warnings []string, err error,
) {
	l, _, err := in.read()
	if in.create && errors.Is(err, fs.ErrNotExist) {
		l, err = &lock.Lock{Schema: lock.SchemaVersion, Inputs: lock.Defaults()}, nil
		l.Inputs.Source = cmp.Or(githubRepository(), l.Inputs.Source)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	display := progress.New(stderr)
	defer display.Close()
	c, err := in.openCache(display)
	if err != nil {
		return nil, nil, nil, err
	}
	defer c.Close()
	source := &upstream.Source{Modules: modules(c), Repository: repository, Warn: func(format string, args ...any) {
		warning := fmt.Sprintf(format, args...)
		warnings = append(warnings, warning)
		display.Printf("build: update: %s", warning)
	}}
	task := display.Start("update: ask the module proxy and "+source.Shown(), "")
	u, err := source.Update(ctx, l.Inputs, w)
	task.End(err)
	if err != nil {
		err = explain(fmt.Errorf("update: %w", err), append(slices.Clone(generalHints), hints{{always, ""}}...))
		coded, _ := errors.AsType[*cli.Error](err)
		coded.Hint = strings.TrimPrefix(coded.Hint+"; the lock is as it was", "; ")
		return nil, nil, nil, err
	}
	next := &lock.Lock{Schema: l.Schema, Inputs: u.New, Withdrawn: l.Withdrawn}
	if u.New.Tailscale.Version == u.Old.Tailscale.Version {
		next.Published = l.Published
	}
	return next, u, warnings, nil
}
