package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// assemble makes images of layers, their attestations, and the index of both. It reads
// no blob.
func (b *Builder) assemble(p *plan.Plan) (*Build, error) {
	out := &Build{Output: &lock.Output{}}
	for _, a := range p.Actions() {
		out.Runs = append(out.Runs, b.done[a].Run)
	}
	var platforms []lock.Platform
	for _, pp := range p.Platforms {
		layers := b.layers(pp)
		img, err := image.New(b.Inputs, pp.Platform, layers)
		if err != nil {
			return nil, err
		}
		digest, err := img.Digest()
		if about := b.result(pp.Attestation).Notes[noteManifest]; err == nil && about != digest.String() {
			err = fmt.Errorf("%s: is about %s, and the image is %s: a key does not cover what it should", pp.Attestation.ID(), about, digest)
		}
		if err != nil {
			return nil, err
		}
		var statements []attest.Blob
		for _, name := range []string{plan.SBOM, plan.Provenance} {
			blob := b.result(pp.Attestation).Blobs[name]
			digest, err := v1.NewHash(blob.Digest)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pp.Attestation.ID(), err)
			}
			statements = append(statements, attest.Blob{Digest: digest, Size: blob.Size, Open: b.Cache.Opener(blob)})
		}
		attestation, err := attest.Embed(statements[0], statements[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pp.Attestation.ID(), err)
		}
		record, err := b.outputs(pp, img, attestation, layers)
		if err != nil {
			return nil, err
		}
		figures, err := b.figures(pp, img, record)
		if err != nil {
			return nil, err
		}
		platforms = append(platforms, pp.Platform)
		out.Images = append(out.Images, img)
		out.Attestations = append(out.Attestations, attestation)
		out.Output.Platforms = append(out.Output.Platforms, record)
		out.Figures = append(out.Figures, figures)
	}
	index, err := image.Index(b.Inputs, platforms, out.Images, out.Attestations...)
	if err != nil {
		return nil, err
	}
	digest, err := index.Digest()
	out.Index, out.Output.Index = index, digest.String()
	return out, err
}

// outputs is what the lock records of a platform.
func (b *Builder) outputs(pp *plan.PlatformPlan, img, attestation v1.Image, layers []*image.Layer) (lock.PlatformOutput, error) {
	out := lock.PlatformOutput{Platform: pp.Platform}
	for _, a := range pp.Programs() {
		for name, blob := range b.result(a).Blobs {
			out.Binaries = append(out.Binaries, lock.Binary{Name: name, Digest: blob.Digest})
		}
	}
	slices.SortFunc(out.Binaries, func(a, b lock.Binary) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range layers {
		out.Layers = append(out.Layers, l.Layer)
	}
	config, cerr := img.ConfigName()
	manifest, merr := img.Digest()
	attested, aerr := attestation.Digest()
	out.Config, out.Manifest, out.Attestation = config.String(), manifest.String(), attested.String()
	return out, errors.Join(cerr, merr, aerr)
}

// figures counts what a platform's image takes and what was done for it.
func (b *Builder) figures(pp *plan.PlatformPlan, img v1.Image, record lock.PlatformOutput) (Figures, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return Figures{}, err
	}
	out := Figures{Platform: pp.Platform, Manifest: record.Manifest}
	out.Compressed, out.Uncompressed = record.Sizes()
	out.Compressed += manifest.Config.Size
	for _, a := range pp.Actions() {
		out.count(b.done[a].Run)
	}
	return out, nil
}
