package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/image"
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
				checks = append(checks, pulled(j.found.manifest, img))
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

// compareIndex compares the index with what this program writes. Of platforms that were not
// rebuilt it takes the digests and sizes as they are, and nothing else.
func (j *job) compareIndex(built *build, failed map[string]bool) error {
	for _, d := range j.found.others {
		digest, what := d.Digest.String(), string(d.MediaType)
		if d.Platform != nil {
			what += " for " + d.Platform.String()
		}
		note := "the index has an entry that is neither an image of a platform nor an attestation of one: " + diff.Printable(what)
		if about, _ := image.Attests(d, nil); about != "" {
			note = fmt.Sprintf("the index has an entry marked as an attestation of %s that is not an attestation of an image in the index: %s", diff.Printable(about), diff.Printable(what))
		}
		failed[digest] = true
		j.subject.Index = append(j.subject.Index, Check{Level: LevelIndex, Name: "entry " + digest, Result: Fail, Image: digest, Note: note})
	}
	if len(j.build) == 0 {
		return nil
	}
	want, missing, err := j.index(built)
	if err != nil {
		return err
	}
	check := compared(LevelIndex, "index", digestOf(want), digestOf(j.found.manifest))
	switch {
	case len(missing) > 0:
		check.Result, check.Note = Fail, "the index has no attestation of the image for "+list(missing)
	case check.failed():
		if check.Note, check.Details, err = indexesDiffer(want, j.found.manifest, j.expected, failed); err != nil {
			check.Note = "how they differ cannot be said: " + diff.Printable(err.Error())
		}
		if check.Follows = check.Note == "" && len(failed) > 0; check.Note == "" && !check.Follows {
			check.Note = "the same values, written in another way (order, spaces or repeated entries)"
		}
	case len(j.build) < len(j.expected):
		check.Result, check.Rebuilt = Skip, ""
		check.Note = fmt.Sprintf("%d of its %d platforms were rebuilt: their entries are the same, and the others are in the form that this program writes", len(j.build), len(j.expected))
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
