package release

import (
	"context"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
)

// A Need is something that a step needs beside the folder of the release.
type Need uint

const (
	Sources    Need = 1 << iota // the module proxy, the checksum database, tailscale's repository
	Layout                      // the layout in the release's folder
	Images                      // the digests that the step build gave
	Containers                  // a machine that runs the image
	Pull                        // the right to read from the repositories
	Push                        // the right to write to the repositories
	Identity                    // a key or a workflow's identity, to sign with
	Recording                   // the right to write down the release: on GitHub, or in the lock
)

// A Step is one step of a release.
type Step struct {
	// Name is the word for --step; Does says in a line what it does.
	Name, Does string
	// Needs is what must be at hand.
	Needs Need

	// Ahead is set for a step that makes a part of the next one's work on other machines. The
	// next one does what is left of it: where all steps run on one machine, all.
	Ahead bool
	// Beside is set for a step that the next one does not wait for, where they run on several
	// machines. The one after that waits for both.
	Beside bool
	// variants is set for a step that can be done for each variant on its own.
	variants bool
	// once is set for a step that counts as done when the journal has it, where all
	// steps run on one machine: a step that is run alone always does its work. The
	// others look for themselves: in the cache, in the registries, on GitHub.
	once bool
	// run does it; l is the release's lock, nil before there is one.
	run func(r *Release, ctx context.Context, l *lock.Lock, parts []Part) error
}

// A Part is a part of a step that can be done on a machine of its own: that of a variant,
// or of a variant for a platform. The zero value is the whole step.
type Part struct {
	Variant  string
	Platform lock.Platform
}

func (p Part) String() string { return strings.TrimSpace(p.Variant + " " + string(p.Platform)) }

// Has reports whether the step needs n.
func (s *Step) Has(n Need) bool { return s.Needs&n != 0 }

// ByVariant reports whether the step can be done for each variant on its own.
func (s *Step) ByVariant() bool { return s.variants }

// parts are the parts that the step can be done in, each on its own machine.
func (s *Step) parts(variants []string, platforms []lock.Platform) (parts []Part) {
	if !s.variants {
		return []Part{{}}
	}
	if !s.Has(Containers) {
		platforms = []lock.Platform{""}
	}
	for _, v := range variants {
		for _, p := range platforms {
			parts = append(parts, Part{v, p})
		}
	}
	return parts
}

// Names of files in the folder of a release.
const (
	lockName     = lock.File
	compiledName = "compiled"
	layoutName   = "dist" // and, of other variants, their suffixes
	journalName  = "journal"
	notesName    = "notes.md"
	testName     = "test" // and a variant, and a platform for the report of some
	scansName    = "scans.json"
	// DocumentsName is the folder with what is attested, as files, and of other variants
	// their suffixes.
	DocumentsName = "attestations"
)

// Steps are the steps of a release, in their order.
var Steps = []*Step{
	{Name: "update", Does: "take the newest release of tailscale, proven, into the release's lock",
		Needs: Sources, run: (*Release).update},
	{Name: "compile", Does: "alone: compile what is of one variant, for build elsewhere",
		Needs: Sources, Ahead: true, variants: true, run: (*Release).compile},
	{Name: "build", Does: "build all images; record what came out, or compare with the lock",
		Needs: Sources, run: (*Release).build},
	{Name: "scan", Does: "look for known vulnerabilities in what was built",
		Needs: Sources, Beside: true, once: true, run: (*Release).scan},
	{Name: "test", Does: "test every image, or those of --variant and --platform",
		Needs: Layout | Images | Containers, variants: true, once: true, run: (*Release).test},
	{Name: "push", Does: "push the images to all repositories by digest, and read them back",
		Needs: Layout | Images | Push, run: (*Release).push},
	{Name: "verify", Does: "rebuild what the repositories serve, and compare",
		Needs: Sources | Images | Pull, variants: true, once: true, run: (*Release).verify},
	{Name: "sign", Does: "sign the images, attest contents and tests, in all repositories",
		Needs: Layout | Images | Push | Identity, run: (*Release).sign},
	{Name: "tag", Does: "move the tags of all variants, in all repositories",
		Needs: Layout | Images | Push, run: (*Release).tag},
	{Name: "record", Does: "write down the release: the lock with its outputs, and the notes",
		Needs: Images | Pull | Recording, run: (*Release).record},
}

// VEX is a step of its own, for a release that is published: it comes after another scan, with
// a newer database. It signs nothing but what that says of the images.
var VEX = &Step{Name: "vex", Does: "alone, later: attach what a new scan says of published images",
	Needs: Images | Push | Identity, run: (*Release).vex}

// Named is the step of that name, nil for none.
func Named(name string) *Step {
	for _, s := range append(slices.Clone(Steps), VEX) {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// waitsFor are the steps that must have been done for an image before this one.
func (s *Step) waitsFor() (list []*Step) {
	if s == VEX {
		return []*Step{Named("scan")}
	}
	at := slices.Index(Steps, s)
	for i, before := range Steps[:at] {
		if i > 0 && !before.Ahead && !(before.Beside && i+1 == at) {
			list = append(list, before)
		}
	}
	return list
}
