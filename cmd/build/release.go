package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
)

const releaseExample = `  build release --update --key cosign.key --repo registry.example.com/derper
  build release --step push --repo registry.example.com/derper
  build release --withdraw v1.104.5`

// releaseSynopsis describes the command, with the steps as internal/release has them.
func releaseSynopsis() string {
	var b strings.Builder
	b.WriteString("release publishes the image, in steps:\n\n")
	for _, s := range release.Steps {
		fmt.Fprintf(&b, "  %-8s %s\n", s.Name, s.Does)
	}
	b.WriteString(`
No tag moves before everything else is done. A release that stopped continues where it was; its folder has
the lock, the layout, the test report, the notes, and a journal of what was done. Run it again at any time:
if the release is published, it says so and exits. --step runs one step, for instance on another machine with
a copy of the folder; it is refused if a step before it was not done for the same image.

--withdraw moves the tags that move back to the release before, in all repositories, and marks the release in
the lock, so that it is not published again until there is a newer one.`)
	return b.String()
}

// releaseOptions are the flags of build release.
type releaseOptions struct {
	inputFlags
	update, again       bool
	channel, upstream   string
	repositories        []string
	runner, key, folder string
	keyless, unsigned   bool
	sigstore            sigstoreFlags
	retag, asJSON       bool
	onGitHub            bool
	branch              string
	step                *release.Step
	images              release.Digests
	withdraw            string

	stderr io.Writer
}

// runRelease is build release.
func runRelease(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := releaseOptions{stderr: stderr}
	var step, digests string
	flags := newFlags("release [flags]", releaseSynopsis(), releaseExample, stdout)
	flags.StringVar(&o.lockFile, "lock", "", "the lock `file` (default that of the channel: versions.json or versions-unstable.json)")
	o.registerCache(flags)
	flags.StringVar(&step, "step", "", "run only this `step`")
	flags.StringVar(&o.platforms, "platform", "all", "`platforms` that --step test tests, separated by commas; host is this machine's, all is every one in the lock")
	flags.StringVar(&digests, "digests", "", "the `images` that the step build gave, as it prints them in JSON; if the folder has others, the step fails")
	flags.StringVar(&o.withdraw, "withdraw", "", "withdraw this `version`")
	flags.BoolVar(&o.update, "update", false, "look for a newer release of tailscale first")
	flags.StringVar(&o.channel, "channel", "stable", "`channel` for --update: stable or unstable")
	flags.StringVar(&o.upstream, "repository", upstreamRepository, "`URL` or folder of tailscale's git repository, for --update")
	flags.Func("repo", "`repository` to publish in, may be repeated, or a list with commas (default "+strings.Join(registry.Default, " and ")+")", collect(&o.repositories))
	flags.StringVar(&o.runner, "runner", "native", "`what` runs the image for the tests: native or docker")
	flags.StringVar(&o.key, "key", "", "sign with the private key in `file`")
	flags.BoolVar(&o.keyless, "keyless", false, "sign as the GitHub workflow that this runs in")
	flags.BoolVar(&o.unsigned, "unsigned", false, "do not sign, and attest nothing")
	flags.StringVar(&o.sigstore.root, "trusted-root", "", "trusted root `file` of another Sigstore than the public one")
	flags.StringVar(&o.sigstore.config, "signing-config", "", "signing config `file` of another Sigstore than the public one")
	flags.StringVar(&o.folder, "folder", "release", "`folder` of the release")
	flags.BoolVar(&o.onGitHub, "github", false, "record the release on GitHub: commit the lock, make the release; needs GITHUB_TOKEN")
	flags.StringVar(&o.branch, "branch", os.Getenv("GITHUB_REF_NAME"), "the `branch` that has the lock, for --github (default the workflow's)")
	flags.BoolVar(&o.retag, "retag", false, "let a version's tag move to another digest, and latest back to an older version")
	flags.BoolVar(&o.again, "again", false, "run all steps, even if the release is published")
	flags.BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	if err := flags.parseOnly(args); err != nil && !errors.Is(err, errParsed) {
		return err
	}
	if err := o.check(step, digests); err != nil {
		return err
	}
	if justParse {
		return errParsed
	}
	r, err := o.release()
	if err != nil {
		return err
	}
	if o.withdraw != "" {
		w, err := r.Withdraw(ctx, o.withdraw)
		if err != nil {
			return releaseError(err)
		}
		return printWithdrawal(stdout, w, o.asJSON)
	}
	result, err := r.Run(ctx, o.step)
	if err != nil {
		return releaseError(err)
	}
	if err := o.report(result); err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(stdout, result)
	}
	printRelease(stdout, result)
	return nil
}

