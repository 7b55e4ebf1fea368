package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

const releaseSynopsis = `release makes and publishes the image: update (with --update) → build all platforms → test them → push by
digest → verify what the registries serve → sign and attest → move the tags → write the notes. No tag
moves before all the rest is done. A release that stopped goes on where it was: what each step found is in
the journal, in the folder of the release, and counts for as long as nothing that it depends on changes.
Where the lock's release is published already, it says so and ends.`

const releaseExample = `  build release --update --key cosign.key --repo registry.example.com/derper
  build release --keyless`

// releaseOptions are the flags of build release.
type releaseOptions struct {
	inputFlags
	update              bool
	channel, upstream   string
	repositories        []string
	runner, key, folder string
	keyless, unsigned   bool
	sigstore            sigstoreFlags
	retag, asJSON       bool
}

// releaseResult is what build release says, in JSON.
type releaseResult struct {
	Version      string   `json:"version"`
	Digest       string   `json:"digest"`
	Published    bool     `json:"published"` // by this run
	Repositories []string `json:"repositories"`
	Tags         []string `json:"tags"`
	Notes        string   `json:"notes,omitempty"` // file
}

// runRelease is build release.
func runRelease(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := releaseOptions{inputFlags: inputFlags{platforms: "all"}}
	flags := newFlags("release [flags]", releaseSynopsis, releaseExample, stdout)
	flags.StringVar(&o.lockFile, "lock", lock.File, "the lock `file`")
	o.registerCache(flags)
	flags.BoolVar(&o.update, "update", false, "bring the lock up to date first")
	flags.StringVar(&o.channel, "channel", "stable", "`channel` for --update: stable or unstable")
	flags.StringVar(&o.upstream, "repository", upstreamRepository, "`URL` or folder of tailscale's git repository, for --update")
	flags.Func("repo", "`repository` to publish in, may be repeated, or a list with commas (default "+strings.Join(registry.Default, " and ")+")", collect(&o.repositories))
	flags.StringVar(&o.runner, "runner", "native", "what runs the image for the tests: native or docker")
	flags.StringVar(&o.key, "key", "", "sign with the private key in `file`")
	flags.BoolVar(&o.keyless, "keyless", false, "sign as the GitHub workflow that this runs in")
	flags.BoolVar(&o.unsigned, "unsigned", false, "do not sign, and attest nothing")
	flags.StringVar(&o.sigstore.root, "trusted-root", "", "trusted root `file` of another Sigstore than the public one")
	flags.StringVar(&o.sigstore.config, "signing-config", "", "signing config `file` of another Sigstore than the public one")
	flags.StringVar(&o.folder, "folder", "release", "`folder` for the layout, the journal, the test report and the notes")
	flags.BoolVar(&o.retag, "retag", false, "let a version's tag go on to another digest, and latest back to an older version")
	flags.BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	if err := flags.parseOnly(args); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	r := &releaser{releaseOptions: o, stderr: stderr}
	result, err := r.run(ctx)
	if err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(stdout, result)
	}
	printRelease(stdout, result)
	return nil
}

// check checks what the flags say, before anything is done.
func (o *releaseOptions) check() error {
	ways := 0
	for _, way := range []bool{o.key != "", o.keyless, o.unsigned} {
		if way {
			ways++
		}
	}
	if ways != 1 {
		return usageError("release: wants one of --key FILE, --keyless and --unsigned")
	}
	if _, err := lock.ParseChannel(o.channel); err != nil {
		return usageError("--channel: %w", err)
	}
	if o.runner != "native" && o.runner != "docker" {
		return usageError("--runner: %q is neither native nor docker", o.runner)
	}
	if len(o.repositories) == 0 {
		o.repositories = registry.Default
	}
	for _, r := range o.repositories {
		if err := registry.CheckName(r); err != nil {
			return usageError("--repo: %w", err)
		}
	}
	return nil
}

func printRelease(w io.Writer, r *releaseResult) {
	if !r.Published {
		fmt.Fprintf(w, "nothing to do: %s is published\n", r.Version)
	} else {
		fmt.Fprintf(w, "published  %s\nnotes      %s\n", r.Version, r.Notes)
	}
	fmt.Fprintf(w, "tags       %s\n", strings.Join(r.Tags, ", "))
	for _, repository := range r.Repositories {
		fmt.Fprintf(w, "%s@%s\n", repository, r.Digest)
	}
}
