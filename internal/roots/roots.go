// Package roots makes the image's CA bundle from the pinned module of Mozilla's
// roots, by a small program that the pinned toolchain compiles against it.
//
// It promises that the bundle has the module's roots, all but those with a
// constraint that a PEM file cannot carry; these are listed.
package roots

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/toolchain"
)

//go:embed generate/main.go
var source embed.FS

// Make makes the bundle in the folder work and returns the files that it made, by
// name: ca-certificates.crt, left-out.txt, LICENSE.
func Make(ctx context.Context, t *toolchain.Toolchain, in lock.Inputs, env, args []string, work string) (_ map[string]string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("roots: %w", err)
		}
	}()
	module, err := t.FetchModule(ctx, lock.RootsModule, in.Roots)
	if err != nil {
		return nil, err
	}
	goMod := fmt.Sprintf("module roots\n\ngo %s\n\nrequire %s %s\n\nreplace %[2]s => %[4]q\n",
		strings.TrimPrefix(in.Go.Version, "go"), lock.RootsModule, in.Roots.Version, filepath.ToSlash(module))
	program := ""
	generate, err := fs.Sub(source, "generate")
	if err == nil {
		program, err = t.Build(ctx, env, args, generate, goMod, work)
	}
	if err == nil {
		err = toolchain.Run(ctx, program, work)
	}
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		"ca-certificates.crt": filepath.Join(work, "ca-certificates.crt"),
		"left-out.txt":        filepath.Join(work, "left-out.txt"),
		"LICENSE":             filepath.Join(module, "LICENSE"),
	}
	if fi, err := os.Stat(files["ca-certificates.crt"]); err != nil || fi.Size() == 0 {
		return nil, fmt.Errorf("%s@%s has no roots", lock.RootsModule, in.Roots.Version)
	}
	return files, nil
}
