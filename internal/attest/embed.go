package attest

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// Media types of an attestation manifest and of the statements in it.
// Source: https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md.
const (
	embeddedType  = image.AttestationType
	statementType = "application/vnd.in-toto+json"
	predicateType = "in-toto.io/predicate-type"
)

// Image states what is in an image and how it was made, by itself: its SBOM and its
// provenance as in-toto statements. They name no builder and no run, so they are a part of
// what the lock determines, like the image: who rebuilds the image gets the same bytes.
func Image(ctx context.Context, in lock.Inputs, platform lock.Platform, img v1.Image) (sbom, made []byte, err error) {
	c, err := readContent(ctx, in, img, platform)
	if err == nil {
		_, sbom, made, err = c.state(in)
	}
	if err != nil {
		digest, _ := img.Digest()
		return nil, nil, fmt.Errorf("attest: %s %s: %w", platform, digest, err)
	}
	return sbom, made, nil
}

// state makes the image's SBOM and the statements of Image.
func (c *content) state(in lock.Inputs) (document, sbom, made []byte, err error) {
	if document, err = imageSBOM(in, c); err == nil {
		sbom, err = statement(SPDX, json.RawMessage(document), in, c.subject)
	}
	if err == nil {
		// Of this image alone: which others the lock has is no part of how it was made.
		in.Platforms = []lock.Platform{c.subject.Platform}
		made, err = provenance(in, Run{}, []Subject{c.subject}, c)
	}
	return document, sbom, made, err
}

// Embed makes the attestation manifest of an image, which stands beside it in the index:
// the statements of [Image], unsigned, where docker buildx imagetools inspect looks for
// them.
func Embed(sbom, made Blob) (v1.Image, error) {
	return Artifact(v1.Manifest{ArtifactType: embeddedType},
		Part{statementType, map[string]string{predicateType: SPDX}, sbom},
		Part{statementType, map[string]string{predicateType: SLSA}, made},
	)
}

// embedded is the SBOM of an image, and the digest of its attestation manifest.
func (c *content) embedded(in lock.Inputs) (document []byte, digest string, err error) {
	document, sbom, made, err := c.state(in)
	if err != nil {
		return nil, "", err
	}
	attestation, err := Embed(Bytes(sbom), Bytes(made))
	if err != nil {
		return nil, "", err
	}
	hash, err := attestation.Digest()
	return document, hash.String(), err
}
