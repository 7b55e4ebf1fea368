package verify

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// compiledLimit is how much of compiled packages a cache of our own keeps for what
// is built next, in bytes. A platform of a release has about 1 GB.
const compiledLimit = 4 << 30

// build is what was rebuilt: images and their attestations, one for each platform.
type build struct {
	outputs []lock.PlatformOutput
	images  map[lock.Platform]*foundImage // in the form of what was found
	index   []byte                        // as another revision's program wrote it, nil for this one
}

// rebuild builds the platforms, a few at a time: between them, what a cache of our
// own has too much of is dropped.
func (j *job) rebuild(ctx context.Context) (*build, error) {
	b := &build{images: map[lock.Platform]*foundImage{}}
	builder := &pipeline.Builder{Inputs: j.inputs, Cache: j.Cache, Modules: j.Modules, Display: j.Display}
	step := max(1, len(j.build))
	if j.Fresh {
		step = toolchain.ThisMachine().Commands // as many as the builder compiles at once
	}
	for part := range slices.Chunk(j.build, step) {
		out, err := builder.Build(ctx, part)
		if err != nil {
			return nil, err
		}
		for i, p := range part {
			img, err := readImage(out.Images[i])
			if err == nil {
				img.stated, err = readAttestation(out.Attestations[i])
			}
			if err != nil {
				return nil, err
			}
			b.images[p] = img
		}
		b.outputs = append(b.outputs, out.Output.Platforms...)
		if j.Fresh {
			j.measure()
			if dir := filepath.Join(j.Cache.Dir(), "go-build"); size(dir) >= compiledLimit {
				if err := os.RemoveAll(dir); err != nil {
					return nil, err
				}
			}
		}
	}
	return b, nil
}

// index is the index as this program writes it, of the platforms that were rebuilt and of
// the others that were found. Of those it has what cannot be known without a rebuild:
// digests and sizes. missing are those that were found without an attestation.
func (j *job) index(b *build) (raw []byte, missing []lock.Platform, err error) {
	if b.index != nil {
		return b.index, nil, nil
	}
	var platforms []lock.Platform
	var images, attestations []v1.Descriptor
	left := slices.Clone(j.found.attestations)
	for _, p := range j.expected {
		img := b.images[p]
		if img == nil {
			i := slices.IndexFunc(j.found.images, func(img *foundImage) bool { return img.platform() == p })
			if i < 0 {
				continue
			}
			img = j.found.images[i]
		}
		stated := img.stated
		if stated == nil {
			i := slices.IndexFunc(left, func(a *foundAttestation) bool { return a.about == img.digest })
			if i < 0 {
				missing = append(missing, p)
				continue
			}
			stated = left[i]
			left = slices.Delete(left, i, i+1)
		}
		platforms = append(platforms, p)
		images = append(images, img.descriptor())
		attestations = append(attestations, stated.descriptor())
	}
	raw, err = image.RawIndex(j.inputs, platforms, images, attestations)
	return raw, missing, err
}

// measure looks how much the cache takes.
func (v *Verifier) measure() {
	v.disk = max(v.disk, size(v.Cache.Dir()))
}

// size is the size of all files in a folder, in bytes. What comes and goes meanwhile
// is not counted.
func size(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// drop drops the results that none of the coming jobs needs. The toolchain, modules
// and compiled packages stay for them.
func (v *Verifier) drop(coming []*job) error {
	if len(coming) == 0 {
		return nil // all of it goes soon
	}
	keep := map[string]bool{}
	for _, j := range coming {
		if j.subject.Err != nil || len(j.build) == 0 {
			continue
		}
		p, err := pipeline.Plan(j.inputs, j.build)
		if err != nil {
			return err
		}
		for _, a := range p.Actions() {
			keep[a.Key()] = true
		}
	}
	v.measure()
	_, err := v.Cache.Drop(func(key string) bool { return keep[key] })
	return err
}
