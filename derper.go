// Package derper carries the parts of this repository that go into the image, so
// that the compiled build program needs no checkout, and the code that decides what
// the image is, so that a build knows when that has changed.
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

// GoMod and GoSum are this module's go.mod and go.sum.
var (
	//go:embed go.mod
	GoMod []byte
	//go:embed go.sum
	GoSum []byte
)

//go:embed entrypoint/*.go entrypoint/*/*.go
var entrypoint embed.FS

// EntrypointSource is the tree from which the entrypoint is compiled: its Go
// files, without tests. It needs nothing but the standard library.
func EntrypointSource() fs.FS { return withoutTests{entrypoint} }

//go:embed tools/*.go
var tools embed.FS

// ToolsSource is the tree from which the tools are compiled: their Go files, without tests.
// They need modules of this module's go.mod.
func ToolsSource() fs.FS { return withoutTests{tools} }

//go:embed derper.go internal/attest/*.go internal/flags/*.go internal/image/*.go internal/lock/*.go
//go:embed internal/pipeline/*.go internal/plan/*.go internal/roots/*.go internal/roots/*/*.go internal/toolchain/*.go
var code embed.FS

// Code is the tree of the packages that decide what the image is, without tests, and of
// this file.
func Code() fs.FS { return withoutTests{code} }

// withoutTests is a tree whose folders do not show the tests in them.
type withoutTests struct{ embed.FS }

func (t withoutTests) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := t.FS.ReadDir(name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), "_test.go") }), err
}
