// Package lock reads, checks and writes versions.json, the lock: the file that
// names every input of the image by hash and records what came out.
//
// It promises that a lock that [Parse] returns is complete and well-formed, and
// that [Lock.Bytes] is canonical: the same lock gives the same bytes. It does not
// promise that the sums in it are true; whoever fetches an input checks that.
package lock

import (
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
)

// File is the lock's name in a checkout.
const File = "versions.json"

// SchemaVersion is the version of the lock's own format that this package reads and writes.
const SchemaVersion = 2

// Format is the form of the image that this program makes. A lock whose outputs are
// recorded gets it.
const Format = 3

// Lock is the content of versions.json.
type Lock struct {
	// Schema is the version of the file's own format, [SchemaVersion].
	Schema int `json:"schema"`
	// Inputs determines the image down to the last bit.
	Inputs Inputs `json:"inputs"`
	// Outputs is what a build of Inputs gave, by variant. It is nil in a lock whose
	// inputs have just changed and that was not built since.
	Outputs map[string]*Output `json:"outputs,omitempty"`
	// Published is the newest image of the release that was published; nil for none.
	Published *Published `json:"published,omitempty"`
	// Withdrawn are images that were published and withdrawn, and are not to be
	// published again: 1.102.3-r1, or v1.102.3 for all images of that release.
	Withdrawn []string `json:"withdrawn,omitempty"`
}

// Published is an image that was published: its revision, and the digest of its index
// by variant.
type Published struct {
	Revision int               `json:"revision"`
	Index    map[string]string `json:"index"`
}

// Inputs is everything that the image is made of, apart from the entrypoint,
// whose source is this repository's.
type Inputs struct {
	// Source is the address of the repository of the program that makes the image:
	// this project's, or a fork's. Labels and provenance name it.
	Source    string    `json:"source"`
	Tailscale Tailscale `json:"tailscale"`
	Go        Go        `json:"go"`
	Roots     Module    `json:"roots"`
	// Modules are those that programs come from besides tailscale's, sorted by path.
	Modules []Source `json:"modules,omitempty"`
	// Programs are those that the variants take theirs from.
	Programs []Program `json:"programs"`
	// Variants are the images that are made, the default one first.
	Variants []Variant `json:"variants"`
	// Platforms are those of the multi-arch index, in its order.
	Platforms []Platform `json:"platforms"`
	// Format is the form of the image: which files it has besides the programs, their
	// order, labels, statements. See [Format].
	Format int `json:"format"`
	// Revision is the number of the image among those of one release of tailscale, from
	// 0. The program sets it: see [Lock.Begin] and [Lock.Revise].
	Revision int `json:"revision"`
}

// Tailscale is the upstream release that derper and tailscaled are built from.
type Tailscale struct {
	// Version is the module version, as v1.102.3.
	Version string `json:"version"`
	// Commit is the git commit that Version's tag names, 40 hex digits.
	Commit string `json:"commit"`
	// Time is the commit time, UTC, as the module proxy gives it. Every time
	// stamp in the image is this one.
	Time time.Time `json:"time"`
	// Sum is the module zip's hash in go.sum's h1 form. The zip's own go.sum
	// pins every module below it.
	Sum string `json:"sum"`
}

// TailscaleModule is the path of the module that Tailscale.Version is one of.
const TailscaleModule = "tailscale.com"

// Short is the version without the v: 1.102.3.
func (t Tailscale) Short() string { return strings.TrimPrefix(t.Version, "v") }

// Long is the version as upstream's own release builds stamp it: the short one,
// -t, and the first nine digits of the commit.
func (t Tailscale) Long() string { return t.Short() + "-t" + t.Commit[:9] }

// Go is the toolchain that compiles everything.
type Go struct {
	// Version is the toolchain's name, as go1.26.8.
	Version string `json:"version"`
	// Sums has the h1 hash of module golang.org/toolchain for each platform
	// that a build can run on, in the form GOOS/GOARCH.
	Sums map[string]string `json:"sums"`
}

// Hosts are the platforms that a build can run on; Go.Sums has one entry for each.
var Hosts = []string{"darwin/amd64", "darwin/arm64", "linux/amd64", "linux/arm64"}

// Module is a Go module by version and h1 hash.
type Module struct {
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"` // only what an image claims has none
}

// RootsModule is the path of the module whose package bundle has the CA roots.
const RootsModule = "golang.org/x/crypto/x509roots/fallback"

// Output records, by digest, what a build of the inputs gave for one variant.
type Output struct {
	// Index is the digest of the image index over all platforms.
	Index string `json:"index"`
	// Platforms has one entry for each platform of the inputs, in that order.
	Platforms []PlatformOutput `json:"platforms"`
}

