// Package attest says of an image what is in it and how it was made: an SPDX SBOM for each
// platform, and SLSA provenance, as in-toto statements.
//
// It promises that what it states was read out of the image: files from the layers,
// modules from the build information that the Go linker left in each program. An image
// that is not what its lock records is refused. The same image, lock and [Run] give the
// same bytes, wherever and whenever they are made.
//
// What names no [Run] is in the index itself, beside the images: see [Embed]. Package sign
// signs the rest and attaches it.
//
// Specifications: https://spdx.github.io/spdx-spec/v2.3, https://slsa.dev/spec/v1.0,
// https://github.com/in-toto/attestation.
package attest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// Types of predicates, as in the predicateType of a statement.
const (
	// Signature is cosign's: the digest is signed, and nothing more is said.
	Signature = "https://sigstore.dev/cosign/sign/v1"
	// SLSA is provenance, https://slsa.dev/spec/v1.0/provenance.
	SLSA = "https://slsa.dev/provenance/v1"
	// SPDX is an SBOM.
	SPDX = "https://spdx.dev/Document"
	// VEX is an OpenVEX document, as cosign names its type.
	VEX = "https://openvex.dev/ns"
)

// Types are what a signed image has on its index and on each of its manifests.
var Types = []string{Signature, SLSA, SPDX}

// A Build is what is attested: an image of the lock, of the variant that its index says it
// is of.
type Build struct {
	Lock  *lock.Lock
	Index v1.ImageIndex
	Run   Run
}

// A Run says who built the image. All of it is optional, and without it the provenance
// is the same for everybody.
type Run struct {
	// Builder is the URI of what ran the build, such as a workflow's.
	Builder string
	// Source is the git repository of this project's source, as a URI without
	// git+ in front, and Commit the commit that was built, 40 hex digits.
	Source, Commit string
	// Invocation is the URI of this very run.
	Invocation string
}

// A Subject is something that statements are about: the index, or an image in it.
type Subject struct {
	// Platform is empty for the index.
	Platform   lock.Platform
	Descriptor v1.Descriptor
}

// name is the subject's name in statements: derper:1.102.3-r1 linux/amd64. It has the
// variant that is not the default one by its name: the suffix is no part of the image.
func (s Subject) name(in lock.Inputs) string {
	name := "derper:" + in.Version()
	if v := in.Variant().Name; v != lock.Default {
		name += " " + v
	}
	if s.Platform != "" {
		name += " " + string(s.Platform)
	}
	return name
}

// A Set is everything that is stated about an image.
type Set struct {
	// Subjects are the index and then its images, in its order.
	Subjects []Subject
	// Provenance is an in-toto statement about all of them.
	Provenance []byte
	// SBOMs are SPDX documents, one for each of Subjects.
	SBOMs [][]byte

	inputs lock.Inputs
}

// Variant is the variant of the image.
func (s *Set) Variant() lock.Variant { return s.inputs.Variant() }

