package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
)

const pushSynopsis = `push puts the image of the lock, with all its platforms, from an OCI layout (dist) into repositories: first
everything by digest, read back; then the tags, on all of them. A release of the stable channel has the
tags v1.102.3, 1.102.3, 1.102 and latest, one of the unstable channel v1.103.7, 1.103.7 and unstable.
Whatever goes wrong, no tag names anything but a whole image, and running it again goes on.

Credentials come from where docker login leaves them, or from two variables for each registry, named after
its host: DOCKER_IO_USERNAME and DOCKER_IO_PASSWORD, GHCR_IO_USERNAME and GHCR_IO_PASSWORD, and
REGISTRY_EXAMPLE_COM_5000_USERNAME for registry.example.com:5000; a dash becomes __. A token is a password.`

const pushExample = `  build push --dry-run
  build push --repo registry.example.com/derper --repo ghcr.io/me/derper dist`

// runPush is build push.
func runPush(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("push [flags] [LAYOUT]", pushSynopsis, pushExample, stdout)
	lockFile := flags.String("lock", lock.File, "the lock `file`")
	var repositories, tags []string
	flags.Func("repo", "`repository` to push to, as HOST/PATH, may be repeated, or a list with commas; http://HOST/PATH for one without encryption (default "+strings.Join(registry.Default, " and ")+")", collect(&repositories))
	flags.Func("tag", "`tag` to set in place of the channel's, may be repeated", collect(&tags))
	channel := flags.String("channel", "", "stable or unstable; default is what the version is: an odd minor version is unstable")
	byDigest := flags.Bool("by-digest", false, "push and verify everything, and move no tag")
	retag := flags.Bool("retag", false, "let a version's tag go on to another digest, and latest back to an older version")
	verify := flags.Bool("verify", false, "look everything over again where all tags are in place already")
	dryRun := flags.Bool("dry-run", false, "only say what is missing where and which tags would move")
	asJSON := flags.Bool("json", false, "print the result as JSON")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	dir := "dist"
	switch len(rest) {
	case 0:
	case 1:
		dir = rest[0]
	default:
		return usageError("push: unexpected argument %q", rest[1])
	}
	if len(repositories) == 0 {
		repositories = registry.Default
	}
	for _, r := range repositories {
		if err := registry.CheckName(r); err != nil {
			return usageError("--repo: %w", err)
		}
	}
	keychain, err := credentials(repositories)
	if err != nil {
		return err
	}
	l, _, err := (&inputFlags{lockFile: *lockFile, platforms: "all"}).read()
	if err != nil {
		return err
	}
	display := progress.New(stderr)
	defer display.Close()
	if _, err := os.Stat(dir); err == nil {
		unlock, err := cache.LockFolder(ctx, dir, func() { display.Printf("%s: waiting for another program that uses it", dir) })
		if err != nil {
			return err
		}
		defer unlock()
	}
	release, err := registry.Read(dir, l)
	if err != nil {
		return layoutError(err, dir)
	}
	var names []registry.Tag
	if *byDigest {
		if len(tags) > 0 || *channel != "" || *retag {
			return usageError("push: --by-digest moves no tag: --tag, --channel and --retag say nothing with it")
		}
	} else if names, err = tagsOf(release.Version, *channel, tags); err != nil {
		return usageError("push: %w", err)
	}
	client := &registry.Client{Keychain: keychain, Display: display}
	report, err := client.Push(ctx, registry.Plan{
		Release: release, Repositories: repositories, Tags: names, Retag: *retag, Verify: *verify || *byDigest, DryRun: *dryRun,
	})
	if err != nil {
		return pushError(err)
	}
	if *asJSON {
		return printJSON(stdout, report)
	}
	printPush(stdout, report)
	return nil
}

// collect is a flag's value that may be repeated, and may be a list with commas.
func collect(list *[]string) func(string) error {
	return func(s string) error {
		for _, word := range strings.Split(s, ",") {
			*list = append(*list, strings.TrimSpace(word))
		}
		return nil
	}
}

