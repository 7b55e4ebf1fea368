package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/xavieralpha/derper/internal/image"
)

// built is what build image --json says, as far as it matters here.
type built struct {
	Digest    string
	Platforms []struct{ Platform, Manifest string }
}

// takeLayout brings the layout from the engine and prints what is in it.
func (e *engine) takeLayout(ctx context.Context, stdout io.Writer) error {
	var b built
	if err := reportOf(e.o, step{name: "build"}, &b); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(e.o.output), ".derper-layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := e.layout.Export(ctx, tmp); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	written, err := place(ctx, tmp, e.o.output, e.o.release, b.Digest)
	if err != nil {
		return err
	}
	state := "written"
	if !written {
		state = "unchanged"
	}
	fmt.Fprintf(stdout, "layout     %s (%s)\nindex      %s\n", e.o.output, state, b.Digest)
	for _, p := range b.Platforms {
		fmt.Fprintf(stdout, "%-14s %s\n", p.Platform, p.Manifest)
	}
	return nil
}

// place writes the layout in the folder from, whose index must have the digest, to the
// folder to, and checks its content meanwhile. It reports whether anything had to be
// written.
func place(ctx context.Context, from, to, ref, digest string) (written bool, err error) {
	opened, err := image.Open(from)
	if err != nil {
		return false, fmt.Errorf("layout: %w", err)
	}
	index, err := opened.Index(ctx)
	if err != nil {
		return false, fmt.Errorf("layout: %w", err)
	}
	got, err := index.Digest()
	if err == nil && got.String() != digest {
		err = fmt.Errorf("the engine's has no index %s, only %s", digest, got)
	}
	if err != nil {
		return false, fmt.Errorf("layout: %w", err)
	}
	return image.WriteLayout(to, ref, index, false)
}
