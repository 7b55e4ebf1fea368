// Package plan says what a build does: it turns a lock and a list of platforms
// into actions, without doing anything.
//
// It promises to be pure: the same lock, code, platforms and host give the same actions
// with the same keys. An action's key covers everything that can change what the
// action makes, the code that carries it out included, see [Code], and nothing else: no
// path, no time, nothing of the environment.
package plan

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/xavieralpha/derper/internal/lock"
)

// An Action is one step: what to run, on which inputs, with which settings.
type Action struct {
	// Kind is what is done: roots, compile, compile-own, flags, entrypoint, layer or attestation.
	Kind string `json:"kind"`
	// Name tells actions of a kind apart, as the layer's name.
	Name string `json:"name,omitempty"`
	// Platform is what it is done for; empty for all.
	Platform lock.Platform `json:"platform,omitempty"`
	// Inputs are what goes in, by digest: h1:… for a module, sha256:… for a file or a
	// package of this project, action:… for what another action makes.
	Inputs map[string]string `json:"inputs"`
	// Env and Args are the settings and the command, of those that run one.
	// Places (caches, temporary folders) are no part of them.
	Env  []string `json:"env,omitempty"`
	Args []string `json:"args,omitempty"`
	// Outputs names what it makes.
	Outputs []string `json:"outputs"`
}

// Key is the SHA-256 of the action's canonical JSON, in hex.
func (a *Action) Key() string { return fmt.Sprintf("%x", sha256.Sum256(a.JSON())) }

// Result names what the action makes, as an input of others.
func (a *Action) Result() string { return "action:" + a.Key() }

// JSON is the action's canonical JSON.
func (a *Action) JSON() []byte {
	data, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings, lists and maps of strings
	}
	return data
}

// ID names the action for people: compile linux/arm64.
func (a *Action) ID() string {
	id := a.Kind
	if a.Name != "" {
		id += " " + a.Name
	}
	if a.Platform != "" {
		id += " " + string(a.Platform)
	}
	return id
}

// A Plan is the actions of a build. Each comes after those it takes from.
type Plan struct {
	Roots     *Action         `json:"roots"`
	Platforms []*PlatformPlan `json:"platforms"`
}

// A PlatformPlan is the actions for one platform.
type PlatformPlan struct {
	Platform lock.Platform `json:"platform"`
	// Compile has an action for the programs of each layer.
	Compile []*Action `json:"compile"`
	// Flags reads derper's flags; nil for an image without derper.
	Flags      *Action `json:"flags,omitempty"`
	Entrypoint *Action `json:"entrypoint"`
	// Layers are lowest first.
	Layers []*Action `json:"layers"`
	// Attestation states what the layers hold, and how they were made.
	Attestation *Action `json:"attestation"`
}

// Actions lists all actions in an order in which they can run.
func (p *Plan) Actions() []*Action {
	list := []*Action{p.Roots}
	for _, pp := range p.Platforms {
		list = append(list, pp.Actions()...)
	}
	return list
}

// Actions lists the platform's actions in an order in which they can run.
func (p *PlatformPlan) Actions() []*Action {
	list := p.Programs()
	if p.Flags != nil {
		list = append(list, p.Flags)
	}
	return slices.Concat(list, p.Layers, []*Action{p.Attestation})
}

// Programs lists the actions that make programs.
func (p *PlatformPlan) Programs() []*Action { return append(slices.Clone(p.Compile), p.Entrypoint) }

// Compiled is the action that compiles the programs of a layer, and those that compile what
// is in the layers below it.
func (p *PlatformPlan) Compiled(layer string) (compile *Action, below []*Action) {
	i := slices.IndexFunc(p.Compile, func(a *Action) bool { return a.Name == layer })
	return p.Compile[i], p.Compile[:i] // only of a layer of programs
}

// Names of the image's parts, programs and layers, and of what an attestation has.
const (
	Derper     = "derper"
	Tailscaled = "tailscaled"
	Entrypoint = "entrypoint"
	Base       = "base"
	Files      = "files"
	Flags      = "flags.json"
	SBOM       = "sbom.json"
	Provenance = "provenance.json"
)

// Layers are the names of the layers of the first variant, lowest and least changing first.
func Layers(in lock.Inputs) []string {
	names := []string{Base}
	for _, programs := range in.Layers() {
		names = append(names, programs[0].Layer())
	}
	if names = append(names, Entrypoint); len(in.Variant().Files) > 0 {
		names = append(names, Files)
	}
	return names
}

// New plans the build of the lock's first variant for some of its platforms, on a host,
// one of [lock.Hosts].
func New(in lock.Inputs, sources Sources, platforms []lock.Platform, host string) (*Plan, error) {
	if err := sources.complete(); err != nil {
		return nil, err
	}
	return build(in, sources, platforms, host)
}

