// Package size says what an image weighs: its layers, and in the programs in them each
// package that is linked, alone or beside another image.
//
// The image may be anybody's: what is read of it is bounded, and its programs are taken apart
// in a process with bounds.
package size

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// An Image is what an image of one platform weighs, or one program alone.
type Image struct {
	Source   string        `json:"source"`
	Platform lock.Platform `json:"platform,omitempty"`
	// Bytes is what a pull transfers of the layers, OnDisk what their files take.
	Bytes  int64   `json:"bytes"`
	OnDisk int64   `json:"onDiskBytes"`
	Layers []Layer `json:"layers,omitempty"`

	programs []*gobinary.Weight
}

// A Layer is what a layer weighs.
type Layer struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	OnDisk int64  `json:"onDiskBytes"`
}

// Limits of what is taken apart of an image.
const (
	maxLayers   = 64
	maxPrograms = 256
)

// Read weighs what source names: an OCI layout, an archive of one, a reference in a registry,
// or, by a path, a program.
func Read(ctx context.Context, source string, keychain authn.Keychain, p lock.Platform) (*Image, error) {
	if registry.IsPath(source) && isProgram(source) {
		return readProgram(ctx, source)
	}
	images, err := container.Open(ctx, source, keychain, v1.Platform{OS: p.OS(), Architecture: p.Arch(), Variant: p.Variant()})
	if err != nil {
		return nil, err
	}
	i := &Image{Source: source, Platform: p}
	if err := i.read(ctx, images[0]); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", source, p, err)
	}
	return i, nil
}

// isProgram reports whether a file is an ELF file.
func isProgram(name string) bool {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == "\x7fELF"
}

func readProgram(ctx context.Context, name string) (*Image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w, err := gobinary.Weigh(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Image{Source: name, Bytes: w.Bytes, OnDisk: w.Bytes, programs: []*gobinary.Weight{w}}, nil
}

func (i *Image) read(ctx context.Context, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) > maxLayers {
		return fmt.Errorf("has %d layers, more than %d: %w", len(layers), maxLayers, image.ErrForeign)
	}
	names := layerNames(img, len(layers))
	budget := new(diff.Budget)
	for n, l := range layers {
		blob, err := l.Compressed()
		if err != nil {
			return fmt.Errorf("layer %s: %w", names[n], err)
		}
		content, err := diff.ReadLayer(ctx, blob, budget)
		blob.Close()
		if err == nil && content.Damage != "" {
			err = fmt.Errorf("%s: %w", content.Damage, image.ErrCorrupt)
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w", names[n], err)
		}
		layer := Layer{Name: names[n], Bytes: content.Size}
		seen := map[string]int{}
		for _, e := range content.Entries {
			layer.OnDisk += e.Size
			if e.Program() {
				if err := i.weigh(ctx, l, e, seen[e.Name]); err != nil {
					return fmt.Errorf("layer %s: %s: %w", names[n], diff.Printable(e.Name), err)
				}
			}
			seen[e.Name]++
		}
		i.Layers = append(i.Layers, layer)
		i.Bytes, i.OnDisk = i.Bytes+layer.Bytes, i.OnDisk+layer.OnDisk
	}
	return nil
}

// weigh weighs the nth file of this name in a layer.
func (i *Image) weigh(ctx context.Context, l v1.Layer, e diff.Entry, nth int) error {
	if len(i.programs) == maxPrograms {
		return fmt.Errorf("more than %d programs: %w", maxPrograms, image.ErrForeign)
	}
	blob, err := l.Compressed()
	if err != nil {
		return err
	}
	r, err := diff.FileIn(blob, e.Name, nth)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := gobinary.Weigh(ctx, r)
	if err == nil {
		i.programs = append(i.programs, w)
	}
	return err
}

// layerNames are the names that this project's images give to their layers in the config's
// history; those of other images have numbers.
func layerNames(img v1.Image, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(i + 1)
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return names
	}
	config, err := image.ParseConfig(raw)
	if err != nil || len(config.History) != n {
		return names
	}
	for i, h := range config.History {
		if name, ok := strings.CutPrefix(h.CreatedBy, image.LayerHistory); ok && len(name) < 64 {
			names[i] = diff.Printable(name)
		}
	}
	return names
}

// A Report is what an image weighs, beside another or alone.
type Report struct {
	Image    *Image    `json:"image"`
	Against  *Image    `json:"against,omitempty"`
	Programs []Program `json:"programs"`
}

// A Program is what a program of the image, or of the other one, weighs, and what it weighed.
type Program struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Before int64  `json:"beforeBytes,omitempty"`
	// Parts are the packages or modules, and sections: the heaviest first, or the largest
	// growth. More of them are left out.
	Parts []gobinary.Change `json:"parts"`
	More  int               `json:"more,omitempty"`
}

// Options of a report.
type Options struct {
	Modules bool // add up packages by module
	Top     int  // so many parts of each program; 0 for all
}

// New makes the report of an image, beside another unless that is nil: then it has the parts
// whose weight is another.
func New(now, against *Image, o Options) *Report {
	r := &Report{Image: now, Against: against}
	before := &Image{}
	if against != nil {
		before = against
	}
	parts := func(w *gobinary.Weight) []gobinary.Component {
		if o.Modules {
			return gobinary.ByModule(w.Parts)
		}
		return w.Parts
	}
	add := func(was, is *gobinary.Weight) {
		p := Program{Name: is.Name, Bytes: is.Bytes, Before: was.Bytes, Parts: gobinary.Changes(parts(was), parts(is))}
		if p.Name == "" {
			p.Name = was.Name
		}
		if o.Top > 0 && len(p.Parts) > o.Top {
			p.Parts, p.More = p.Parts[:o.Top], len(p.Parts)-o.Top
		}
		r.Programs = append(r.Programs, p)
	}
	none := new(gobinary.Weight)
	for _, w := range now.programs {
		was := none
		if n := slices.IndexFunc(before.programs, func(b *gobinary.Weight) bool { return b.Name == w.Name }); n >= 0 {
			was = before.programs[n]
		}
		add(was, w)
	}
	if len(now.Layers) == 0 {
		return r // a program beside those of an image
	}
	for _, b := range before.programs {
		if !slices.ContainsFunc(now.programs, func(w *gobinary.Weight) bool { return w.Name == b.Name }) {
			add(b, none)
		}
	}
	return r
}

// Layer is what the layer of a name weighs; nothing if there is none.
func (i *Image) Layer(name string) Layer {
	for _, l := range i.Layers {
		if l.Name == name {
			return l
		}
	}
	return Layer{}
}
