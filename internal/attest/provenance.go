package attest

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// BuildType is the URI of how the image is built.
//
// Its external parameters have one key, lock: the inputs of versions.json, as far as they
// decide what the image is. Its internal parameters have the keys host and commands: what
// the plan that follows from the lock runs on that host. On another host only the
// toolchain's module and the settings of the command roots differ, and the image is the
// same. No digest of this project's code is among them, so that a comment in it does not
// move the image's index.
//
// The dependencies are the modules of the lock, the toolchain for each host that a
// build can run on, every module that a program of the image links, upstream's git
// commit, and, where the builder says it, the commit of this project.
const BuildType = lock.DefaultSource + "/blob/main/README.md#provenance"

// Builder is the builder's URI when a [Run] names none: anybody, with the program of the
// repository that the lock names.
func Builder(in lock.Inputs) string { return in.Source + "/tree/main/cmd/build" }

// Host is the host that the commands in the provenance are for, always the same one, so
// that it does not depend on who writes it.
const Host = "linux/amd64"

// upstream is where the commit of the lock is.
const upstream = "git+https://github.com/tailscale/tailscale"

// A Provenance is the predicate of SLSA provenance.
// Source: https://slsa.dev/spec/v1.0/provenance.
type Provenance struct {
	BuildDefinition struct {
		BuildType          string `json:"buildType"`
		ExternalParameters struct {
			Lock lock.Inputs `json:"lock"`
		} `json:"externalParameters"`
		InternalParameters struct {
			Host     string    `json:"host"`
			Commands []command `json:"commands"`
		} `json:"internalParameters"`
		ResolvedDependencies []resource `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata *metadata `json:"metadata,omitempty"`
	} `json:"runDetails"`
}

// command is an action of the plan that runs a command.
type command struct {
	Name    string   `json:"name"`
	Env     []string `json:"env"`
	Args    []string `json:"args"`
	Outputs []string `json:"outputs"`
}

type metadata struct {
	Invocation string `json:"invocationId"`
}

// ParseProvenance reads the predicate of a provenance statement.
func ParseProvenance(statement []byte) (*Provenance, error) {
	p := new(Provenance)
	if err := parse(statement, SLSA, p); err != nil {
		return nil, fmt.Errorf("attest: provenance: %w", err)
	}
	if p.BuildDefinition.BuildType != BuildType {
		return nil, fmt.Errorf("attest: provenance: build type %q is not %q", p.BuildDefinition.BuildType, BuildType)
	}
	return p, nil
}

// provenance is the statement of how something was built: an image, or an index with
// all images that are in it. The contents are the images'.
func provenance(in lock.Inputs, run Run, about []Subject, contents ...*content) ([]byte, error) {
	var platforms []lock.Platform
	for _, c := range contents {
		platforms = append(platforms, c.subject.Platform)
	}
	var p Provenance
	d := &p.BuildDefinition
	d.BuildType = BuildType
	d.InternalParameters.Host = Host
	d.ExternalParameters.Lock = in.Image()
	actions, err := plan.Commands(in, platforms, Host)
	if err != nil {
		return nil, err
	}
	for _, a := range actions {
		d.InternalParameters.Commands = append(d.InternalParameters.Commands, command{a.ID(), a.Env, a.Args, a.Outputs})
	}
	// What went into the image: sources first, then modules.
	source := func(name, repository, commit string) resource {
		return resource{Name: name, URI: repository, Digest: map[string]string{"gitCommit": commit}}
	}
	d.ResolvedDependencies = []resource{source("tailscale", upstream+"@refs/tags/"+in.Tailscale.Version, in.Tailscale.Commit)}
	if run.Commit != "" {
		d.ResolvedDependencies = append(d.ResolvedDependencies, source("derper", "git+"+cmp.Or(run.Source, in.Source), run.Commit))
	}
	modules := Modules(in, slices.Collect(maps.Keys(in.Go.Sums))...)
	for _, c := range contents {
		for _, f := range c.files {
			if f.info == nil {
				continue
			}
			for _, dep := range f.info.Deps {
				m := cmp.Or(dep.Replace, dep)
				modules = append(modules, Module{module.Version{Path: m.Path, Version: m.Version}, m.Sum})
			}
		}
	}
	slices.SortStableFunc(modules, func(a, b Module) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Version.Version, b.Version.Version))
	})
	modules = slices.CompactFunc(modules, func(a, b Module) bool { return a.Version == b.Version })
	list, err := resources(modules)
	if err != nil {
		return nil, err
	}
	d.ResolvedDependencies = append(d.ResolvedDependencies, list...)
	p.RunDetails.Builder.ID = cmp.Or(run.Builder, Builder(in))
	if run.Invocation != "" {
		p.RunDetails.Metadata = &metadata{run.Invocation}
	}
	return statement(SLSA, p, in, about...)
}

// A Module is a Go module with its h1 sum.
type Module struct {
	module.Version
	Sum string
}

// Modules are those of a lock's inputs, with the toolchains for these hosts: those that
// programs come from first, the roots' last.
func Modules(in lock.Inputs, hosts ...string) (list []Module) {
	for _, s := range in.Sources() {
		list = append(list, Module{s.Mod(), s.Sum})
	}
	for _, host := range hosts {
		list = append(list, Module{in.Go.Module(host), in.Go.Sums[host]})
	}
	return append(list, Module{module.Version{Path: lock.RootsModule, Version: in.Roots.Version}, in.Roots.Sum})
}

func resources(modules []Module) (list []resource, err error) {
	for _, m := range modules {
		hash, err := dirHash(m.Sum)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m, err)
		}
		list = append(list, resource{Name: m.Path, URI: modulePURL(m.Path, m.Version.Version), Digest: map[string]string{"dirHash": hash}})
	}
	return list, nil
}

// dirHash is an h1 sum as in-toto writes it: without its prefix, in hex.
// Source: https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md.
func dirHash(sum string) (string, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:"))
	if err != nil || !strings.HasPrefix(sum, "h1:") || len(raw) != 32 {
		return "", fmt.Errorf("%q is no h1 sum", sum)
	}
	return hex.EncodeToString(raw), nil
}