// Make makes the statements about an image. It reads all layers, one image for each
// core at a time.
func Make(ctx context.Context, b Build) (*Set, error) {
	subjects, err := Subjects(b.Index)
	if err != nil {
		return nil, err
	}
	if b.Lock, err = claimed(b.Lock, b.Index); err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	in := b.Lock.Inputs
	set := &Set{Subjects: subjects, inputs: in, SBOMs: make([][]byte, len(subjects))}
	contents := make([]*content, len(subjects)-1)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for i, s := range subjects[1:] {
		g.Go(func() error {
			img, err := b.Index.Image(s.Descriptor.Digest)
			if err == nil {
				contents[i], err = readContent(ctx, in, img, s.Platform)
			}
			if err == nil {
				set.SBOMs[i+1], contents[i].outputs.Attestation, err = contents[i].embedded(in)
			}
			if err != nil {
				return fmt.Errorf("attest: %s %s: %w", s.Platform, s.Descriptor.Digest, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := compare(b.Lock, b.Index, subjects[0], contents); err != nil {
		return nil, err
	}
	if set.SBOMs[0], err = indexSBOM(in, subjects, set.SBOMs); err != nil {
		return nil, fmt.Errorf("attest: SBOM of the index: %w", err)
	}
	if set.Provenance, err = provenance(in, b.Run, subjects, contents...); err != nil {
		return nil, fmt.Errorf("attest: provenance: %w", err)
	}
	return set, nil
}

// Subjects lists an index and its images.
func Subjects(index v1.ImageIndex) ([]Subject, error) {
	top, terr := partial.Descriptor(index)
	m, err := index.IndexManifest()
	if err := cmp.Or(terr, err); err != nil {
		return nil, fmt.Errorf("attest: index: %w", err)
	}
	digest := top.Digest
	list := []Subject{{Descriptor: v1.Descriptor{MediaType: types.OCIImageIndex, Digest: digest, Size: top.Size}}}
	for _, d := range m.Manifests {
		if _, ok := image.Attests(d, m.Manifests); ok {
			continue
		}
		if d.MediaType != types.OCIManifestSchema1 || d.Platform == nil {
			return nil, fmt.Errorf("attest: index %s: %s is no image of a platform", digest, d.Digest)
		}
		platform, err := lock.ParsePlatform(string(image.PlatformOf(*d.Platform)))
		if err != nil {
			return nil, fmt.Errorf("attest: index %s: %w", digest, err)
		}
		list = append(list, Subject{platform, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}})
	}
	if len(list) == 1 {
		return nil, fmt.Errorf("attest: index %s: no image", digest)
	}
	return list, nil
}

// claimed is the lock as far as it is about the variant that an index says it is of.
func claimed(l *lock.Lock, index v1.ImageIndex) (*lock.Lock, error) {
	list, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return image.Claimed(l, list)
}

// Recorded refuses an index that is not the one that the lock records of the variant that
// the index says it is of, and a lock that records none: nothing is said of an image that is
// not on record. The error is lock.ErrNoOutputs, a *lock.Difference or image.ErrForeign.
func Recorded(l *lock.Lock, index v1.ImageIndex) error {
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if l, err = claimed(l, index); err != nil {
		return err
	}
	switch out := l.Output(); {
	case out == nil:
		return lock.ErrNoOutputs
	case out.Index != digest.String():
		return &lock.Difference{What: "index", Locked: out.Index, Built: digest.String()}
	}
	return nil
}

// compare refuses an image that the lock does not stand for: with layers that no build
// makes, or with programs that were not compiled from what the lock names.
func compare(l *lock.Lock, index v1.ImageIndex, subject Subject, contents []*content) error {
	m, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("attest: index: %w", err)
	}
	in := l.Inputs
	want := image.Annotations(in)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if m.Annotations[name] != want[name] {
			return fmt.Errorf("attest: the index has %s %s, the lock has %s", name, m.Annotations[name], want[name])
		}
	}
	embedded := map[string]string{}
	for _, d := range m.Manifests {
		if about, ok := image.Attests(d, m.Manifests); ok {
			embedded[about] = d.Digest.String()
		}
	}
	built := &lock.Output{Index: subject.Descriptor.Digest.String()}
	for _, c := range contents {
		if n, want := len(c.outputs.Layers), len(plan.Layers(in)); n != want {
			return fmt.Errorf("attest: %s: has %d layers, not %d", c.subject.Platform, n, want)
		}
		for _, f := range c.files {
			if f.info == nil {
				continue
			}
			if f.info.GoVersion != in.Go.Version {
				return fmt.Errorf("attest: %s: %s is compiled with %s, the lock has %s", c.subject.Platform, f.name, f.info.GoVersion, in.Go.Version)
			}
			for _, s := range in.Sources() {
				if m := f.info.Main; m.Path == s.Path && (m.Version != s.Module.Version || m.Sum != s.Sum) {
					return fmt.Errorf("attest: %s: %s is compiled from %s %s, the lock has %s %s",
						c.subject.Platform, f.name, m.Version, m.Sum, s.Module.Version, s.Sum)
				}
			}
		}
		if has := embedded[c.outputs.Manifest]; has != c.outputs.Attestation {
			return fmt.Errorf("attest: %s: the index has the attestation %s, the image is %s", c.subject.Platform, cmp.Or(has, "none"), c.outputs.Attestation)
		}
		built.Platforms = append(built.Platforms, c.outputs)
	}
	if err := l.Compare(in.Variant().Name, built); err != nil && !errors.Is(err, lock.ErrNoOutputs) {
		return fmt.Errorf("attest: %w", err)
	}
	return nil
}

// A Statement is what is signed, and what its signature is attached to.
type Statement struct {
	// Type is one of Types.
	Type string
	// Payload is an in-toto statement.
	Payload  []byte
	Subjects []Subject
}

// Statements lists what is to be signed: for each subject its digest and its SBOM,
// and the provenance once for all.
func (s *Set) Statements() ([]Statement, error) {
	var list []Statement
	for i, subject := range s.Subjects {
		for _, made := range []struct {
			typ       string
			predicate json.RawMessage
		}{{Signature, json.RawMessage("{}")}, {SPDX, s.SBOMs[i]}} {
			payload, err := statement(made.typ, made.predicate, s.inputs, subject)
			if err != nil {
				return nil, err
			}
			list = append(list, Statement{made.typ, payload, []Subject{subject}})
		}
	}
	return append(list, Statement{SLSA, s.Provenance, s.Subjects}), nil
}

// About is a statement of one of Types or of VEX, attached to each of the subjects that it is
// about. The predicate is JSON.
func About(typ string, predicate []byte, in lock.Inputs, about ...Subject) (Statement, error) {
	payload, err := statement(typ, json.RawMessage(predicate), in, about...)
	return Statement{typ, payload, about}, err
}

// inToto is an in-toto statement, v1.
// Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md.
type inToto struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     any        `json:"predicate"`
}

// resource is an in-toto resource descriptor.
type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`

	Annotations map[string]string `json:"annotations,omitempty"`
}

func statement(typ string, predicate any, in lock.Inputs, about ...Subject) ([]byte, error) {
	s := inToto{Type: "https://in-toto.io/Statement/v1", PredicateType: typ, Predicate: predicate}
	for _, subject := range about {
		digest := subject.Descriptor.Digest
		s.Subject = append(s.Subject, resource{Name: subject.name(in), Digest: map[string]string{digest.Algorithm: digest.Hex}})
	}
	return encode(s, "")
}

// parse reads the predicate of a statement of this type.
func parse(data []byte, typ string, predicate any) error {
	s := inToto{Predicate: predicate}
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	if s.PredicateType != typ {
		return fmt.Errorf("type %q is not %q", s.PredicateType, typ)
	}
	return nil
}

// encode is JSON with keys in the order of the structs, maps sorted. Without an indent it
// is one line, and has no end of line.
func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	if indent == "" {
		return bytes.TrimSpace(b.Bytes()), err
	}
	return b.Bytes(), err
}
