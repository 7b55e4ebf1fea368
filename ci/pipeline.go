package main

import (
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
)

// Places in a container. There is nothing else in it but what the engine puts into
// every one: /etc/resolv.conf, /dev, /proc, /sys.
const (
	programFile = "/build"
	lockFile    = "/" + lock.File
	cacheDir    = "/cache" // the volume that all steps share
	layoutDir   = "/dist"
	scratchDir  = "/tmp"
	tarballFile = "/image.tar"
	attestDir   = "/attestations"
	releaseDir  = "/release"
)

// relayName is the name under which a client reaches the image that runs as a service.
const relayName = "relay"

// A step is a command of the build program, run in a container of its own.
type step struct {
	name  string   // for people, and as a file name the report's
	args  []string // the program's arguments
	cache bool     // the shared cache is mounted
	makes string   // the file or folder that it is run for, if that is not only its report
	// layout and relay say what else there is: the layout that was made, the image
	// as a service.
	layout, relay bool
	// live is set when what the step says is true of a moment, so that the engine
	// must not answer from what it said before: it looks at something that runs, or
	// at what a registry has, or changes that.
	live              bool
	privileged        bool // it makes containers itself
	secrets, identity bool // it gets the client's credentials for registries; what signs, too
}

// report is the name of the file for what a step says.
func (s step) report() string {
	return strings.NewReplacer(" ", "-", "/", "-").Replace(s.name) + ".json"
}

// A pipeline is what a command of this program runs.
type pipeline struct {
	// compile is run first, side by side: a step for each platform. What they leave
	// is in the cache, and nothing but the cache passes between them, so that their
	// order means nothing.
	compile []step
	// after is run last, a step after the other: first the one that makes the layout,
	// which finds everything in the cache; on an engine that has none to share it makes
	// it again, and the same.
	after []step
}

// compose composes the pipeline of a command for an engine that runs containers of
// the platform host.
func compose(o *options, host lock.Platform) pipeline {
	if o.command == "verify" {
		return pipeline{after: []step{{
			name: "verify", args: append([]string{"verify", "--lock", lockFile, "--platform", o.asked, "--json"}, o.passed...), live: true, secrets: true,
		}}}
	}
	var p pipeline
	image := func(name string, platforms string, more ...string) step {
		args := []string{"image", "--lock", lockFile, "--cache", cacheDir, "--platform", platforms, "--json"}
		return step{name: name, args: append(args, more...), cache: true}
	}
	var names []string
	for _, platform := range o.platforms {
		names = append(names, string(platform))
		p.compile = append(p.compile, image("compile "+string(platform), string(platform), "--output", scratchDir+"/dist"))
	}
	all := strings.Join(names, ",")
	assemble := image("build", all, "--output", layoutDir)
	assemble.makes = layoutDir
	p.after = []step{assemble}
	if o.command == "build" {
		return p
	}
	if slices.Contains(o.platforms, host) { // for the service
		archive := image("archive", string(host), "--output", scratchDir+"/dist", "--tarball", tarballFile)
		archive.makes = tarballFile
		p.after = append(p.after, archive, step{
			name: "probe", args: []string{"probe", "--insecure", "--json", relayName}, relay: true, live: true,
		})
	}
	if o.command == "test" {
		p.after = append(p.after, step{
			name: "test", args: []string{"test", "--platform", all, "--json", layoutDir}, layout: true, live: true, privileged: true,
		})
		return p
	}
	p.after = append(p.after, step{
		name: "attest", args: []string{"attest", "--lock", lockFile, "--output", attestDir, "--json", layoutDir}, layout: true, makes: attestDir,
	})
	for _, s := range release.Steps {
		if s.Ahead { // all has been compiled
			continue
		}
		// What the flags say last holds: these are the container's, whatever comes after --.
		args := append(append([]string{"release", "--step", s.Name}, o.passed...), "--lock", lockFile, "--cache", cacheDir, "--folder", releaseDir, "--json")
		p.after = append(p.after, step{
			name: "release " + s.Name, args: args, cache: s.Has(release.Sources), makes: releaseDir, live: true,
			privileged: s.Has(release.Containers), secrets: s.Has(release.Pull | release.Push), identity: s.Has(release.Identity),
		})
	}
	return p
}
