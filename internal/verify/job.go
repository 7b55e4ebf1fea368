package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// compare compares all images that were found, and what holds them together.
func (j *job) compare(ctx context.Context, built *build, step func(done int)) error {
	seen := map[string]bool{}
	failed := map[string]bool{}
	for n, img := range j.found.images {
		p := &PlatformResult{Platform: img.name, Digest: img.digest}
		add := func(r Result, format string, args ...any) {
			p.Checks = append(p.Checks, Check{Level: LevelIndex, Name: "platform", Result: r, Image: img.digest, Note: fmt.Sprintf(format, args...)})
		}
		want := built.images[img.platform()]
		other := ""
		for p, b := range built.images {
			if b.digest == img.digest {
				other = string(p)
			}
		}
		switch {
		case seen[img.name]:
			add(Fail, "the index has %s once more", img.name)
		case !slices.Contains(j.expected, img.platform()):
			add(Fail, "the index has %s besides, for which no image is built: %s", img.name, j.platformsExpected())
		case want == nil:
			add(Skip, "not asked for")
		case other != "" && other != img.name:
			add(Fail, "the index calls it %s, and it is the image for %s", img.name, other)
		case img.wrongClaim():
			add(Fail, "the index calls it %s, and it is an image for %s: so its config says, and so its programs are", img.name, img.ownName())
		default:
			if err := want.readLayers(ctx, j.contents, new(diff.Budget)); err != nil {
				return fmt.Errorf("rebuilt: %w", err)
			}
			checks, err := compareImages(ctx, j.inputs, want, img, func(program string) {
				j.Display.Printf("%s: %s %s %s: now it is taken apart", diff.Printable(j.subject.Ref), Fail, img.name, program)
			})
			if err != nil {
				return err
			}
			if j.found.kind == KindIndex {
				checks = append(checks, j.found.compareAttestations(want.stated, img.digest, slices.ContainsFunc(checks, Check.failed))...)
			}
			p.Checks = checks
		}
		seen[img.name] = true
		p.conclude()
		if p.Result == Fail {
			failed[img.name] = true
		}
		j.subject.Platforms = append(j.subject.Platforms, p)
		step(n + 1)
	}
	if j.found.kind != KindIndex {
		return nil
	}
	for _, p := range j.expected {
		if name := string(p); !seen[name] && j.asked(name) {
			failed[name] = true
			j.subject.Platforms = append(j.subject.Platforms, &PlatformResult{Platform: name, Checks: []Check{{
				Level: LevelIndex, Name: "platform", Result: Fail, Note: fmt.Sprintf("the index has no image for %s: %s", name, j.platformsExpected()),
			}}})
		}
	}
	return j.compareIndex(built, failed)
}

// wrongClaim reports whether an index names another platform than the image's config
// and its programs do.
func (i *foundImage) wrongClaim() bool {
	if i.ownName() == i.name {
		return false
	}
	for _, l := range i.contents {
		for _, e := range l.Entries {
			if e.Program() && (e.Machine != i.configFile.Architecture || e.Machine == i.platform().Arch()) {
				return false
			}
		}
	}
	return true
}

// compareIndex compares what the index says, of what was rebuilt.
func (j *job) compareIndex(built *build, failed map[string]bool) error {
	extra := func(digest, note string) {
		failed[digest] = true
		j.subject.Index = append(j.subject.Index, Check{Level: LevelIndex, Name: "entry " + digest, Result: Fail, Image: digest, Note: note})
	}
	for _, a := range j.found.attestations {
		if !slices.ContainsFunc(j.found.images, func(img *foundImage) bool { return img.digest == a.about }) {
			extra(a.digest, "the index has an attestation of "+diff.Printable(a.about)+", which is none of its images")
		}
	}
	for _, d := range j.found.others {
		extra(d.Digest.String(), "the index names something that is no image of a platform: "+diff.Printable(string(d.MediaType)))
	}
	if len(j.build) == 0 {
		return nil
	}
	want, err := j.index(built)
	if err != nil {
		return err
	}
	check := compared(LevelIndex, "index", digestOf(want), digestOf(j.found.manifest))
	if check.failed() {
		if check.Note, check.Details, err = indexesDiffer(want, j.found.manifest, j.build, failed); err != nil {
			check.Note = "how they differ cannot be said: " + diff.Printable(err.Error())
		}
		switch {
		case check.Note != "":
		case len(failed) > 0:
			check.Follows = true
		case len(j.build) < len(j.expected):
			check.Result, check.Rebuilt = Skip, ""
			check.Note = fmt.Sprintf("%d of its %d platforms were rebuilt: what it says of them is right", len(j.build), len(j.expected))
		default:
			check.Note = "the same values, written in another way (order, spaces or repeated keys)"
		}
	}
	j.subject.Index = append(j.subject.Index, check)
	return nil
}

// platformsExpected says which platforms there should be, and who says so.
func (j *job) platformsExpected() string {
	who := "this program builds for "
	if j.sameRelease() {
		who = "the lock at hand has "
	}
	return who + list(j.expected)
}

// list is a list of platforms for a message.
func list(platforms []lock.Platform) string {
	var names []string
	for _, p := range platforms {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}
