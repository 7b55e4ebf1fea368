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
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

const releaseExample = `  build release --update --key cosign.key --repo registry.example.com/derper
  build release --step push --repo registry.example.com/derper
  build release --withdraw 1.104.5-r1`

const releaseSynopsis = `release publishes the image, in steps:

{{range .}}  {{printf "%-8s" .Name}} {{.Does}}
{{end}}
No tag moves before everything else is done. A release that stopped continues where it was; its folder has
the lock, the layout, the test report, the notes, and a journal of what was done. Run it again at any time:
if the release is published, it says so and exits. --step runs one step, for instance on another machine with
a copy of the folder; it is refused if a step before it was not done for the same image.

--withdraw moves the tags that move back to the image before, in all repositories, and marks the image in
the lock, so that it is not published again: one revision, or all those of a release of tailscale.`

// releaseOptions are the flags of build release.
type releaseOptions struct {
	inputFlags
	release.Release
	signFlags
	step                        *release.Step
	channel, upstream, withdraw string
	unsigned, onGitHub          bool
	branch                      string
}

const releaseText = `{{if .Withdrawn}}nothing to do: {{.Version}} was withdrawn
{{else if .Published}}published  {{.Version}}
{{else if not .Needed}}nothing to do: {{.Version}} is published
{{else}}release    {{.Version}}
{{end}}{{with .Notes}}notes      {{.}}
{{end}}tags       {{join .Tags ", "}}
{{if .Digest}}{{range .Repositories}}{{.}}@{{$.Digest}}
{{end}}{{end}}`

const withdrawalText = `withdrawn  {{.Version}}
{{range .Tags}}{{.Tag}}  {{if .Stays}}stays at {{.From}}, which is withdrawn: no earlier image has this tag
{{- else if eq .From .To}}stays at {{or .From "nothing"}}: it names another image
{{- else}}from {{.From}} to {{.To}}{{end}}
{{end}}`

func runRelease(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := releaseOptions{Release: release.Release{Log: stderr, Repositories: registry.Default}, signFlags: signFlags{stderr: stderr}}
	var synopsis strings.Builder
	if err := render(&synopsis, releaseSynopsis, release.Steps); err != nil {
		return err
	}
	flags := newFlags("release [flags]", synopsis.String(), releaseExample, stdout)
	flags.StringVar(&o.lockFile, "lock", "", "the lock `file` (default that of the channel: versions.json or versions-unstable.json)")
	o.registerCache(flags)
	step := flags.String("step", "", "run only this `step`")
	flags.StringVar(&o.platforms, "platform", "all", "`platforms` that --step test tests, separated by commas; host is this machine's, all is every one in the lock")
	flags.Func("digests", "the `images` that the step build gave, as it prints them in JSON; if the folder has others, the step fails", func(s string) (err error) {
		o.Images, err = release.ParseDigests(s)
		return err
	})
	flags.StringVar(&o.withdraw, "withdraw", "", "withdraw this `version`: 1.102.3-r1, or 1.102.3 for all its revisions")
	flags.BoolVar(&o.Renew, "update", false, "look for a newer release of tailscale first")
	flags.StringVar(&o.channel, "channel", "stable", "`channel` for --update: stable or unstable")
	flags.StringVar(&o.upstream, "repository", upstreamRepository, "`URL` or folder of tailscale's git repository, for --update")
	flags.Func("repo", "`repository` to publish in, may be repeated, or a list with commas (default "+strings.Join(registry.Default, " and ")+")", collect(&o.Repositories, registry.CheckName))
	flags.StringVar(&o.Runner, "runner", "native", "`what` runs the image for the tests: native or docker")
	o.signFlags.register(flags)
	flags.BoolVar(&o.unsigned, "unsigned", false, "do not sign, and attest nothing")
	flags.StringVar(&o.Folder, "folder", "release", "`folder` of the release")
	flags.BoolVar(&o.onGitHub, "github", false, "record the release on GitHub: commit the lock, make the release; needs GITHUB_TOKEN")
	flags.StringVar(&o.branch, "branch", os.Getenv("GITHUB_REF_NAME"), "the `branch` that has the lock, for --github (default the workflow's)")
	flags.BoolVar(&o.Retag, "retag", false, "let tags that move, such as latest, go back to an older version")
	flags.BoolVar(&o.Again, "again", false, "run all steps, even if the release is published")
	flags.BoolVar(&flags.asJSON, "json", false, "print the result as JSON")
	_, err := flags.parse(args, func(rest []string) error {
		if len(rest) > 0 {
			return cli.Usage("unexpected argument %q", rest[0])
		}
		return o.check(*step)
	})
	if err != nil {
		return err
	}
	if err := o.prepare(ctx); err != nil {
		return err
	}
	if o.withdraw != "" {
		w, err := o.Withdraw(ctx, o.withdraw)
		if err != nil {
			return explain(err, append(hints{{is(github.ErrChanged), "no tag has moved; run it again with the branch as it is now"}}, releaseHints(err)...))
		}
		return flags.print(w, withdrawalText)
	}
	result, err := o.Run(ctx, o.step)
	if err != nil {
		return explain(err, releaseHints(err))
	}
	outputs := []string{"release", fmt.Sprint(result.Needed), "version", result.Version}
	if result.Images != nil {
		outputs = append(outputs, "digests", result.Images.String())
	}
	err = setOutputs(outputs...)
	if err == nil && result.Notes != "" {
		var notes []byte
		notes, err = os.ReadFile(result.Notes)
		err = errors.Join(err, addSummary(string(notes)))
	}
	if err != nil {
		return err
	}
	return flags.print(result, releaseText)
}

