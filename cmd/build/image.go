package main

import (
	"context"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/delivery"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
)

// imageResult is what a build says, in JSON but for what only its text has.
type imageResult struct {
	Variant   string             `json:"variant"`
	Reference string             `json:"reference"`
	Version   string             `json:"version"` // of the image, as 1.102.3-r1
	Digest    string             `json:"digest"`
	Layout    string             `json:"layout"`
	Platforms []pipeline.Figures `json:"platforms"`
	Actions   []pipeline.Run     `json:"actions"`
	// Others are the other variants, where several were built.
	Others []imageResult `json:"others,omitempty"`

	Changed, Loaded, Explain, Recorded bool `json:"-"`
}

const imageText = `{{template "image" .}}{{range .Others}}
{{template "image" .}}{{end}}
next: {{if .Loaded}}docker run --rm -p 443:443 -p 80:80 -p 3478:3478/udp {{.Reference}}{{else}}{{self}}{{if ne .Variant "default"}} --variant {{.Variant}}{{end}} --load{{end}}
{{define "image"}}{{if .Explain}}{{range .Actions}}{{.Action}}: {{if .Cached}}from the cache
{{else}}ran, {{printf "%.1f" .Seconds}}s
{{range .Why}}    {{.}}
{{end}}{{end}}{{end}}
{{end}}reference  {{.Reference}}
layout     {{.Layout}} ({{if .Changed}}written{{else}}unchanged{{end}})
index      {{.Digest}}
{{if .Recorded}}recorded   {{.Version}}
{{end}}
PLATFORM	MANIFEST	PULL	ON DISK	BUILT	CACHED	SECONDS
{{range .Platforms}}{{.Platform}}	{{.Manifest}}	{{bytes .Compressed}}	{{bytes .Uncompressed}}
{{- "\t"}}{{or (join .Built ", ") "nothing"}}	{{with len .Cached}}{{.}} of it{{else}}nothing{{end}}	{{printf "%.1f" .Seconds}}
{{end}}{{end}}`

func newImage(e *env) *cobra.Command {
	var in inputFlags
	var output, tarball string
	var load, record, explained bool
	c := &cobra.Command{
		Use:               "image",
		Short:             "build the image; the default when no command is named",
		Long:              "image builds the image: lock → plan → fetch → compile → assemble → OCI layout.",
		Example:           "  build image --platform linux/amd64,linux/arm64 --output dist --explain",
		Args:              cli.None,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	in.registerLock(c)
	in.registerVariants(c, lock.Default)
	in.registerPlatforms(c, "host", "in the lock")
	in.registerCache(c)
	f := c.Flags()
	f.StringVar(&output, "output", "dist", "`folder` for the OCI layout; those of other variants than the default end in their suffix, as dist-nonroot")
	f.StringVar(&tarball, "tarball", "", "also write a docker archive, of one variant for one platform, to `file`")
	f.BoolVar(&load, "load", false, "also load the image into Docker")
	f.BoolVar(&record, "update-lock", false, "record what came out in the lock, instead of comparing; needs --platform all, and builds all variants")
	f.BoolVar(&explained, "explain", false, "say for each action that ran why it did")
	out := newPrinter(e, c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx := c.Context()
		l, chosen, err := in.read()
		if err != nil {
			return err
		}
		variants, err := in.chosenVariants(l)
		switch {
		case err != nil:
			return err
		case record && len(chosen) != len(l.Inputs.Platforms):
			return cli.Usage("--update-lock records the outputs of all platforms: add --platform all")
		case tarball != "" && len(chosen) != 1:
			return cli.Usage("--tarball: expected one platform, got %d", len(chosen))
		case tarball != "" && len(variants) != 1:
			return cli.Usage("--tarball: expected one variant, got %d", len(variants))
		}
		for _, v := range l.Inputs.Variants {
			if err := image.CheckLayout(delivery.LayoutOf(output, v)); err != nil && slices.Contains(variants, v.Name) {
				return err // before, and not after minutes of work
			}
		}
		reference := func(v lock.Variant) string { return "derper:" + l.Inputs.Tailscale.Short() + v.Suffix }
		d := delivery.Delivery{Lock: l, LockFile: in.lockFile, Variants: variants, Platforms: chosen, Layout: output, Record: record}
		results, err := e.deliver(ctx, &in, d, func(r *delivery.Result) (err error) {
			if r.Variant.Name == variants[0] {
				err = e.workflow().SetOutputs("digest", r.Output.Index)
			}
			if err == nil && tarball != "" {
				err = image.WriteTarball(tarball, reference(r.Variant), r.Images[0])
			}
			if err != nil || !load {
				return err
			}
			for i, p := range r.Figures {
				if len(r.Images) == 1 || p.Platform.Arch() == runtime.GOARCH {
					return image.LoadDocker(ctx, reference(r.Variant), r.Images[i])
				}
			}
			return cli.Usage("--load: no image for linux/%s among those built: choose one platform with --platform", runtime.GOARCH)
		})
		if err != nil {
			return err
		}
		var all []imageResult
		for _, r := range results {
			all = append(all, imageResult{r.Variant.Name, reference(r.Variant), l.Inputs.Version(), r.Output.Index, r.Layout, r.Figures, r.Runs,
				nil, r.Written, load, explained, record})
		}
		all[0].Others = all[1:]
		return out.print(all[0], imageText)
	}
	return c
}

// deliver makes images of a lock into layouts.
func (e *env) deliver(ctx context.Context, in *inputFlags, d delivery.Delivery, use ...func(*delivery.Result) error) ([]*delivery.Result, error) {
	var results []*delivery.Result
	err := e.equip(in, &d, func() (err error) {
		results, err = d.Run(ctx, use...)
		return err
	})
	return results, explain(err, append(budgetHints(err), hints{{as[*lock.Difference], "when the change is meant, record it: " + updateLock(d.LockFile)}}...))
}

// equip gives a delivery what it works with, as long as work runs.
func (e *env) equip(in *inputFlags, d *delivery.Delivery, work func() error) error {
	display := e.display()
	defer display.Close()
	c, err := in.openCache(display)
	if err != nil {
		return err
	}
	defer c.Close()
	d.Cache, d.Modules, d.Display = c, e.modules(c), display
	return work()
}

// updateLock is the command that records what comes out in a lock.
func updateLock(file string) string {
	command := self() + " --platform all --update-lock"
	if file != lock.File {
		command += " --lock " + file
	}
	return command
}