// PlatformOutput is what was built for one platform, from the inside out.
type PlatformOutput struct {
	Platform Platform `json:"platform"`
	// Binaries are the programs in the image, sorted by name.
	Binaries []Binary `json:"binaries"`
	// Layers are the image's layers, lowest first.
	Layers []Layer `json:"layers"`
	// Config and Manifest are the digests of those JSON documents.
	Config   string `json:"config"`
	Manifest string `json:"manifest"`
	// Attestation is the digest of the manifest with the image's SBOM and
	// provenance, which stands in the index beside the image.
	Attestation string `json:"attestation"`
}

// Binary is a program in the image.
type Binary struct {
	Name string `json:"name"`
	// Digest is the SHA-256 of the file, as sha256:<hex>.
	Digest string `json:"digest"`
}

// Layer is one layer of the image.
type Layer struct {
	Name string `json:"name"`
	// DiffID is the digest of the uncompressed tar, Digest that of the blob.
	DiffID string `json:"diffID"`
	Digest string `json:"digest"`
	// Bytes is the size of the blob, OnDisk that of the files in it; 0 in a lock that was
	// written before sizes were recorded.
	Bytes  int64 `json:"bytes,omitempty"`
	OnDisk int64 `json:"onDiskBytes,omitempty"`
}

// Sizes are what a pull of the image transfers of its layers, and what a container's root
// file system takes, in bytes; 0 if the lock does not record them.
func (p PlatformOutput) Sizes() (compressed, onDisk int64) {
	for _, l := range p.Layers {
		compressed, onDisk = compressed+l.Bytes, onDisk+l.OnDisk
	}
	return compressed, onDisk
}

// Of is the lock as far as it is about one variant.
func (l *Lock) Of(variant string) (*Lock, error) {
	in, err := l.Inputs.Of(variant)
	if err != nil {
		return nil, err
	}
	of := *l
	of.Inputs = in
	if l.Outputs != nil {
		of.Outputs = map[string]*Output{variant: l.Outputs[variant]}
	}
	return &of, nil
}

// Output is what is recorded of the first variant, nil for nothing.
func (l *Lock) Output() *Output { return l.Outputs[l.Inputs.Variant().Name] }

// Indexes are the digests of the indexes that are recorded, by variant.
func (l *Lock) Indexes() map[string]string {
	list := map[string]string{}
	for name, o := range l.Outputs {
		list[name] = o.Index
	}
	return list
}

// IsWithdrawn reports whether the lock's image was withdrawn: no build of it is to be
// published until there is another one.
//
// Before outputs are recorded, the revision is not known. A revision that was withdrawn and
// that the lock does not know to be published may be what they would give.
func (l *Lock) IsWithdrawn() bool {
	if l.Outputs != nil || slices.Contains(l.Withdrawn, l.Inputs.Tailscale.Version) {
		return l.Inputs.ImageVersion().In(l.Withdrawn)
	}
	return l.withdrawn() >= 0 && (l.Published == nil || l.withdrawn() > l.Published.Revision)
}

// withdrawn is the newest revision of the lock's release that was withdrawn, -1 for none.
func (l *Lock) withdrawn() int {
	newest := -1
	for _, w := range l.Withdrawn {
		if v, err := ParseImageVersion(w); err == nil && w == v.String() && v.Tailscale == l.Inputs.Tailscale.Version {
			newest = max(newest, v.Revision)
		}
	}
	return newest
}

// Begin prepares a lock for recording outputs: the newest format, and the revision of the
// image that was published, to be compared with it. A revision that was withdrawn was
// published, whatever the lock knows.
func (l *Lock) Begin() {
	l.Inputs.Format, l.Inputs.Revision = Format, l.withdrawn()+1
	if l.Published != nil {
		l.Inputs.Revision = l.Published.Revision
	}
}

// Revise makes the lock that of the next revision if its outputs are not what was
// published. The outputs must be rebuilt then: the revision is in them.
func (l *Lock) Revise() {
	if p := l.Published; p != nil && l.Inputs.Revision == p.Revision && !maps.Equal(p.Index, l.Indexes()) {
		l.Inputs.Revision = max(p.Revision, l.withdrawn()) + 1
	}
}

// Platform finds the recorded outputs for p.
func (o *Output) Platform(p Platform) (PlatformOutput, bool) {
	if o == nil {
		return PlatformOutput{}, false
	}
	for _, po := range o.Platforms {
		if po.Platform == p {
			return po, true
		}
	}
	return PlatformOutput{}, false
}

// ToolchainModule is the path of the module whose versions are Go toolchains.
const ToolchainModule = "golang.org/toolchain"

// Module is the toolchain for a host platform, GOOS/GOARCH, as a module.
// Source: https://go.dev/ref/mod#toolchains, golang.org/toolchain.
func (g Go) Module(host string) module.Version {
	return module.Version{
		Path:    ToolchainModule,
		Version: "v0.0.1-" + g.Version + "." + Platform(host).Slug(),
	}
}