// tagsOf are the tags of a release: those of its channel, or those that were asked
// for.
func tagsOf(version, channel string, names []string) ([]registry.Tag, error) {
	if len(names) > 0 {
		if channel != "" {
			return nil, errors.New("--channel chooses tags, and so does --tag")
		}
		return registry.NamedTags(version, names)
	}
	c := lock.ChannelOf(version)
	if channel != "" {
		var err error
		if c, err = lock.ParseChannel(channel); err != nil {
			return nil, fmt.Errorf("--channel: %w", err)
		}
	}
	return registry.Tags(version, c)
}

// credentials are those for the registries of these references.
func credentials(references []string) (authn.Keychain, error) {
	keychain, err := registry.Credentials(references, os.Getenv)
	if err != nil {
		return nil, usageError("credentials: %w", err)
	}
	return keychain, nil
}

// layoutError says what to do about a layout that is not to be pushed.
func layoutError(err error, dir string) error {
	whole := self() + " --platform all"
	if dir != "dist" {
		whole += " --output " + dir
	}
	var difference *lock.Difference
	switch {
	case errors.As(err, &difference):
		return &codedError{err, exitDiffers, "only what the lock records is published; build that with " + whole}
	case errors.Is(err, lock.ErrNoOutputs):
		return &codedError{err, exitFailed, "only what the lock records is published; record what a build gives with " + whole + " --update-lock"}
	case errors.Is(err, registry.ErrNoLayout), errors.Is(err, image.ErrForeign), errors.Is(err, registry.ErrIncomplete):
		return &codedError{err, exitFailed, "build all platforms with " + whole}
	}
	return err
}

// pushError says what to do about a push that did not end well.
func pushError(err error) error {
	var refused *registry.TagError
	var half *registry.MoveError
	hint := "no tag has moved; running it again goes on where it stopped"
	switch {
	case errors.As(err, &refused):
		hint = "nothing was uploaded and no tag has moved; --retag moves it all the same"
	case errors.As(err, &half):
		hint = "everything is uploaded, and every tag names a whole image; running it again moves the tags"
	case errors.Is(err, image.ErrCorrupt):
		hint = "no tag has moved; if it is the layout that is corrupt, " + self() + " --platform all --verify-cache writes it anew"
	case registry.Denied(err):
		hint = "no tag has moved; log in with docker login, or set the registry's variables (build push -h), with the right to push"
	}
	return &codedError{err, exitFailed, hint}
}

func printPush(w io.Writer, r *registry.Pushed) {
	for _, repository := range r.Repositories {
		fmt.Fprintln(w, repository.Reference)
		verb := "uploaded"
		if r.DryRun {
			verb = "missing"
		}
		switch m := repository.Missing; {
		case m == nil:
			fmt.Fprintln(w, "  nothing to do: all tags are there")
		case m.Blobs+m.Manifests == 0:
			fmt.Fprintf(w, "  %s: nothing\n", verb)
		default:
			fmt.Fprintf(w, "  %s: %d blobs (%s), %d manifests", verb, m.Blobs, progress.Bytes(m.Bytes), m.Manifests)
			if repository.MountedFrom != "" {
				fmt.Fprintf(w, "; blobs from %s where they are there", repository.MountedFrom)
			}
			fmt.Fprintln(w)
			for _, d := range m.Digests {
				if r.DryRun {
					fmt.Fprintf(w, "    %s\n", d)
				}
			}
		}
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, t := range repository.Tags {
			how := "as it was"
			switch {
			case t.Changed && t.From == "":
				how = "new"
			case t.Changed:
				how = "from " + t.From
			}
			fmt.Fprintf(tw, "  %s\t%s\n", t.Tag, how)
		}
		tw.Flush()
	}
	if r.DryRun {
		fmt.Fprintln(w, "dry run: nothing was uploaded and no tag has moved")
	}
}
