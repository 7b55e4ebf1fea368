// Package derper carries the parts of this repository that go into the image, so
// that the compiled build program needs no checkout.
package derper

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
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
func EntrypointSource() fs.FS { return withoutTests{entrypoint} }

// withoutTests is a tree whose folders do not show the tests in them.
type withoutTests struct{ embed.FS }

func (t withoutTests) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := t.FS.ReadDir(name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), "_test.go") }), err
}
