package attest

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// Media types of an attestation manifest and of the statements in it.
// Source: https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md.
const (
	embeddedType  = "application/vnd.docker.attestation.manifest.v1+json"
	statementType = "application/vnd.in-toto+json"
	predicateType = "in-toto.io/predicate-type"
)

// Embed makes the attestation manifest of an image, which stands beside it in the index:
// its SBOM and its provenance, unsigned, where docker buildx imagetools inspect, Docker
// Hub and scanners look for them. It names no builder and no run, so it is a part of
// what the lock determines, like the image: who rebuilds the image gets the same bytes.
func Embed(in lock.Inputs, sources plan.Sources, s Subject, inventory Inventory) (v1.Image, error) {
	return embed(in, sources, &content{subject: s, Inventory: inventory})
}

func embed(in lock.Inputs, sources plan.Sources, c *content) (v1.Image, error) {
	fail := func(err error) (v1.Image, error) {
		return nil, fmt.Errorf("attest: attestation of %s: %w", c.subject.Platform, err)
	}
	document, err := imageSBOM(in, c)
	if err != nil {
		return fail(err)
	}
	sbom, err := statement(SPDX, json.RawMessage(document), in, c.subject)
	if err != nil {
		return fail(err)
	}
	// Of this image alone: which others the lock has is no part of how it was made.
	in.Platforms = []lock.Platform{c.subject.Platform}
	made, err := provenance(in, sources, Run{}, []Subject{c.subject}, c)
	if err != nil {
		return fail(err)
	}
	embedded, err := Artifact(v1.Manifest{ArtifactType: embeddedType},
		Part{statementType, map[string]string{predicateType: SPDX}, sbom},
		Part{statementType, map[string]string{predicateType: SLSA}, made},
	)
	if err != nil {
		return fail(err)
	}
	return embedded, nil
}
