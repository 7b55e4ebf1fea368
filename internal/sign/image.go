package sign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/registry"
)

// ErrReference says that what names an image is neither a layout nor a reference with a
// digest.
var ErrReference = errors.New("cannot be signed")

// An Image is an image to sign, and where it is.
type Image struct {
	Source       string
	Index        v1.ImageIndex
	Repositories []*registry.Repository
}

// OpenImage opens an image to sign: a layout, which was pushed to the repositories, or
// REPOSITORY@DIGEST, which is signed in these or, if there are none, where it is. keychain
// has the credentials for references.
func OpenImage(ctx context.Context, source string, repositories []string, keychain func(references []string) (authn.Keychain, error)) (*Image, error) {
	img := &Image{Source: source}
	var references []string
	var from v1.Descriptor
	if registry.IsPath(source) {
		var err error
		if img.Index, err = registry.OpenIndex(ctx, source); err != nil {
			return nil, err
		}
		if len(repositories) == 0 {
			repositories = registry.Default
		}
	} else {
		if err := registry.CheckReference(source); err != nil {
			return nil, err
		}
		repository, identifier, err := registry.Split(source)
		if err != nil {
			return nil, fmt.Errorf("%q %w: %w", source, ErrReference, err)
		}
		if from.Digest, err = v1.NewHash(identifier); err != nil {
			return nil, fmt.Errorf("%s names a tag, which may move, and %w", source, ErrReference)
		}
		if len(repositories) == 0 {
			repositories = []string{repository}
		}
		references = []string{source}
	}
	keys, err := keychain(append(references, repositories...))
	if err != nil {
		return nil, err
	}
	client := &registry.Client{Keychain: keys}
	for _, name := range repositories {
		r, err := client.Open(ctx, name, registry.Push)
		if err != nil {
			return nil, err
		}
		img.Repositories = append(img.Repositories, r)
	}
	if img.Index == nil {
		r, err := client.Open(ctx, source, registry.Pull)
		if err == nil {
			img.Index, err = image.IndexOf(ctx, r, from)
		}
		if err != nil {
			return nil, err
		}
	}
	return img, nil
}

// A Report is what was found about the signatures of an image in a registry.
type Report struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	// Variant is what the index says it is, which is signed with it: a tag could be moved to
	// another variant that is signed, too.
	Variant string `json:"variant,omitempty"`
	Signer  string `json:"signer"`
	// Verified is set if everything is signed that should be.
	Verified bool      `json:"verified"`
	Subjects []Checked `json:"subjects"`
}

// CheckReference is Check of the image that a reference names. Where the error is
// ErrUnverified, the report says what is not signed, and why.
func CheckReference(ctx context.Context, client *registry.Client, ref string, trust *Trust) (*Report, error) {
	report := &Report{Reference: ref, Signer: trust.String()}
	r, err := client.Open(ctx, ref, registry.Pull)
	var top v1.Descriptor
	if err == nil {
		top, err = r.Resolve(ctx)
	}
	var index v1.ImageIndex
	if err == nil {
		index, err = image.IndexOf(ctx, r, top)
	}
	if err == nil {
		report.Digest = top.Digest.String()
		report.Subjects, err = Check(ctx, r, index, trust)
		if list, lerr := index.IndexManifest(); lerr == nil {
			report.Variant = image.VariantOf(list.Annotations)
		}
	}
	report.Verified = err == nil
	return report, err
}

// Types are the types of statements, in the order of a table's columns.
func (*Report) Types() []string { return attest.Types }

// kinds are what people call the types of statements.
var kinds = map[string]string{attest.Signature: "signature", attest.SLSA: "provenance", attest.SPDX: "SBOM", attest.TestResult: "test results"}

// Reasons are why statements are refused: many for the same reason, which is said once.
func (r *Report) Reasons() (lines []string) {
	var reasons []string
	about := map[string][]string{}
	for _, s := range r.Subjects {
		for _, typ := range append(slices.Clone(attest.Types), attest.TestResult) {
			if why := s.Problems[typ]; why != "" {
				if about[why] == nil {
					reasons = append(reasons, why)
				}
				about[why] = append(about[why], kinds[typ]+" of "+cmp.Or(string(s.Platform), "index"))
			}
		}
	}
	for _, why := range reasons {
		what := about[why][0]
		if more := len(about[why]) - 1; more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
		lines = append(lines, what+": "+why)
	}
	return lines
}
