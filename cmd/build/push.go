package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
)

const pushText = `{{range $r := .Repositories}}{{range .References}}{{.}}
{{end}}{{with .Missing}}  {{if $.DryRun}}missing{{else}}uploaded{{end}}: {{if or .Blobs .Manifests -}}
{{.Blobs}} blobs ({{bytes .Bytes}}), {{.Manifests}} manifests{{with $r.MountedFrom}}; blobs from {{.}} where they are there{{end}}
{{- else}}nothing{{end}}
{{if $.DryRun}}{{range .Digests}}    {{.}}
{{end}}{{end}}{{else}}  nothing to do: all tags are there
{{end}}{{range .Tags}}  {{.Tag}}	{{if not .Changed}}as it was{{else if .From}}from {{.From}}{{else}}new{{end}}
{{end}}{{end}}{{if .DryRun}}dry run: nothing was uploaded and no tag has moved
{{end}}`

// pushOptions are the flags of build push.
type pushOptions struct {
	inputFlags
	registry.Plan
	names registry.Choice
}

func newPush(e *env) *cobra.Command {
	var o pushOptions
	c := &cobra.Command{
		Use:   "push [flags] [LAYOUT ...]",
		Short: "push images by digest, verify them there, move tags last",
		Long: `push puts images of the lock, with all their platforms, from OCI layouts
(./dist if none is named) into repositories: first everything by digest, read
back; then the tags, on all of them. An image has the tag of its revision,
1.102.3-r1, which never moves. 1.102.3, v1.102.3, 1.102 and latest move to the
newest image of the stable channel; 1.103.7, v1.103.7 and unstable to that of
the unstable one. Whatever goes wrong, no tag names anything but a whole image,
and running it again goes on.

Several layouts are those of several variants. The tags of a variant end in its
suffix, as 1.102.3-debug; debug alone is latest-debug. What the variants share
is uploaded once, and no tag of any of them moves before all are there.

Credentials come from where docker login leaves them, or from two variables for
each registry, named after its host: DOCKER_IO_USERNAME and DOCKER_IO_PASSWORD,
GHCR_IO_USERNAME and GHCR_IO_PASSWORD, and REGISTRY_EXAMPLE_COM_5000_USERNAME
for registry.example.com:5000; a dash becomes __. A token is a password.`,
		Example: `  build push --dry-run
  build push --to registry.example.com/derper --to ghcr.io/me/derper
  build push ./dist ./dist-nonroot`,
	}
	o.registerLock(c)
	f := c.Flags()
	registerTo(c, &o.Repositories, "to push to", publishedIn)
	f.Lookup("to").Usage += "; http://HOST/PATH is for one without encryption"
	registerList(c, &o.names.Names, "tag", "`tag` to set in place of the channel's; may be repeated, or a list with commas")
	f.StringVar(&o.names.Channel, "channel", "", "`channel` whose tags are set: stable or unstable (default what the version is: an odd minor version is unstable)")
	cli.Offer(c, "channel", channels...)
	f.BoolVar(&o.names.None, "by-digest", false, "push and verify everything, and move no tag")
	f.BoolVar(&o.Retag, "retag", false, "let tags that move, such as latest, go back to an older version; that of a revision, 1.102.3-r1, never moves")
	f.BoolVar(&o.Verify, "verify", false, "look everything over again where all tags are in place already")
	f.BoolVar(&o.DryRun, "dry-run", false, "only say what is missing where and which tags would move")
	out := newPrinter(e, c)
	c.PreRunE = func(c *cobra.Command, args []string) error { return cmp.Or(o.check(args), checkLayout(c, args)) }
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			args = []string{"./dist"}
		}
		report, err := e.push(c.Context(), &o, args)
		if err != nil {
			return err
		}
		return out.print(report, pushText)
	}
	return c
}

// check refuses flags that do not go together.
func (o *pushOptions) check(layouts []string) error {
	n := o.names
	switch {
	case len(n.Names) > 0 && len(layouts) > 1:
		return cli.Usage("push: --tag names one image, and there are %d layouts", len(layouts))
	case n.None && (len(n.Names) > 0 || n.Channel != "" || o.Retag):
		return cli.Usage("push: --by-digest moves no tag: it cannot be combined with --tag, --channel and --retag")
	case len(n.Names) > 0 && n.Channel != "":
		return cli.Usage("push: --channel chooses tags, and so does --tag")
	case n.Channel != "":
		if _, err := lock.ParseChannel(n.Channel); err != nil {
			return cli.Usage("push: --channel: %w", err)
		}
	}
	return checkRepositories(o.Repositories)
}

// push pushes the images in layouts.
func (e *env) push(ctx context.Context, o *pushOptions, layouts []string) (*registry.Pushed, error) {
	if len(o.Repositories) == 0 {
		o.Repositories = registry.Default
	}
	keychain, err := e.credentials(o.Repositories)
	if err != nil {
		return nil, err
	}
	l, err := readLock(o.lockFile)
	if err != nil {
		return nil, err
	}
	display := e.display()
	defer display.Close()
	unlock, err := lockAll(ctx, layouts, display)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, dir := range layouts {
		img, err := registry.Read(dir, l)
		if err != nil {
			return nil, explain(err, layoutHints(dir))
		}
		if i := slices.IndexFunc(o.Images, func(c *registry.Content) bool { return c.Variant == img.Variant }); i >= 0 {
			return nil, cli.Usage("push: %s and %s are both of the variant %s", layouts[i], dir, img.Variant)
		}
		in, err := l.Inputs.Of(img.Variant)
		if err != nil {
			return nil, err
		}
		if img.Tags, err = o.names.Tags(in); err != nil {
			return nil, cli.Usage("push: %w", err)
		}
		o.Images = append(o.Images, img)
	}
	if l.IsWithdrawn() && !o.names.None && !o.Retag {
		return nil, cli.Failed(fmt.Errorf("push: %s: %s was withdrawn", o.lockFile, l.Inputs.ImageVersion()), "--retag moves its tags all the same")
	}
	o.Verify = o.Verify || o.names.None
	client := &registry.Client{Keychain: keychain, Display: display}
	if len(o.names.Names) == 0 && !o.names.None && !o.DryRun {
		err = client.NameBefore(ctx, l, o.Repositories)
	}
	var report *registry.Pushed
	if err == nil {
		report, err = client.Push(ctx, o.Plan)
	}
	return report, explain(err, pushHints)
}

// lockAll locks those of some folders that are there, each once, and in an order that keeps
// two programs from waiting for each other.
func lockAll(ctx context.Context, dirs []string, display *progress.Display) (unlock func(), err error) {
	folders := map[string]bool{}
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			if real, err = filepath.Abs(real); err != nil {
				return nil, err
			}
			folders[real] = true
		}
	}
	var held []func()
	unlock = func() {
		for _, release := range held {
			release()
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(folders)) {
		release, err := cache.LockFolder(ctx, dir, func() { display.Printf("%s: waiting for another program that uses it", dir) })
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, release)
	}
	return unlock, nil
}
