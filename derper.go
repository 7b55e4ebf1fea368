// Package derper carries the parts of this repository that go into the image, so
// that the compiled build program needs no checkout.
package derper

import (
	"embed"
	"io/fs"
	"strings"
	"testing/fstest"
)

// Module is this module's path.
const Module = "github.com/xavieralpha/derper"

// Licence is this project's licence, with the notice of tailscale's.
//
//go:embed LICENSE
var Licence []byte

//go:embed entrypoint/*.go entrypoint/*/*.go
var entrypoint embed.FS

// EntrypointSource is the tree from which the entrypoint is compiled: its Go
// files, without tests. It needs nothing but the standard library.
func EntrypointSource() (fs.FS, error) {
	tree := fstest.MapFS{}
	err := fs.WalkDir(entrypoint, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		data, err := entrypoint.ReadFile(name)
		tree[name] = &fstest.MapFile{Data: data, Mode: 0o644}
		return err
	})
	return tree, err
}
