package attest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
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

// Image states what is in an image and how it was made, by itself: its SBOM and its
// provenance as in-toto statements. They name no builder and no run, so they are a part of
// what the lock determines, like the image: who rebuilds the image gets the same bytes.
func Image(ctx context.Context, in lock.Inputs, sources plan.Sources, platform lock.Platform, img v1.Image) (sbom, made []byte, err error) {
	c, err := readContent(ctx, img, platform)
	if err == nil {
		_, sbom, made, err = c.state(in, sources)
	}
	if err != nil {
		digest, _ := img.Digest()
		return nil, nil, fmt.Errorf("attest: %s %s: %w", platform, digest, err)
	}
	return sbom, made, nil
}

// state makes the image's SBOM and the statements of Image.
func (c *content) state(in lock.Inputs, sources plan.Sources) (document, sbom, made []byte, err error) {
	if document, err = imageSBOM(in, c); err == nil {
		sbom, err = statement(SPDX, json.RawMessage(document), in, c.subject)
	}
	if err == nil {
		// Of this image alone: which others the lock has is no part of how it was made.
		in.Platforms = []lock.Platform{c.subject.Platform}
		made, err = provenance(in, sources, Run{}, []Subject{c.subject}, c)
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
func (c *content) embedded(in lock.Inputs, sources plan.Sources) (document []byte, digest string, err error) {
	document, sbom, made, err := c.state(in, sources)
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

// Sample is the digest of what this program states about a sample: of two programs that
// would state something else about the same layers, or make another image of them, each
// has its own.
func Sample() (string, error) {
	h1 := "h1:" + base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))
	in := lock.Inputs{
		Tailscale: lock.Tailscale{Version: "v1.2.3", Commit: strings.Repeat("0123456789", 4), Time: time.Unix(1<<30, 0).UTC(), Sum: h1},
		Go:        lock.Go{Version: "go1.2.3", Sums: map[string]string{Host: h1}}, Roots: lock.Module{Version: "v0.1.0", Sum: h1},
		Platforms: []lock.Platform{"linux/amd64"}, LayerFormat: lock.LayerFormat,
	}
	var blob bytes.Buffer
	diffID, err := image.WriteLayer(&blob, []image.File{image.Text(caBundle, ""), image.Text(leftOut, "")}, in.Tailscale.Time)
	if err != nil {
		return "", err
	}
	layer := Bytes(blob.Bytes())
	img, err := image.New(in, "linux/amd64", []*image.Layer{{Layer: lock.Layer{Name: "sample", DiffID: diffID, Digest: layer.Digest.String()}, Bytes: layer.Size, Open: layer.Open}})
	if err != nil {
		return "", err
	}
	c, err := readContent(context.Background(), img, "linux/amd64")
	if err != nil {
		return "", err
	}
	// No notice is read: to get ready for the first takes a second. Who reads them is named.
	notice := &file{name: licenceDir + lock.RootsModule + "@v0.1.0/LICENSE", licences: []string{checker}}
	c.files = append(c.files, notice, &file{name: "usr/local/bin/sample", info: &debug.BuildInfo{
		GoVersion: in.Go.Version,
		Main:      debug.Module{Path: lock.TailscaleModule, Version: in.Tailscale.Version, Sum: h1},
		Deps:      []*debug.Module{{Path: "example.com/Sample", Version: "v1.0.0", Sum: h1}},
	}})
	_, digest, err := c.embedded(in, plan.Sources{})
	return digest, err
}
