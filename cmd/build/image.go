package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// imageResult is what a build says, in JSON but for what only its text has.
type imageResult struct {
	Reference string             `json:"reference"`
	Version   string             `json:"version"` // of the image, as 1.102.3-r1
	Digest    string             `json:"digest"`
	Layout    string             `json:"layout"`
	Platforms []pipeline.Figures `json:"platforms"`
	Actions   []pipeline.Run     `json:"actions"`

	Changed, Loaded, Explain, Recorded bool `json:"-"`
}

const imageText = `{{if .Explain}}{{range .Actions}}{{.Action}}: {{if .Cached}}from the cache
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
{{end}}
next: {{if .Loaded}}docker run --rm -p 443:443 -p 80:80 -p 3478:3478/udp {{.Reference}}{{else}}{{self}} --load{{end}}
`

func runImage(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("[image] [flags]", "build makes the image: lock → plan → fetch → compile → assemble → OCI layout.",
		"  build --platform linux/amd64,linux/arm64 --output dist --explain", stdout)
	o := buildOptions{stderr: stderr}
	o.register(flags)
	o.registerCache(flags)
	flags.StringVar(&o.output, "output", "dist", "`folder` for the OCI layout")
	tarballFile := flags.String("tarball", "", "also write a docker archive, of one platform, to `file`")
	load := flags.Bool("load", false, "also load the image into Docker")
	flags.BoolVar(&o.update, "update-lock", false, "record what came out in the lock, instead of comparing; wants --platform all")
	explain := flags.Bool("explain", false, "say for each action that ran why it did")
	flags.BoolVar(&flags.asJSON, "json", false, "print the result as JSON")
	_, err := flags.parse(args, nil)
	if err != nil {
		return err
	}
	if o.lock, o.chosen, err = o.read(); err != nil {
		return err
	}
	switch {
	case o.update && len(o.chosen) != len(o.lock.Inputs.Platforms):
		return cli.Usage("--update-lock records the outputs of all platforms: add --platform all")
	case *tarballFile != "" && len(o.chosen) != 1:
		return cli.Usage("--tarball takes one platform, not %d", len(o.chosen))
	}
	if err := image.CheckLayout(o.output); err != nil {
		return err // before, and not after minutes of work
	}
	ref := "derper:" + o.lock.Inputs.Tailscale.Short()
	built, changed, err := o.build(ctx, func(built *pipeline.Build) error {
		err := setOutputs("digest", built.Output.Index)
		if err == nil && *tarballFile != "" {
			err = image.WriteTarball(*tarballFile, ref, built.Images[0])
		}
		if err != nil || !*load {
			return err
		}
		for i, p := range built.Figures {
			if len(built.Images) == 1 || p.Platform.Arch() == runtime.GOARCH {
				return image.LoadDocker(ctx, ref, built.Images[i])
			}
		}
		return cli.Usage("--load: no image for linux/%s among those built: choose one platform with --platform", runtime.GOARCH)
	})
	if err != nil {
		return err
	}
	return flags.print(imageResult{ref, o.lock.Inputs.Version(), built.Output.Index, o.output, built.Figures, built.Runs, changed, *load, *explain, o.update}, imageText)
}

// buildOptions say what is built, and how.
type buildOptions struct {
	inputFlags
	lock   *lock.Lock
	chosen []lock.Platform
	output string
	update bool
	stderr io.Writer
}

// build builds, compares with the lock or records in it, and writes the layout. use
// reads the images after that. A build that differs from the lock leaves the layout as
// it was.
func (o *buildOptions) build(ctx context.Context, use ...func(*pipeline.Build) error) (built *pipeline.Build, changed bool, err error) {
	display := progress.New(o.stderr)
	defer display.Close()
	c, err := o.openCache(display)
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	builder := &pipeline.Builder{Inputs: o.lock.Inputs, Cache: c, Modules: modules(c), Display: display}
	variant := o.lock.Inputs.Variant().Name
	if n := len(o.lock.Inputs.Variants); o.update && n > 1 {
		return nil, false, fmt.Errorf("%s: has %d variants, and this program records one", o.lockFile, n)
	}
	deliver := func(built *pipeline.Build) error {
		if o.update {
			o.lock.Outputs = map[string]*lock.Output{variant: built.Output}
			if o.lock.Revise(); o.lock.Inputs.Revision != builder.Inputs.Revision {
				return nil // it is another image than the published one, and made anew below
			}
			if err := o.lock.Write(o.lockFile); err != nil {
				return err
			}
		}
		if err := o.lock.Compare(variant, built.Output); errors.Is(err, lock.ErrNoOutputs) {
			display.Printf("build: %s records no outputs: nothing to compare with", o.lockFile)
		} else if err != nil {
			return explain(err, hints{{as[*lock.Difference], "when the change is meant, record it: " + updateLock(o.lockFile)}})
		}
		unlock, err := cache.LockFolder(ctx, o.output, func() { display.Printf("%s: waiting for another build that writes it", o.output) })
		if err != nil {
			return err
		}
		defer unlock()
		written, err := image.WriteLayout(o.output, o.lock.Inputs.Tailscale.Short(), built.Index, c.VerifyAll)
		changed = changed || written
		return err
	}
	if o.update {
		// As the newest image that was published: what differs from it is the next one.
		o.lock.Begin()
		builder.Inputs = o.lock.Inputs
	}
	all := func(built *pipeline.Build) error {
		err := deliver(built)
		for _, use := range use {
			if err == nil && o.lock.Inputs.Revision == builder.Inputs.Revision {
				err = use(built)
			}
		}
		return err
	}
	if built, err = builder.Build(ctx, o.chosen, all); err != nil || o.lock.Inputs.Revision == builder.Inputs.Revision {
		return built, changed, err
	}
	first := built
	builder.Inputs = o.lock.Inputs
	if built, err = builder.Build(ctx, o.chosen, all); err == nil {
		built.After(first)
	}
	return built, changed, err
}

// updateLock is the command that records what comes out in a lock.
func updateLock(file string) string {
	command := self() + " --platform all --update-lock"
	if file != lock.File {
		command += " --lock " + file
	}
	return command
}