// signs reports whether something is signed. A step that signs nothing does not read the
// key either.
func (o *releaseOptions) signs() bool {
	return o.withdraw == "" && (o.step == nil || o.step.Has(release.Identity))
}

// check checks what the flags say, before anything is done.
func (o *releaseOptions) check(step string) error {
	ways := 0
	for _, way := range []bool{o.key != "", o.keyless, o.unsigned} {
		if way {
			ways++
		}
	}
	if o.step = release.Named(step); o.step == nil && step != "" {
		return cli.Usage("--step: %q is not a step of a release", step)
	}
	channel, err := lock.ParseChannel(o.channel)
	switch {
	case err != nil:
		return cli.Usage("--channel: %w", err)
	case o.withdraw != "" && (step != "" || o.Renew || ways > 0):
		return cli.Usage("--withdraw cannot be combined with --step, --update or a way to sign")
	case o.signs() && ways != 1:
		return cli.Usage("release: expected one of --key FILE, --keyless and --unsigned")
	case ways > 1:
		return cli.Usage("release: expected only one of --key FILE, --keyless and --unsigned")
	case o.Runner != "native" && o.Runner != "docker":
		return cli.Usage("--runner: %q is neither native nor docker", o.Runner)
	case o.onGitHub && o.branch == "":
		return cli.Usage("--github needs --branch")
	case o.platforms != "all" && step != "test":
		return cli.Usage("--platform is for --step test: a release has all platforms of the lock")
	}
	if o.withdraw != "" {
		v, err := lock.ParseImageVersion(o.withdraw)
		if err != nil {
			return cli.Usage("--withdraw: %w", err)
		}
		channel = lock.ChannelOf(v.Tailscale)
	}
	if o.LockFile = cmp.Or(o.lockFile, channel.File()); o.onGitHub && !filepath.IsLocal(o.LockFile) {
		return cli.Usage("--lock: %s is not below the checkout's folder", o.LockFile)
	}
	return nil
}

// prepare completes the release that the flags describe.
func (o *releaseOptions) prepare(ctx context.Context) error {
	keychain, err := credentials(o.Repositories)
	if err != nil {
		return err
	}
	if !o.Renew && (o.step == nil || o.step == release.Steps[0]) { // which begin with it
		if _, err := readLock(o.LockFile); err != nil {
			return err
		}
	}
	if o.Program, err = programDigest(); err != nil {
		return err
	}
	o.Tools, o.Registry = releaseTools(o), &registry.Client{Keychain: keychain}
	if o.platforms != "all" {
		if o.Platforms, err = lock.ParsePlatforms(o.platforms, lock.Known); err != nil {
			return cli.Usage("--platform: %w", err)
		}
	}
	if o.onGitHub {
		client, err := githubClient()
		if err == nil {
			err = o.checkSource()
		}
		if err != nil {
			return err
		}
		o.Recorder = release.GitHubRecorder{Client: client, LockFile: o.LockFile, Branch: o.branch}
	} else {
		o.Recorder = release.LocalRecorder{Release: &o.Release}
	}
	if o.signs() && !o.unsigned {
		if o.key != "" { // it may ask for a password: now, and not after minutes of work
			if err := o.makeSigner(ctx); err != nil {
				return err
			}
		}
		o.Signer = &o.signFlags
	}
	return nil
}

