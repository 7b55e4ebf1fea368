package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pullers are the programs that pull, with how each chooses the entry of an index for a
// platform. It gives the digest, "" for none.
var pullers = []struct {
	name   string
	choose func(index []byte, p v1.Platform) (string, error)
}{
	{"containerd", containerdChoice},
	{"Docker", dockerChoice},
	{"go-containerregistry", registryChoice},
}

// pulled checks that who pulls an image by its platform gets it, and no other entry.
func pulled(index []byte, img *foundImage) Check {
	c := Check{Level: LevelIndex, Name: "pull", Result: Pass, Rebuilt: img.digest, Image: img.digest}
	p := img.platform()
	var same, wrong []string
	for _, puller := range pullers {
		digest, err := puller.choose(index, v1.Platform{OS: p.OS(), Architecture: p.Arch(), Variant: p.Variant()})
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("%s cannot read the index: %v", puller.name, err))
		case digest == "":
			wrong = append(wrong, puller.name+" gets no image")
		case digest != img.digest:
			wrong = append(wrong, puller.name+" gets "+digest)
			c.Image = digest
		default:
			same = append(same, puller.name)
		}
	}
	c.Note = join(same) + " select this image"
	if len(wrong) > 0 {
		c.Result, c.Details = Fail, wrong
		c.Note = fmt.Sprintf("pulling %s does not give %s: %s", img.name, img.digest, strings.Join(wrong, ", "))
	}
	return c
}

// containerdChoice is the choice of containerd, and of a Docker that keeps images in it.
// Source: Manifest in
// https://github.com/containerd/containerd/blob/v2.2.0/core/images/image.go.
func containerdChoice(index []byte, p v1.Platform) (string, error) {
	var m ocispec.Index
	err := json.Unmarshal(index, &m)
	return bestMatch(m.Manifests, p), err
}

// dockerChoice is the choice of a Docker with its own store. A platform without anything in
// it is none there.
// Source: filterManifests and toOCIPlatform in
// https://github.com/moby/moby/blob/v28.5.0/distribution/pull_v2.go.
func dockerChoice(index []byte, p v1.Platform) (string, error) {
	var m ocispec.Index
	err := json.Unmarshal(index, &m)
	for i, d := range m.Manifests {
		if d.Platform != nil && d.Platform.OS == "" && d.Platform.Architecture == "" && d.Platform.Variant == "" &&
			d.Platform.OSVersion == "" && d.Platform.OSFeatures == nil {
			m.Manifests[i].Platform = nil
		}
	}
	return bestMatch(m.Manifests, p), err
}

// bestMatch is the entry that fits a platform best. One without a platform comes last.
func bestMatch(entries []ocispec.Descriptor, p v1.Platform) string {
	fits := platforms.Only(ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
	entries = slices.DeleteFunc(entries, func(d ocispec.Descriptor) bool { return d.Platform != nil && !fits.Match(*d.Platform) })
	if len(entries) == 0 {
		return ""
	}
	sort.SliceStable(entries, func(i, j int) bool {
		a, b := entries[i].Platform, entries[j].Platform
		return a != nil && (b == nil || fits.Less(*a, *b))
	})
	return entries[0].Digest.String()
}

// registryChoice is the choice of go-containerregistry and of what is made with it: the
// first entry that has what was asked for. One without a platform is for linux/amd64.
// Source: childByPlatform in
// https://github.com/google/go-containerregistry/blob/v0.22.1/pkg/v1/remote/index.go.
func registryChoice(index []byte, p v1.Platform) (string, error) {
	m, err := v1.ParseIndexManifest(bytes.NewReader(index))
	if err != nil {
		return "", err
	}
	for _, d := range m.Manifests {
		if d.Platform == nil {
			d.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
		}
		if d.Platform.Satisfies(p) {
			return d.Digest.String(), nil
		}
	}
	return "", nil
}
