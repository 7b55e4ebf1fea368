package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
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
	l, err := lock.Read(e.o.lockFile)
	if err != nil {
		return err
	}
	written, err := place(tmp, e.o.output, l.Inputs.Tailscale.Short(), b.Digest)
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

// place checks the layout in the folder from, whose index must have the digest, and
// writes it to the folder to. It reports whether anything had to be written.
func place(from, to, ref, digest string) (written bool, err error) {
	if err := checkBlobs(from); err != nil {
		return false, err
	}
	want, err := v1.NewHash(digest)
	if err != nil {
		return false, fmt.Errorf("layout: %w", err)
	}
	top, err := layout.ImageIndexFromPath(from)
	if err != nil {
		return false, fmt.Errorf("layout: %w", err)
	}
	index, err := top.ImageIndex(want)
	if err != nil {
		return false, fmt.Errorf("layout: the engine's has no index %s: %w", digest, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return false, fmt.Errorf("layout: %w", err)
	}
	var images []v1.Image
	for _, m := range manifest.Manifests {
		img, err := index.Image(m.Digest)
		if err != nil {
			return false, fmt.Errorf("layout: %w", err)
		}
		images = append(images, img)
	}
	return image.WriteLayout(to, ref, index, images, false)
}

// checkBlobs checks that the blobs of a layout are what their names say.
func checkBlobs(dir string) error {
	blobs := os.DirFS(filepath.Join(dir, "blobs", "sha256"))
	return fs.WalkDir(blobs, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := blobs.Open(name)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != name {
			return fmt.Errorf("layout: blob sha256:%s came as sha256:%s", name, got)
		}
		return nil
	})
}
