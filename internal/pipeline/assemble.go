package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"golang.org/x/sync/errgroup"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// assemble makes images of layers, their attestations, and the index of both. It reads
// no layer.
func (b *Builder) assemble(ctx context.Context, p *plan.Plan, results []*parts) (*Build, error) {
	sources, err := Sources()
	if err != nil {
		return nil, err
	}
	n := len(p.Platforms)
	out := &Build{
		Images: make([]v1.Image, n), Attestations: make([]v1.Image, n), Platforms: make([]Platform, n),
		Outputs: &lock.Outputs{Platforms: make([]lock.PlatformOutput, n)}, Runs: b.sortedRuns(p),
	}
	platforms := make([]lock.Platform, n)
	g, _ := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for i, pp := range p.Platforms {
		platforms[i] = pp.Platform
		g.Go(func() error {
			layers := b.layers(pp, results[i])
			img, err := image.New(b.Inputs, pp.Platform, layers)
			if err != nil {
				return err
			}
			attestation, err := b.attestation(pp, sources, img, results[i])
			if err != nil {
				return err
			}
			out.Images[i], out.Attestations[i] = img, attestation
			if out.Outputs.Platforms[i], err = outputs(pp.Platform, img, attestation, layers, results[i]); err != nil {
				return err
			}
			out.Platforms[i], err = b.figures(pp, img, results[i], out.Runs)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	index, err := image.Index(b.Inputs, platforms, out.Images, out.Attestations...)
	if err != nil {
		return nil, err
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	out.Index, out.Outputs.Index = index, digest.String()
	return out, nil
}

// attestation is the manifest of an image's SBOM and provenance.
func (b *Builder) attestation(pp *plan.PlatformPlan, sources plan.Sources, img v1.Image, r *parts) (v1.Image, error) {
	file, err := b.Cache.Opener(r.inventory.Blobs[pp.Inventory.Outputs[0]])()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	var inventory attest.Inventory
	if err := json.Unmarshal(data, &inventory); err != nil {
		return nil, fmt.Errorf("%s: %w", pp.Inventory.ID(), err)
	}
	d, err := partial.Descriptor(img)
	if err != nil {
		return nil, err
	}
	return attest.Embed(b.Inputs, sources, attest.Subject{Platform: pp.Platform, Descriptor: *d}, inventory)
}

// outputs is what the lock records of a platform.
func outputs(platform lock.Platform, img, attestation v1.Image, layers []*image.Layer, r *parts) (lock.PlatformOutput, error) {
	out := lock.PlatformOutput{Platform: platform}
	for name, blob := range r.programs.Blobs {
		out.Binaries = append(out.Binaries, lock.Binary{Name: name, Digest: blob.Digest})
	}
	for name, blob := range r.entrypoint.Blobs {
		out.Binaries = append(out.Binaries, lock.Binary{Name: name, Digest: blob.Digest})
	}
	sort.Slice(out.Binaries, func(i, j int) bool { return out.Binaries[i].Name < out.Binaries[j].Name })
	for _, l := range layers {
		out.Layers = append(out.Layers, lock.Layer{Name: l.Name, DiffID: l.Tar, Digest: l.Blob})
	}
	config, err := img.ConfigName()
	if err != nil {
		return out, err
	}
	manifest, err := img.Digest()
	if err != nil {
		return out, err
	}
	attested, err := attestation.Digest()
	if err != nil {
		return out, err
	}
	out.Config, out.Manifest, out.Attestation = config.String(), manifest.String(), attested.String()
	return out, nil
}

// figures counts what a platform's image takes and what was done for it.
func (b *Builder) figures(pp *plan.PlatformPlan, img v1.Image, r *parts, runs []Run) (Platform, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return Platform{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return Platform{}, err
	}
	out := Platform{Platform: pp.Platform, Manifest: digest.String(), Compressed: manifest.Config.Size}
	for i, l := range manifest.Layers {
		out.Compressed += l.Size
		size, err := strconv.ParseInt(r.layers[i].Notes[noteSize], 10, 64)
		if err != nil {
			return Platform{}, fmt.Errorf("layer %s: size: %w", l.Digest, err)
		}
		out.Uncompressed += size
	}
	for _, run := range runs {
		if run.Action.Platform != pp.Platform {
			continue
		}
		name := run.Action.Kind
		if run.Action.Name != "" {
			name += " " + run.Action.Name
		}
		if run.Cached {
			out.Cached = append(out.Cached, name)
			continue
		}
		out.Built = append(out.Built, name)
		out.Seconds += run.Seconds
	}
	return out, nil
}
