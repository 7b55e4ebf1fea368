package main

import (
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/size"
)

const sizeText = `{{with .Image}}{{.Source}}{{with .Platform}}  {{.}}{{end}}
{{end}}{{with .Against}}against {{.Source}}{{with .Platform}}  {{.}}{{end}}
{{end}}{{$r := .}}{{with .Image.Layers}}
LAYER	PULL	ON DISK{{with $r.Against}}	PULL BEFORE	GROWTH{{end}}
{{range .}}{{.Name}}	{{bytes .Bytes}}	{{bytes .OnDisk}}{{$l := .}}{{with $r.Against}}{{with .Layer $l.Name}}	{{bytes .Bytes}}	{{growth $l.Bytes .Bytes}}{{end}}{{end}}
{{end}}total	{{bytes $r.Image.Bytes}}	{{bytes $r.Image.OnDisk}}{{with $r.Against}}	{{bytes .Bytes}}	{{growth $r.Image.Bytes .Bytes}}{{end}}
{{end}}{{range .Programs}}
{{.Name}}  {{bytes .Bytes}}{{if $r.Against}}  {{growth .Bytes .Before}}{{end}}
{{if $r.Against}}{{range .Parts}}{{growth .Bytes .Before}}	{{bytes .Before}}	{{bytes .Bytes}}	{{.Name}}
{{else}}no part of it weighs more or less
{{end}}{{else}}{{range .Parts}}{{bytes .Bytes}}	{{.Name}}
{{end}}{{end}}{{with .More}}and {{.}} more
{{end}}{{end}}`

func newSize(e *env) *cobra.Command {
	var in inputFlags
	var against, by string
	var top int
	var table bool
	c := &cobra.Command{
		Use:   "size [flags] [LAYOUT|REF|PROGRAM]",
		Short: "say what an image's layers and each linked package weigh",
		Long: `size says what the layers of an image weigh, and in each of its programs what
each package does that is linked: its functions, and what the table of
functions has of them. A name that begins with a dot is a section of the file,
less what packages have of it: a stripped program does not say whose strings,
types and data those are. Its argument is an OCI layout or an archive of one,
./dist if none is named, a reference in a registry, or a program: a path begins
with ./, ../ or /, or ends in .tar. With --against it says what grew, the
largest growth first.`,
		Example: `  build size ./dist
  build size --against camllia/derper:latest --by module ./dist
  build size --top 0 --json ./tailscaled
  build size --table       write the tables in README.md and docs/image.md`,
		Args: cli.AtMostOne("images"),
	}
	in.registerLock(c)
	in.registerPlatforms(c, "host", "that an image is built for")
	f := c.Flags()
	f.StringVar(&against, "against", "", "compare with this `image`, a layout, a reference or a program: what was before")
	f.StringVar(&by, "by", "package", "`what` to list: package or module")
	cli.Offer(c, "by", "package", "module")
	f.IntVar(&top, "top", 20, "list so `many` of each program; 0 for all")
	f.BoolVar(&table, "table", false, "write what the lock records into the tables of README.md and docs/image.md, and weigh nothing")
	out := newPrinter(e, c)
	c.RunE = func(c *cobra.Command, args []string) error {
		platform, err := in.platform()
		switch {
		case err != nil:
			return err
		case by != "package" && by != "module":
			return cli.Usage("--by: %q is neither package nor module", by)
		case top < 0:
			return cli.Usage("--top: %d is below 0", top)
		case table && (len(args) > 0 || against != ""):
			return cli.Usage("--table is of what the lock records: it cannot be combined with an image")
		case table:
			return e.writeTables(in.lockFile)
		}
		source := argument(args, "./dist")
		var images []*size.Image
		display := e.display()
		defer display.Close()
		for _, source := range []string{source, against} {
			var i *size.Image
			if source != "" {
				keychain, err := e.imageKeychain([]string{source})
				if err != nil {
					return err
				}
				task := display.Start("size "+source, "")
				i, err = size.Read(c.Context(), source, keychain, platform)
				task.End(err)
				if err != nil {
					return explain(fmt.Errorf("size: %w", err), sizeHints)
				}
			}
			images = append(images, i)
		}
		return out.print(size.New(images[0], images[1], size.Options{Modules: by == "module", Top: top}), sizeText)
	}
	return c
}

// sizeHints are for what cannot be weighed.
var sizeHints = hints{
	{is(registry.ErrReference), ""},
	{is(image.ErrNotFound, fs.ErrNotExist), "name the folder of an OCI layout as ./dist, a reference in a registry, or a program by a path that begins with ./, ../ or /"},
}

// writeTables writes what a lock records of sizes into the pages of the checkout.
func (e *env) writeTables(lockFile string) error {
	l, err := readLock(lockFile)
	if err == nil {
		err = size.Write(".", l)
	}
	return explain(err, hints{
		{is(size.ErrNoSizes), "record them: " + updateLock(lockFile)},
		{is(fs.ErrNotExist), "run it in a checkout"},
	})
}
