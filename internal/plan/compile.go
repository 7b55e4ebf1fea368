package plan

import (
	"regexp"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
)

// InstallArgs is the command that compiles programs that are in one layer: they are of one
// module, and have the same build tags. Who runs it with the same toolchain and [Settings]
// gets the image's binaries.
//
// That of this project's own programs runs where their source is, with a go.mod and a go.sum
// that name the modules they need. No build ID: it would depend on the rest of a go.mod.
//
// The stamps are those of upstream's own release builds; source: tailscale
// build_dist.sh.
func InstallArgs(in lock.Inputs, programs ...lock.Program) []string {
	from, flags := in.SourceOf(programs[0]), "-ldflags=-s -w"
	if from.Own() {
		args := []string{"go", "install", "-trimpath", "-buildvcs=false", flags + " -buildid="}
		for _, p := range programs {
			args = append(args, "."+strings.TrimPrefix(p.Package, from.Path))
		}
		return args
	}
	if t := in.Tailscale; from.Path == lock.TailscaleModule {
		flags += " -X tailscale.com/version.shortStamp=" + t.Short() +
			" -X tailscale.com/version.longStamp=" + t.Long() +
			" -X tailscale.com/version.gitCommitStamp=" + t.Commit
	}
	args := []string{"go", "install", "-trimpath", "-buildvcs=false", flags}
	if tags := programs[0].Tags; len(tags) > 0 {
		args = append(args, "-tags="+strings.Join(tags, ","))
	}
	for _, p := range programs {
		args = append(args, p.Package+"@"+from.Module.Version)
	}
	return args
}

// Settings is the part of the environment of a compile for a platform that decides
// what comes out, one NAME=value each. Everything that the go command would otherwise
// take from its surroundings or from a default of its own is set.
func Settings(p lock.Platform) []string {
	arm := "7"
	if p.Arch() == "arm" {
		arm = strings.TrimPrefix(p.Variant(), "v")
	}
	return []string{
		"CGO_ENABLED=0",      // pure Go: no C compiler, no libc, static binaries
		"GOENV=off",          // no settings file
		"GOFLAGS=",           // no flags but those of the command
		"GOWORK=off",         // no workspace around the module
		"GO111MODULE=on",     // modules, as ever
		"GOTOOLCHAIN=local",  // the pinned toolchain, whatever a go.mod says
		"GOEXPERIMENT=",      // the toolchain's own set of experiments
		"GODEBUG=",           // the module's own
		"GOFIPS140=off",      // no FIPS module in place of the standard library's
		"GOOS=" + p.OS(),     // target
		"GOARCH=" + p.Arch(), // target
		"GOAMD64=v1",         // the lowest level of each architecture: runs everywhere
		"GO386=sse2",         //
		"GOARM=" + arm,       // linux/arm/v5, v6 or v7; v5 has no floating point unit
		"GOARM64=v8.0",       //
		"GOPPC64=power8",     //
		"GORISCV64=rva20u64", //
	}
}

// special matches a word that a shell may read in another way.
var special = regexp.MustCompile(`[^A-Za-z0-9_./:=@%+,-]|^$`)

// Shell is the action's command for a POSIX shell, its settings in front.
func (a *Action) Shell() string {
	words := append(append([]string{"env"}, a.Env...), a.Args...)
	for i, word := range words {
		if special.MatchString(word) {
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
