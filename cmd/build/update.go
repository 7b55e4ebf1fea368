package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"

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

// errNew is the end of a check that found something new.
var errNew = errors.New("there is something new")

// updateResult is what build update says, in JSON.
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

	inputs lock.Inputs
}

// runUpdate brings the lock up to date.
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
	check := flags.Bool("check", false, fmt.Sprintf("change nothing; the exit code is %d when there is something new", exitNew))
	asJSON := flags.Bool("json", false, "print the result as JSON")
	err := flags.parseOnly(args)
	if err != nil {
		return err
	}
	if w.Channel, err = lock.ParseChannel(*channel); err != nil {
		return usageError("--channel: %w", err)
	}
	result, err := updateLock(ctx, &in, w, *repository, *check, stderr)
	if err != nil {
		return err
	}
	text := result.text(in.lockFile, args)
	if err := addSummary(fenced(text)); err != nil {
		return err
	}
	if *asJSON {
		err = printJSON(stdout, result)
	} else {
		_, err = io.WriteString(stdout, text)
	}
	if err == nil && result.New && *check {
		return errNew
	}
	return err
}

// updateLock finds out what is new, and writes it into the lock unless it is only to
// check.
func updateLock(ctx context.Context, in *inputFlags, w upstream.Wish, repository string, check bool, stderr io.Writer) (*updateResult, error) {
	l, _, err := in.read()
	if in.create && errors.Is(err, fs.ErrNotExist) {
		l, err = &lock.Lock{Schema: lock.SchemaVersion, Inputs: lock.Inputs{Platforms: slices.Clone(lock.Known)}}, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := in.openCache()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	display := progress.New(stderr)
	defer display.Close()
	result := &updateResult{ // none of its lists is null in JSON
		Changes: []upstream.Change{}, Flags: []upstream.FlagChange{}, Pending: []upstream.Change{}, Warnings: []string{},
	}
	source := &upstream.Source{Modules: modules(c), Repository: repository, Warn: func(format string, args ...any) {
		warning := fmt.Sprintf(format, args...)
		result.Warnings = append(result.Warnings, warning)
		display.Printf("build: update: %s", warning)
	}}
	task := display.Start("update: ask the module proxy and "+source.Shown(), "")
	u, err := source.Update(ctx, l.Inputs, w)
	task.End(err)
	if err != nil {
		return nil, &codedError{fmt.Errorf("update: %w", err), exitFailed, updateHint(err)}
	}
	result.New, result.Release, result.inputs = u.IsNew(), u.New.Tailscale.Version, u.New
	result.Channel = lock.ChannelOf(result.Release)
	result.Changes = append(result.Changes, u.Changes()...)
	result.Flags = append(result.Flags, u.Flags...)
	result.Pending = append(result.Pending, u.Pending...)
	if from := u.Old.Tailscale.Version; from != "" && from != result.Release {
		result.Compare = upstream.CompareURL(from, result.Release)
	}
	if u.IsNew() && !check {
		if err := (&lock.Lock{Schema: l.Schema, Inputs: u.New, Withdrawn: l.Withdrawn}).Write(in.lockFile); err != nil {
			return nil, err
		}
		result.Written = true
	}
	return result, nil
}

// text says what happened, or with --check among the arguments would.
func (r *updateResult) text(lockFile string, args []string) string {
	var b strings.Builder
	if !r.New {
		fmt.Fprintf(&b, "nothing new: %s has tailscale %s (%s)\n", lockFile, r.Release, r.Channel)
	} else {
		tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "INPUT\tOLD\tNEW")
		for _, c := range r.Changes {
			fmt.Fprintf(tw, "%s\t%s\t%s\n", c.Input, orElse(c.Old, "none"), c.New)
		}
		tw.Flush()
	}
	if r.Compare != "" {
		fmt.Fprintf(&b, "\ncompare  %s\n", r.Compare)
		for _, f := range r.Flags {
			fmt.Fprintf(&b, "flags    %s\n", f)
		}
		if len(r.Flags) == 0 {
			b.WriteString("flags    no change in derper's command line\n")
		}
	}
	for _, c := range r.Pending {
		fmt.Fprintf(&b, "pending  %s %s → %s, with the next release or %s update --version %s\n", c.Input, c.Old, c.New, self(), r.Release)
	}
	switch {
	case r.Written:
		next := self() + " --platform all --update-lock"
		if lockFile != lock.File {
			next += " --lock " + lockFile
		}
		fmt.Fprintf(&b, "\n%s is written, without outputs\nnext: %s\n", lockFile, next)
	case r.New:
		again := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.TrimLeft(arg, "-") == "check" })
		fmt.Fprintf(&b, "\n%s is as it was\nnext: %s\n", lockFile, strings.Join(append([]string{self(), "update"}, again...), " "))
	}
	return b.String()
}

// updateHint is what to do about an update that was refused.
func updateHint(err error) string {
	var missing *upstream.MissingError
	var disagreement *upstream.Disagreement
	var downgrade *upstream.DowngradeError
	const kept = "; the lock is as it was"
	switch {
	case errors.As(err, &missing):
		return "a release that was made just now takes some time to be everywhere: try again later" + kept
	case errors.As(err, &disagreement):
		return "a tag was moved, or a source was tampered with: find out why before you go on" + kept
	case errors.As(err, &downgrade):
		return "--allow-downgrade goes back, --version names one release" + kept
	case errors.Is(err, upstream.ErrRepository):
		return "check the network, or name a copy of the repository with --repository" + kept
	}
	if hint := hintFor(err); hint != "" {
		return hint + kept
	}
	return "the lock is as it was"
}
