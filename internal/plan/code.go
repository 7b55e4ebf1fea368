package plan

import (
	"fmt"
	"maps"
	"slices"
)

// Sources are the files, packages and libraries that this program is made of, each by its
// digest: sha256:… for what is of this project, version and h1:… for a module. The Go that
// compiled the program is one of them, by its version.
type Sources map[string]string

// Names of sources that stand in more than one place.
const (
	licence       = "LICENSE"
	toolchainCode = "internal/toolchain"
	compress      = "github.com/klauspost/compress"
	modules       = "golang.org/x/mod"
	// Tools is the source of the tools, with their go.mod and go.sum.
	Tools = "tools"
	// CompiledBy is the Go that compiled this program: archive/tar and encoding/json are its.
	CompiledBy = "go"
)

// Code says for each kind of action which sources decide what it makes, besides the inputs
// that are the lock's. They are a part of its key. What only moves bytes that are checked
// by their digests (cache, modproxy) is no such source, and neither is this package: what
// it decides is a part of the action itself.
//
// Tests hold it to be complete: each package that package pipeline needs is in it or known
// to decide nothing.
var Code = map[string][]string{
	"roots":       {"internal/pipeline", toolchainCode, "internal/roots"},
	"compile":     {"internal/pipeline", toolchainCode},
	"entrypoint":  {"internal/pipeline", toolchainCode, "derper.go", "entrypoint"},
	"flags":       {"internal/pipeline", toolchainCode, "internal/flags", "entrypoint", CompiledBy},
	"compile-own": {"internal/pipeline", toolchainCode, "derper.go", Tools},
	"layer":       {"internal/pipeline", "internal/image", "derper.go", compress, CompiledBy},
	"attestation": {"internal/pipeline", "internal/attest", "internal/image", "internal/lock", "internal/plan", "derper.go", "entrypoint", compress, "github.com/google/go-containerregistry", "github.com/google/licensecheck", "github.com/spdx/tools-golang", modules, CompiledBy},
}

// Names are those of all sources that a plan needs.
func Names() []string {
	names := append(slices.Concat(slices.Collect(maps.Values(Code))...), licence)
	slices.Sort(names)
	return slices.Compact(names)
}

// complete returns an error if a source is missing.
func (s Sources) complete() error {
	for _, name := range Names() {
		if s[name] == "" {
			return fmt.Errorf("plan: no digest of %s, which decides what is made", name)
		}
	}
	return nil
}