// check checks what the flags say, before anything is done.
func (o *releaseOptions) check(step, digests string) error {
	ways := 0
	for _, way := range []bool{o.key != "", o.keyless, o.unsigned} {
		if way {
			ways++
		}
	}
	if step != "" {
		if o.step = release.Named(step); o.step == nil {
			return usageError("--step: %q is not a step of a release", step)
		}
	}
	signs := o.withdraw == "" && (o.step == nil || o.step.Has(release.Identity))
	channel, err := lock.ParseChannel(o.channel)
	switch {
	case err != nil:
		return usageError("--channel: %w", err)
	case o.withdraw != "" && (step != "" || o.update || ways > 0):
		return usageError("--withdraw cannot be combined with --step, --update or a way to sign")
	case signs && ways != 1:
		return usageError("release: expected one of --key FILE, --keyless and --unsigned")
	case ways > 1:
		return usageError("release: expected only one of --key FILE, --keyless and --unsigned")
	case o.runner != "native" && o.runner != "docker":
		return usageError("--runner: %q is neither native nor docker", o.runner)
	case o.onGitHub && o.branch == "":
		return usageError("--github needs --branch")
	case o.platforms != "all" && step != "test":
		return usageError("--platform is for --step test: a release has all platforms of the lock")
	}
	if digests != "" {
		if o.images, err = release.ParseDigests(digests); err != nil {
			return usageError("--digests: %w", err)
		}
	}
	if o.withdraw != "" {
		channel = lock.ChannelOf(o.withdraw)
	}
	if o.lockFile == "" {
		o.lockFile = channel.File()
	}
	if o.onGitHub && !filepath.IsLocal(o.lockFile) {
		return usageError("--lock: %s is not below the checkout's folder", o.lockFile)
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

// release is the release that the flags describe.
func (o *releaseOptions) release() (*release.Release, error) {
	keychain, err := credentials(o.repositories)
	if err != nil {
		return nil, err
	}
	if !o.update && (o.step == nil || o.step == release.Steps[0]) { // which begin with it
		if _, err := readLock(o.lockFile); err != nil {
			return nil, err
		}
	}
	program, err := programDigest()
	if err != nil {
		return nil, err
	}
	r := &release.Release{
		Folder: o.folder, LockFile: o.lockFile, Renew: o.update, Again: o.again, Retag: o.retag,
		Repositories: o.repositories, Images: o.images, Program: program, Runner: o.runner,
		Tools:    releaseTools(o),
		Registry: &registry.Client{Keychain: keychain},
		Log:      o.stderr,
	}
	if o.platforms != "all" {
		if r.Platforms, err = lock.ParsePlatforms(o.platforms, lock.Known); err != nil {
			return nil, usageError("--platform: %w", err)
		}
	}
	if o.onGitHub {
		client, err := githubClient()
		if err != nil {
			return nil, err
		}
		r.Recorder = release.GitHubRecorder{Client: client, LockFile: o.lockFile, Branch: o.branch}
	} else {
		r.Recorder = release.LocalRecorder{Release: r}
	}
	// A step that signs nothing does not read the key either.
	if (o.key != "" || o.keyless) && (o.step == nil || o.step.Has(release.Identity)) {
		s := &imageSigner{releaseOptions: o}
		if o.key != "" { // it may ask for a password: now, and not after minutes of work
			if err := s.open(context.Background()); err != nil {
				return nil, err
			}
		}
		r.Signer = s
	}
	return r, nil
}

// programDigest is the digest of the running program.
func programDigest() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(exe)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return hex.EncodeToString(hash.Sum(nil)), err
}

// releaseError says what to do about a step that failed.
func releaseError(err error) error {
	var order *release.OrderError
	var mismatch *release.MismatchError
	var coded *codedError
	var step *release.StepError
	switch {
	case errors.As(err, &coded):
		return err
	case errors.As(err, &order):
		return &codedError{err, exitFailed, "run it first: " + self() + " release --step " + order.Step}
	case errors.As(err, &mismatch):
		return &codedError{err, exitDiffers, "the folder was changed on its way from the machine that built; nothing was done"}
	case errors.Is(err, github.ErrChanged):
		return &codedError{err, exitFailed, "the tags have moved and nothing was recorded; the next run starts from what is there now"}
	case errors.As(err, &step) && (step.Step == "push" || step.Step == "tag"):
		if err = layoutError(err, "dist"); errors.As(err, &coded) {
			return err
		}
		return pushError(err)
	}
	return githubError("contents: write", err)
}

// report tells a workflow on GitHub what became of the release.
func (o *releaseOptions) report(r *release.Result) error {
	outputs := []string{"release", fmt.Sprint(r.Needed), "version", r.Version}
	if r.Images != nil {
		outputs = append(outputs, "digests", r.Images.String())
	}
	if err := setOutputs(outputs...); err != nil || r.Notes == "" {
		return err
	}
	notes, err := os.ReadFile(r.Notes)
	if err != nil {
		return err
	}
	return addSummary(string(notes))
}

func printRelease(w io.Writer, r *release.Result) {
	switch {
	case r.Withdrawn:
		fmt.Fprintf(w, "nothing to do: %s was withdrawn\n", r.Version)
	case r.Published:
		fmt.Fprintf(w, "published  %s\n", r.Version)
	case !r.Needed:
		fmt.Fprintf(w, "nothing to do: %s is published\n", r.Version)
	default:
		fmt.Fprintf(w, "release    %s\n", r.Version)
	}
	if r.Notes != "" {
		fmt.Fprintf(w, "notes      %s\n", r.Notes)
	}
	fmt.Fprintf(w, "tags       %s\n", strings.Join(r.Tags, ", "))
	for _, repository := range r.Repositories {
		if r.Digest != "" {
			fmt.Fprintf(w, "%s@%s\n", repository, r.Digest)
		}
	}
}

func printWithdrawal(w io.Writer, r *release.Withdrawal, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	fmt.Fprintf(w, "withdrawn  %s\n", r.Version)
	for _, t := range r.Tags {
		if t.From == t.To {
			fmt.Fprintf(w, "%s  stays at %s: it names another release, or no earlier one has this tag\n", t.Tag, t.From)
		} else {
			fmt.Fprintf(w, "%s  from %s to %s\n", t.Tag, t.From, t.To)
		}
	}
	return nil
}
