package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
)

const pushSynopsis = `push puts the image of the lock, with all its platforms, from an OCI layout (dist) into repositories: first
everything by digest, read back; then the tags, on all of them. An image has the tag of its revision,
1.102.3-r1, which never moves. 1.102.3, v1.102.3, 1.102 and latest move to the newest image of the stable
channel; 1.103.7, v1.103.7 and unstable to that of the unstable one.
Whatever goes wrong, no tag names anything but a whole image, and running it again goes on.

Credentials come from where docker login leaves them, or from two variables for each registry, named after
its host: DOCKER_IO_USERNAME and DOCKER_IO_PASSWORD, GHCR_IO_USERNAME and GHCR_IO_PASSWORD, and
REGISTRY_EXAMPLE_COM_5000_USERNAME for registry.example.com:5000; a dash becomes __. A token is a password.`

const pushExample = `  build push --dry-run
  build push --repo registry.example.com/derper --repo ghcr.io/me/derper dist`

const pushText = `{{range $r := .Repositories}}{{.Reference}}
{{with .Missing}}  {{if $.DryRun}}missing{{else}}uploaded{{end}}: {{if or .Blobs .Manifests -}}
{{.Blobs}} blobs ({{bytes .Bytes}}), {{.Manifests}} manifests{{with $r.MountedFrom}}; blobs from {{.}} where they are there{{end}}
{{- else}}nothing{{end}}
{{if $.DryRun}}{{range .Digests}}    {{.}}
{{end}}{{end}}{{else}}  nothing to do: all tags are there
{{end}}{{range .Tags}}  {{.Tag}}	{{if not .Changed}}as it was{{else if .From}}from {{.From}}{{else}}new{{end}}
{{end}}{{end}}{{if .DryRun}}dry run: nothing was uploaded and no tag has moved
{{end}}`

func runPush(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("push [flags] [LAYOUT]", pushSynopsis, pushExample, stdout)
	lockFile := flags.String("lock", lock.File, "the lock `file`")
	p := registry.Plan{Repositories: registry.Default}
	flags.Func("repo", "`repository` to push to, as HOST/PATH, may be repeated, or a list with commas; http://HOST/PATH for one without encryption (default "+strings.Join(registry.Default, " and ")+")", collect(&p.Repositories, registry.CheckName))
	var tags []string
	flags.Func("tag", "`tag` to set in place of the channel's, may be repeated", collect(&tags))
	channel := flags.String("channel", "", "stable or unstable; default is what the version is: an odd minor version is unstable")
	byDigest := flags.Bool("by-digest", false, "push and verify everything, and move no tag")
	flags.BoolVar(&p.Retag, "retag", false, "let tags that move, such as latest, go back to an older version; that of a revision, 1.102.3-r1, never moves")
	flags.BoolVar(&p.Verify, "verify", false, "look everything over again where all tags are in place already")
	flags.BoolVar(&p.DryRun, "dry-run", false, "only say what is missing where and which tags would move")
	flags.BoolVar(&flags.asJSON, "json", false, "print the result as JSON")
	dir, err := flags.parseOne(args, "layouts", "dist")
	if err != nil {
		return err
	}
	keychain, err := credentials(p.Repositories)
	if err != nil {
		return err
	}
	l, err := readLock(*lockFile)
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
	if p.Release, err = registry.Read(dir, l); err != nil {
		return explain(err, layoutHints(dir))
	}
	if l.IsWithdrawn() && !*byDigest && !p.Retag {
		return cli.Failed(fmt.Errorf("push: %s: %s was withdrawn", *lockFile, l.Inputs.ImageVersion()), "--retag moves its tags all the same")
	}
	c, err := lock.ParseChannel(cmp.Or(*channel, string(lock.ChannelOf(l.Inputs.Tailscale.Version))))
	switch {
	case err != nil:
		return cli.Usage("push: --channel: %w", err)
	case *byDigest && (len(tags) > 0 || *channel != "" || p.Retag):
		return cli.Usage("push: --by-digest moves no tag: it cannot be combined with --tag, --channel and --retag")
	case len(tags) > 0 && *channel != "":
		return cli.Usage("push: --channel chooses tags, and so does --tag")
	case *byDigest:
		p.Verify = true
	case len(tags) > 0:
		p.Tags, err = registry.NamedTags(l.Inputs.ImageVersion(), l.Inputs.Variant().Suffix, tags)
	default:
		p.Tags = registry.Tags(l.Inputs.ImageVersion(), l.Inputs.Variant().Suffix, c)
	}
	if err != nil {
		return cli.Usage("push: %w", err)
	}
	client := &registry.Client{Keychain: keychain, Display: display}
	if len(tags) == 0 && !*byDigest && !p.DryRun {
		err = client.NameBefore(ctx, l, p.Repositories)
	}
	var report *registry.Pushed
	if err == nil {
		report, err = client.Push(ctx, p)
	}
	if err != nil {
		return explain(err, pushHints)
	}
	return flags.print(report, pushText)
}

// credentials are those for the registries of these references.
func credentials(references []string) (authn.Keychain, error) {
	keychain, err := registry.Credentials(references, os.Getenv)
	if err != nil {
		return nil, cli.Usage("credentials: %w", err)
	}
	return keychain, nil
}