// Commands are the actions of a plan that run a command. Only what they run says something,
// and what it makes: they have no inputs that are sources, and so no keys.
func Commands(in lock.Inputs, platforms []lock.Platform, host string) ([]*Action, error) {
	p, err := build(in, nil, platforms, host)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(p.Actions(), func(a *Action) bool { return a.Args == nil }), nil
}

func build(in lock.Inputs, sources Sources, platforms []lock.Platform, host string) (*Plan, error) {
	if !slices.Contains(lock.Hosts, host) {
		return nil, fmt.Errorf("plan: no build on %s: the lock has toolchains for %v", host, lock.Hosts)
	}
	in, err := in.Of(in.Variant().Name)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	action := func(kind, name string, platform lock.Platform, inputs map[string]string) *Action {
		for _, name := range Code[kind] {
			inputs[name] = sources[name]
		}
		return &Action{Kind: kind, Name: name, Platform: platform, Inputs: inputs}
	}
	toolchain := func(a *Action, env, args []string, outputs ...string) *Action {
		a.Inputs[in.Go.Module(host).String()] = in.Go.Sums[host]
		a.Env, a.Args, a.Outputs = env, args, outputs
		return a
	}
	roots := toolchain(action("roots", "", "", map[string]string{lock.RootsModule + "@" + in.Roots.Version: in.Roots.Sum}),
		Settings(lock.Platform(host)), []string{"go", "build", "-trimpath", "-buildvcs=false", "."},
		"ca-certificates.crt", "left-out.txt", "LICENSE")
	p := &Plan{Roots: roots}
	for _, platform := range platforms {
		if !slices.Contains(in.Platforms, platform) {
			return nil, fmt.Errorf("plan: platform %s is not in the lock: it has %v", platform, in.Platforms)
		}
		env := Settings(platform)
		pp := &PlatformPlan{Platform: platform}
		for _, programs := range in.Layers() {
			var names []string
			for _, program := range programs {
				names = append(names, program.Name())
			}
			kind, inputs := "compile-own", map[string]string{}
			if from := in.SourceOf(programs[0]); !from.Own() {
				kind, inputs = "compile", map[string]string{from.Mod().String(): from.Sum}
			}
			compile := action(kind, programs[0].Layer(), platform, inputs)
			pp.Compile = append(pp.Compile, toolchain(compile, env, InstallArgs(in, programs...), names...))
			if kind == "compile" && slices.Contains(names, Derper) {
				// The program says which modules it is made of, and so where its source is.
				pp.Flags = action("flags", "", platform, map[string]string{"programs": compile.Result(), "version": in.Tailscale.Short()})
				pp.Flags.Outputs = []string{Flags}
			}
		}
		// No build ID: it depends on the go line of the go.mod, which is the
		// toolchain's here and this module's in a checkout. No HTTP/2: it asks derper and
		// is asked for its metrics, and a tenth of it would be for that.
		pp.Entrypoint = toolchain(action("entrypoint", "", platform, map[string]string{}),
			env, []string{"go", "build", "-trimpath", "-buildvcs=false", "-tags=nethttpomithttp2", "-ldflags=-s -w -buildid=", "./entrypoint"}, Entrypoint)
		for _, name := range Layers(in) {
			layer := action("layer", name, platform, map[string]string{
				"format": strconv.Itoa(in.Format), "time": in.Tailscale.Time.Format("2006-01-02T15:04:05Z"),
			})
			layer.Outputs = []string{name + ".tar.gz"}
			switch name {
			case Base:
				layer.Inputs["roots"] = roots.Result()
				layer.Inputs[licence] = sources[licence]
			case Entrypoint:
				layer.Inputs["program"] = pp.Entrypoint.Result()
				if pp.Flags != nil {
					layer.Inputs["flags"] = pp.Flags.Result()
				}
			case Files:
				layer.Inputs["files"] = digestOf(in.Variant().Files)
			default:
				// The notices are those of the modules that the programs link, which the
				// toolchain's package lists, without those that are in a layer below.
				for _, name := range []string{toolchainCode, modules} {
					layer.Inputs[name] = sources[name]
				}
				compile, below := pp.Compiled(name)
				layer.Inputs["programs"] = compile.Result()
				for _, b := range below {
					layer.Inputs["below "+b.Name] = b.Result()
				}
			}
			pp.Layers = append(pp.Layers, layer)
		}
		// All that the lock has of the platform's image is in its provenance.
		pp.Attestation = action("attestation", "", platform, map[string]string{"lock": digestOf(in.Image(platform))})
		pp.Attestation.Outputs = []string{SBOM, Provenance}
		for _, l := range pp.Layers {
			pp.Attestation.Inputs["layer "+l.Name] = l.Result()
		}
		p.Platforms = append(p.Platforms, pp)
	}
	return p, nil
}

// digestOf is the digest of a value's JSON.
func digestOf(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers, and a time that the lock checks
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(data))
}
