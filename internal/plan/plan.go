// Package plan says what a build does: it turns a lock and a list of platforms
// into actions, without doing anything.
//
// It promises to be pure: the same lock, platforms and host give the same actions
// with the same keys. An action's key covers everything that can change what the
// action makes, and nothing else: no path, no time, nothing of the environment.
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
	// Kind is what is done: roots, compile, entrypoint, layer or attestation.
	Kind string `json:"kind"`
	// Name tells actions of a kind apart, as the layer's name.
	Name string `json:"name,omitempty"`
	// Platform is what it is done for; empty for all.
	Platform lock.Platform `json:"platform,omitempty"`
	// Inputs are what goes in, by digest: h1:… for a module, sha256:… for
	// sources of this project, action:… for what another action makes.
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

// Sources are what of this project goes into the image, by digest, sha256:….
type Sources struct {
	Entrypoint string // the entrypoint's source
	Roots      string // the source of the program that writes the CA roots
	Licence    string // this project's licence
	Etc        string // /etc/passwd and the like, which stand in this program
	Encoder    string // what this program's tar and gzip make of a sample
	// Attestation is what this program states about a sample.
	Attestation string
}

// A Plan is the actions of a build. Each comes after those it takes from.
type Plan struct {
	Roots     *Action         `json:"roots"`
	Platforms []*PlatformPlan `json:"platforms"`
}

// A PlatformPlan is the actions for one platform.
type PlatformPlan struct {
	Platform   lock.Platform `json:"platform"`
	Compile    *Action       `json:"compile"`
	Entrypoint *Action       `json:"entrypoint"`
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
	return slices.Concat([]*Action{p.Compile, p.Entrypoint}, p.Layers, []*Action{p.Attestation})
}

// Names of the image's parts, programs and layers, and of what an attestation has.
const (
	Derper     = "derper"
	Tailscaled = "tailscaled"
	Entrypoint = "entrypoint"
	Base       = "base"
	SBOM       = "sbom.json"
	Provenance = "provenance.json"
)

// Layers are the names of the layers, lowest and least changing first.
var Layers = []string{Base, Tailscaled, Derper, Entrypoint}

// New plans the build of some platforms of the lock on a host, one of
// [lock.Hosts].
func New(in lock.Inputs, sources Sources, platforms []lock.Platform, host string) (*Plan, error) {
	if !slices.Contains(lock.Hosts, host) {
		return nil, fmt.Errorf("plan: no build on %s: the lock has toolchains for %v", host, lock.Hosts)
	}
	with := func(more map[string]string) map[string]string {
		more[in.Go.Module(host).String()] = in.Go.Sums[host]
		return more
	}
	roots := &Action{
		Kind: "roots",
		Inputs: with(map[string]string{
			lock.RootsModule + "@" + in.Roots.Version: in.Roots.Sum,
			"generator": sources.Roots,
		}),
		Env:     Settings(lock.Platform(host)),
		Args:    []string{"go", "build", "-trimpath", "-buildvcs=false", "."},
		Outputs: []string{"ca-certificates.crt", "left-out.txt", "LICENSE"},
	}
	p := &Plan{Roots: roots}
	for _, platform := range platforms {
		if !slices.Contains(in.Platforms, platform) {
			return nil, fmt.Errorf("plan: platform %s is not in the lock: it has %v", platform, in.Platforms)
		}
		env := Settings(platform)
		pp := &PlatformPlan{
			Platform: platform,
			Compile: &Action{
				Kind:     "compile",
				Platform: platform,
				Inputs:   with(map[string]string{lock.TailscaleModule + "@" + in.Tailscale.Version: in.Tailscale.Sum}),
				Env:      env,
				Args:     InstallArgs(in.Tailscale, Derper, Tailscaled),
				Outputs:  []string{Derper, Tailscaled},
			},
			Entrypoint: &Action{
				Kind:     "entrypoint",
				Platform: platform,
				Inputs:   with(map[string]string{"source": sources.Entrypoint}),
				Env:      env,
				// No build ID: it depends on the go line of the go.mod, which is
				// the toolchain's here and this module's in a checkout.
				Args:    []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "./entrypoint"},
				Outputs: []string{Entrypoint},
			},
		}
		for _, name := range Layers {
			layer := &Action{
				Kind:     "layer",
				Name:     name,
				Platform: platform,
				Inputs: map[string]string{
					"format":  strconv.Itoa(in.LayerFormat),
					"encoder": sources.Encoder,
					"time":    in.Tailscale.Time.Format("2006-01-02T15:04:05Z"),
				},
				Outputs: []string{name + ".tar.gz"},
			}
			switch name {
			case Base:
				layer.Inputs["roots"] = roots.Result()
				// The notices are those of the modules that the programs link.
				layer.Inputs["programs"] = pp.Compile.Result()
				layer.Inputs["etc"] = sources.Etc
				layer.Inputs["licence"] = sources.Licence
			case Entrypoint:
				layer.Inputs[name] = pp.Entrypoint.Result()
			default:
				layer.Inputs[name] = pp.Compile.Result()
			}
			pp.Layers = append(pp.Layers, layer)
		}
		pp.Attestation = &Action{
			Kind:     "attestation",
			Platform: platform,
			Inputs:   map[string]string{"statements": sources.Attestation, "lock": lockDigest(in, platform)},
			Outputs:  []string{SBOM, Provenance},
		}
		for _, l := range pp.Layers {
			pp.Attestation.Inputs["layer "+l.Name] = l.Result()
		}
		p.Platforms = append(p.Platforms, pp)
	}
	return p, nil
}

// lockDigest is the digest of what the lock has as inputs of one platform. All of it stands
// in the platform's provenance.
func lockDigest(in lock.Inputs, platform lock.Platform) string {
	in.Platforms = []lock.Platform{platform}
	data, err := json.Marshal(in)
	if err != nil {
		panic(err) // strings, numbers, and a time that the lock checks
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(data))
}
