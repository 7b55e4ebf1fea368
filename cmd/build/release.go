package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
)

const releaseSynopsis = `release publishes the image, in steps:

{{range .}}  {{printf "%-8s" .Name}} {{.Does}}
{{end}}
No tag moves before everything else is done. A release that stopped continues
where it was; its folder has the lock, the layout, the test report, the notes,
and a journal of what was done. Run it again at any time: if the release is
published, it says so and exits. --step runs one step, for instance on another
machine with a copy of the folder; it is refused if a step before it was not
done for the same image.

--withdraw moves the tags that move back to the image before, in all
repositories, and marks the image in the lock, so that it is not published
again: one revision, or all those of a release of tailscale.`

// releaseOptions are the flags of build release.
type releaseOptions struct {
	inputFlags
	release.Release
	signFlags
	step                                *release.Step
	stepName, channel, source, withdraw string
	unsigned, onGitHub                  bool
	branch, built, database             string
}

const releaseText = `{{if .Withdrawn}}nothing to do: {{.Version}} was withdrawn
{{else if .Published}}published  {{.Version}}
{{else if not .Needed}}nothing to do: {{.Version}} is published
{{else}}release    {{.Version}}
{{end}}{{with .Notes}}notes      {{.}}
{{end}}tags       {{join .Tags ", "}}
{{range $variant := .Variants}}{{with index $.Images $variant}}{{$digest := .}}{{range $.Repositories}}{{.}}@{{$digest}}  {{$variant}}
{{end}}{{end}}{{end}}`

const withdrawalText = `withdrawn  {{.Version}}
{{range .Tags}}{{.Tag}}  {{if .Stays}}stays at {{.From}}, which is withdrawn: no earlier image has this tag
{{- else if eq .From .To}}stays at {{or .From "nothing"}}: it names another image
{{- else}}from {{.From}} to {{.To}}{{end}}
{{end}}`

func newRelease(e *env) *cobra.Command {
	o := releaseOptions{signFlags: signFlags{env: e}}
	var synopsis strings.Builder
	if err := render(&synopsis, releaseSynopsis, append(slices.Clone(release.Steps), release.VEX)); err != nil {
		panic(err) // the template is wrong
	}
	c := &cobra.Command{
		Use:   "release",
		Short: "publish the image in steps, or withdraw a release",
		Long:  synopsis.String(),
		Example: `  build release --update --key cosign.key --to registry.example.com/derper
  build release --step push --to registry.example.com/derper
  build release --step scan --vulndb ./vulndb
  build release --withdraw 1.104.5-r1`,
		Args:              cli.None,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := c.Flags()
	f.StringVar(&o.lockFile, "lock", "", "the lock `file` (default that of the channel: versions.json or versions-unstable.json)")
	o.registerCache(c)
	f.StringVar(&o.stepName, "step", "", "run only this `step`")
	cli.Offer(c, "step", append(stepNames(), release.VEX.Name)...)
	f.StringVar(&o.platforms, "platform", "all", "`platforms` that --step test tests, separated by commas; host is this machine's, all is every one in the lock")
	cli.Offer(c, "platform", append([]string{"host", "all"}, words(lock.Known)...)...)
	registerList(c, &o.Variants, "variant", "`variants` that --step compile, test or verify is for; may be repeated, or a list with commas (default all of the lock)")
	cli.Offer(c, "variant", lock.Defaults().VariantNames()...)
	f.Func("digests", "the `images` that the step build gave, as it prints them in JSON; if the folder has others, the step fails", func(s string) (err error) {
		o.Images, err = release.ParseDigests(s)
		return err
	})
	f.StringVar(&o.withdraw, "withdraw", "", "withdraw this `version`: 1.102.3-r1, or 1.102.3 for all its revisions")
	f.BoolVar(&o.Renew, "update", false, "look for a newer release of tailscale first")
	f.StringVar(&o.channel, "channel", string(lock.Stable), "`channel` for --update: stable or unstable")
	cli.Offer(c, "channel", channels...)
	f.StringVar(&o.source, "source-repo", e.upstream, "`URL` or folder of tailscale's git repository, for --update")
	registerVulnDB(c, &o.database)
	registerTo(c, &o.Repositories, "to publish in", publishedIn)
	f.StringVar(&o.Runner, "runner", "native", "`what` runs the image for the tests: native or docker")
	cli.Offer(c, "runner", runners...)
	o.signFlags.register(c)
	f.BoolVar(&o.unsigned, "unsigned", false, "do not sign, and attest nothing")
	f.StringVar(&o.Folder, "folder", "release", "`folder` of the release")
	f.BoolVar(&o.onGitHub, "github", false, "record the release on GitHub: commit the lock, make the release; needs GITHUB_TOKEN")
	f.StringVar(&o.branch, "branch", e.getenv("GITHUB_REF_NAME"), "the `branch` that has the lock, for --github (default the workflow's)")
	o.built = e.getenv("GITHUB_SHA")
	f.Lookup("branch").DefValue = "" // which is said already
	f.BoolVar(&o.Retag, "retag", false, "let tags that move, such as latest, go back to an older version")
	f.BoolVar(&o.Again, "again", false, "run all steps, even if the release is published")
	out := newPrinter(e, c)
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		return cmp.Or(o.check(), checkRepositories(o.Repositories))
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := o.prepare(c.Context()); err != nil {
			return err
		}
		if o.withdraw != "" {
			w, err := o.Withdraw(c.Context(), o.withdraw)
			if err != nil {
				return explain(err, append(hints{{is(github.ErrChanged), "no tag has moved; run it again with the branch as it is now"}}, releaseHints(err)...))
			}
			return out.print(w, withdrawalText)
		}
		result, err := o.Run(c.Context(), o.step)
		if err != nil {
			return explain(err, releaseHints(err))
		}
		if err := o.tellWorkflow(result); err != nil {
			return err
		}
		return out.print(result, releaseText)
	}
	return c
}