// checkSource refuses a lock that names another repository as its source than the one that
// releases it: a fork would publish images that claim to be somebody else's.
func (o *releaseOptions) checkSource() error {
	l, err := lock.Read(o.LockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the first release of a channel
	}
	if here := githubRepository(); err == nil && !strings.EqualFold(l.Inputs.Source, here) {
		err = cli.Failed(fmt.Errorf("release: %s: inputs.source is %s, and this is %s", o.LockFile, l.Inputs.Source, here),
			"set inputs.source to that, and record what comes out: "+updateLock(o.LockFile))
	}
	return err
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
	digest, _, err := v1.SHA256(f)
	return digest.Hex, err
}

// releaseTools are the tools of a release. A test has others.
var releaseTools = func(o *releaseOptions) release.Tools {
	return release.Tools{Update: o.updateLock, Build: o.buildImage, Test: o.testImage, Verify: o.verifyImage}
}

// updateLock is the step update: the lock that follows on base.
func (o *releaseOptions) updateLock(ctx context.Context, base *lock.Lock) (*lock.Lock, []string, error) {
	in := inputFlags{lockFile: o.LockFile, platforms: "all", cacheDir: o.cacheDir, verifyCache: o.verifyCache, create: true}
	next, u, warnings, err := findUpdate(ctx, &in, upstream.Wish{Channel: lock.Channel(o.channel)}, o.upstream, o.Log)
	if err != nil {
		return nil, nil, err
	}
	var text strings.Builder
	if err := render(&text, updateText, resultOf(u, warnings, o.LockFile)); err != nil {
		return nil, nil, err
	}
	if _, err := io.WriteString(o.Log, text.String()); err != nil {
		return nil, nil, err
	}
	if err := addSummary(fenced(text.String())); err != nil || !u.IsNew() {
		return base, nil, err
	}
	var flags []string
	for _, f := range u.Flags {
		flags = append(flags, f.String())
	}
	return next, flags, nil
}

// buildImage is the step build. What comes out is recorded in a lock that has no
// outputs, and compared with any other.
func (o *releaseOptions) buildImage(ctx context.Context, lockFile, layout string) error {
	l, err := lock.Read(lockFile)
	if err != nil {
		return err
	}
	b := buildOptions{inputFlags: o.inputFlags, lock: l, chosen: l.Inputs.Platforms, output: layout, update: l.Outputs == nil, stderr: o.Log}
	b.lockFile = lockFile
	_, _, err = b.build(ctx)
	return err
}

// testImage is the step test.
func (o *releaseOptions) testImage(ctx context.Context, layout string, platforms []lock.Platform, report string) error {
	err := testOptions{runner: o.Runner, junit: report, timeout: 2 * time.Minute}.test(ctx, layout, platforms, io.Discard, o.Log)
	if coded, ok := errors.AsType[*cli.Error](err); ok && strings.HasPrefix(coded.Hint, "the log ") {
		coded.Hint = "nothing was pushed; the log of each failed case is above, and " + report + " has all cases"
	}
	return err
}

// verifyImage is the step verify: everything that the registries serve is read, and
// compared with what the inputs give here.
func (o *releaseOptions) verifyImage(ctx context.Context, l *lock.Lock, references []string) error {
	keychain, err := credentials(o.Repositories)
	if err != nil {
		return err
	}
	// As a step of its own it trusts nothing that was built before, but in a cache that is
	// named, and proves the source, too.
	v := verifyOptions{inputFlags: o.inputFlags, trustCache: o.step == nil || o.cacheDir != "", source: o.step != nil, repository: o.upstream}
	report, err := v.verify(ctx, &verify.Verifier{Lock: l, Keychain: keychain, Fresh: !v.trustCache}, references, o.Log)
	if err != nil {
		return err
	}
	if report.Verdict != verify.Verified {
		_ = report.WriteText(o.Log)
	}
	return verdict(report)
}
