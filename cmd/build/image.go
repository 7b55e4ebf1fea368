package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// imageResult is what a build says, in JSON.
type imageResult struct {
	Reference string             `json:"reference"`
	Digest    string             `json:"digest"`
	Layout    string             `json:"layout"`
	Platforms []pipeline.Figures `json:"platforms"`
	Actions   []pipeline.Run     `json:"actions"`
}

// runImage builds the image.
func runImage(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("[image] [flags]", "build makes the image: lock → plan → fetch → compile → assemble → OCI layout.",
		"  build --platform linux/amd64,linux/arm64 --output dist --explain", stdout)
	var in inputFlags
	in.register(flags)
	in.registerCache(flags)
	output := flags.String("output", "dist", "`folder` for the OCI layout")
	tarballFile := flags.String("tarball", "", "also write a docker archive, of one platform, to `file`")
	load := flags.Bool("load", false, "also load the image into Docker")
	update := flags.Bool("update-lock", false, "record what came out in the lock, instead of comparing; wants --platform all")
	explain := flags.Bool("explain", false, "say for each action that ran why it did")
	asJSON := flags.Bool("json", false, "print the result as JSON")
	if err := flags.parseOnly(args); err != nil {
		return err
	}
	l, platforms, err := in.read()
	if err != nil {
		return err
	}
	if *update && len(platforms) != len(l.Inputs.Platforms) {
		return usageError("--update-lock records the outputs of all platforms: add --platform all")
	}
	if *tarballFile != "" && len(platforms) != 1 {
		return usageError("--tarball takes one platform, not %d", len(platforms))
	}
	if err := image.CheckLayout(*output); err != nil {
		return err // before, and not after minutes of work
	}
	c, err := in.openCache()
	if err != nil {
		return err
	}
	defer c.Close()
	display := progress.New(stderr)
	ref := "derper:" + l.Inputs.Tailscale.Short()
	built, changed, err := buildImage(ctx, l, platforms, buildOptions{
		lockFile: in.lockFile, cache: c, display: display, output: *output, update: *update,
		use: []func(*pipeline.Build) error{func(built *pipeline.Build) error {
			if err := setOutputs("digest", built.Outputs.Index); err != nil {
				return err
			}
			if *tarballFile != "" {
				if err := image.WriteTarball(*tarballFile, ref, built.Images[0]); err != nil {
					return err
				}
			}
			if !*load {
				return nil
			}
			img, err := loadable(built)
			if err != nil {
				return err
			}
			return image.LoadDocker(ctx, ref, img)
		}},
	})
	display.Close()
	if err != nil {
		return err
	}
	result := imageResult{ref, built.Outputs.Index, *output, built.Figures, built.Runs}
	if *asJSON {
		return printJSON(stdout, result)
	}
	printResult(stdout, result, changed, *explain)
	fmt.Fprintf(stdout, "\nnext: %s\n", next(ref, *load))
	return nil
}

// buildOptions say how buildImage goes about it.
type buildOptions struct {
	lockFile string
	cache    *cache.Cache
	display  *progress.Display
	output   string
	update   bool
	use      []func(*pipeline.Build) error // what else reads the images
}

// buildImage builds, compares with the lock or records in it, and writes the
// layout. A build that differs from the lock leaves the layout as it was.
func buildImage(ctx context.Context, l *lock.Lock, platforms []lock.Platform, o buildOptions) (built *pipeline.Build, changed bool, err error) {
	o.cache.Warn = o.display.Printf
	builder := &pipeline.Builder{Inputs: l.Inputs, Cache: o.cache, Modules: modules(o.cache), Display: o.display}
	deliver := func(built *pipeline.Build) error {
		if o.update {
			l.Outputs = built.Outputs
			if err := l.Write(o.lockFile); err != nil {
				return err
			}
		}
		var difference *lock.Difference
		switch err := l.Compare(built.Outputs); {
		case errors.Is(err, lock.ErrNoOutputs):
			o.display.Printf("build: %s records no outputs: nothing to compare with", o.lockFile)
		case errors.As(err, &difference):
			return &codedError{err, exitDiffers, "when the change is meant, record it: " + self() + " --platform all --update-lock"}
		case err != nil:
			return err
		}
		unlock, err := cache.LockFolder(ctx, o.output, func() { o.display.Printf("%s: waiting for another build that writes it", o.output) })
		if err != nil {
			return err
		}
		defer unlock()
		written, err := image.WriteLayout(o.output, l.Inputs.Tailscale.Short(), built.Index, o.cache.VerifyAll)
		changed = changed || written
		return err
	}
	built, err = builder.Build(ctx, platforms, append([]func(*pipeline.Build) error{deliver}, o.use...)...)
	return built, changed, err
}

// loadable is the image of a build that Docker on this machine runs.
func loadable(b *pipeline.Build) (v1.Image, error) {
	if len(b.Images) == 1 {
		return b.Images[0], nil
	}
	for i, p := range b.Figures {
		if p.Platform.Arch() == runtime.GOARCH {
			return b.Images[i], nil
		}
	}
	return nil, usageError("--load: no image for linux/%s among those built: choose one platform with --platform", runtime.GOARCH)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func printResult(w io.Writer, r imageResult, changed, explain bool) {
	if explain {
		for _, a := range r.Actions {
			if a.Cached {
				fmt.Fprintf(w, "%s: from the cache\n", a.Action)
				continue
			}
			fmt.Fprintf(w, "%s: ran, %.1fs\n", a.Action, a.Seconds)
			for _, why := range a.Why {
				fmt.Fprintf(w, "    %s\n", why)
			}
		}
		fmt.Fprintln(w)
	}
	state := "written"
	if !changed {
		state = "unchanged"
	}
	fmt.Fprintf(w, "reference  %s\nlayout     %s (%s)\nindex      %s\n\n", r.Reference, r.Layout, state, r.Digest)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "PLATFORM\tMANIFEST\tPULL\tON DISK\tBUILT\tCACHED\tSECONDS")
	nothing := func(names []string, text string) string {
		if len(names) == 0 {
			return "nothing"
		}
		return text
	}
	for _, p := range r.Platforms {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%.1f\n", p.Platform, p.Manifest,
			progress.Bytes(p.Compressed), progress.Bytes(p.Uncompressed),
			nothing(p.Built, strings.Join(p.Built, ", ")), nothing(p.Cached, fmt.Sprintf("%d of it", len(p.Cached))), p.Seconds)
	}
	tw.Flush()
}

// next is what a user would do now.
func next(ref string, loaded bool) string {
	if !loaded {
		return self() + " --load"
	}
	return "docker run --rm -p 443:443 -p 80:80 -p 3478:3478/udp " + ref
}