// stepNames are the steps of a release.
func stepNames() (names []string) {
	for _, s := range release.Steps {
		names = append(names, s.Name)
	}
	return names
}

// tellWorkflow gives a result to the later steps of the workflow, and the notes to its page.
func (o *releaseOptions) tellWorkflow(result *release.Result) error {
	outputs := []string{"release", fmt.Sprint(result.Needed), "version", result.Version}
	for name, variants := range map[string][]string{"variants": result.Variants, "compiling": result.Compiling} { // for matrices
		list, err := json.Marshal(variants)
		if err != nil {
			return err
		}
		outputs = append(outputs, name, string(list))
	}
	if result.Images != nil {
		outputs = append(outputs, "digests", result.Images.String())
	}
	err := o.workflow().SetOutputs(outputs...)
	if err == nil && result.Notes != "" {
		var notes []byte
		notes, err = os.ReadFile(result.Notes)
		err = errors.Join(err, o.workflow().AddSummary(string(notes)))
	}
	return err
}

// signs reports whether something is signed. A step that signs nothing does not read the
// key either.
func (o *releaseOptions) signs() bool {
	return o.withdraw == "" && (o.step == nil || o.step.Has(release.Identity))
}

// check checks what the flags say, before anything is done.
func (o *releaseOptions) check() error {
	step := o.stepName
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
	case o.Variants != nil && (o.step == nil || !o.step.ByVariant()):
		return cli.Usage("--variant is for --step compile, test or verify: a release has all variants of the lock")
	case slices.Contains(o.Variants, ""):
		return cli.Usage("--variant: a name is empty")
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
	if o.Log, o.Quiet = o.stderr, o.quiet; len(o.Repositories) == 0 {
		o.Repositories = registry.Default
	}
	keychain, err := o.credentials(o.Repositories)
	if err != nil {
		return err
	}
	if !o.Renew && (o.step == nil || o.step == release.Steps[0]) { // which begin with it
		if _, err := readLock(o.LockFile); err != nil {
			return err
		}
	}
	if o.Program, err = release.ThisProgram(); err != nil {
		return err
	}
	o.Tools, o.Registry = o.tools(o), &registry.Client{Keychain: keychain}
	if o.platforms != "all" {
		if o.Platforms, err = parsePlatforms(o.platforms, lock.Known); err != nil {
			return err
		}
	}
	if o.onGitHub {
		client, err := o.gitHub()
		if err == nil {
			err = release.CheckSource(o.LockFile, o.workflow().Repository())
		}
		if err != nil {
			return explain(err, hints{{as[*release.SourceError], "set inputs.source to that, and record what comes out: " + updateLock(o.LockFile)}})
		}
		o.Recorder = release.GitHubRecorder{Client: client, LockFile: o.LockFile, Branch: o.branch, Built: o.built, Folder: o.Folder}
	} else {
		o.Recorder = release.LocalRecorder{Release: &o.Release}
	}
	if o.signs() && !o.unsigned {
		if o.key != "" { // it may ask for a password: now, and not after minutes of work
			if err := o.makeSigner(ctx); err != nil {
				return err
			}
		}
		o.documents = filepath.Join(o.Folder, release.DocumentsName)
		o.Signer = &o.signFlags
	}
	return nil
}
