// Package release carries out a release: a list of steps, each of which says what it
// needs, what it leaves, and how it finds out that it was done already.
//
// It promises that the steps run in the order of [Steps], that a step runs only for an
// image for which every step before it has succeeded, and that every step works on
// the one image that the step build made. A release that stopped, however it
// stopped, goes on where it was: each step is safe to run again, and what cannot be
// looked up is in the journal, in the folder of the release. No tag moves before the
// image is tested, pushed, verified and signed.
//
// The work itself is done by [Tools], which are the program's other commands.
package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/delivery"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
)

// Digests names the images of a release: the digest of its index, by variant.
type Digests map[string]string

func (d Digests) String() string {
	text, _ := json.Marshal(map[string]string(d)) // of strings: it cannot fail
	return string(text)
}

// ParseDigests reads what String writes.
func ParseDigests(s string) (Digests, error) {
	var d Digests
	if err := json.Unmarshal([]byte(s), &d); err != nil {
		return nil, fmt.Errorf("%q: expected a JSON object, variant to digest: %w", s, err)
	}
	if d[lock.Default] == "" {
		return nil, fmt.Errorf("%q: no digest for the variant %s", s, lock.Default)
	}
	return d, nil
}

// A Release is one release, of one channel.
type Release struct {
	// Folder is the folder of the release; LockFile is the lock that the release
	// starts from, and which Recorder replaces at the end.
	Folder, LockFile string
	// Renew has the step update look for a newer release of tailscale.
	Renew bool
	// Again goes through all steps of a release that is published.
	Again bool
	// Retag lets moving tags go back to an older version.
	Retag bool
	// Repositories are where it is published.
	Repositories []string
	// Variants are those that a step is done for which can be done for each alone, Platforms
	// those that the step test tests; nil for all.
	Variants  []string
	Platforms []lock.Platform
	// Images are the digests that another machine's step build gave; nil to take
	// those of the folder.
	Images Digests
	// Program identifies the running program, Runner what runs the image for tests.
	Program, Runner string

	Tools Tools
	// Signer signs; nil for nobody.
	Signer   Signer
	Recorder Recorder
	Registry *registry.Client
	// Log gets warnings and, unless Quiet is set, what is under way.
	Log   io.Writer
	Quiet bool

	journal journal
	whole   bool                    // all steps run on this machine
	tested  map[Part][]attest.Tests // by the step test, for the journal
}

// A Result is what became of a release.
type Result struct {
	Version string `json:"version"`
	// Digest is the digest of the index of the default variant.
	Digest string  `json:"digest"`
	Images Digests `json:"images"`
	// Variants are the names of its variants, Compiling, after the step update, of those that
	// the step compile is for.
	Variants  []string `json:"variants"`
	Compiling []string `json:"compiling,omitempty"`
	// Needed reports whether there was something to release; Published whether this
	// run published it.
	Needed    bool `json:"needed"`
	Published bool `json:"published"`
	// Withdrawn is set for a release that was withdrawn, and is not published again.
	Withdrawn    bool     `json:"withdrawn,omitempty"`
	Repositories []string `json:"repositories"`
	Tags         []string `json:"tags"`
	Notes        string   `json:"notes,omitempty"` // file
}

func (r *Release) say(format string, args ...any) {
	fmt.Fprintf(r.Log, "release: "+format+"\n", args...)
}

// done says what became of a step that went well.
func (r *Release) done(format string, args ...any) {
	if !r.Quiet {
		r.say(format, args...)
	}
}

// display shows what is under way.
func (r *Release) display() *progress.Display {
	if r.Quiet {
		return progress.Quiet(r.Log)
	}
	return progress.New(r.Log)
}

func (r *Release) path(name string) string { return filepath.Join(r.Folder, name) }

// layout is the path of the layout, by its form too: who reads images takes other words for references.
func (r *Release) layout() string { return registry.Path(r.path(layoutName)) }

// open locks the release's folder and reads its journal.
func (r *Release) open(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(r.Folder, 0o755); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	if unlock, err = cache.LockFolder(ctx, r.Folder, func() { r.say("%s: waiting for another release", r.Folder) }); err != nil {
		return nil, err
	}
	if r.journal, err = openJournal(r.path(journalName)); err != nil {
		unlock()
	}
	return unlock, err
}

// Run carries out all steps, or only one, for an image that every step before it was done
// for; nil for all. What is published already is left as it is; if only its record is
// missing, that is made.
func (r *Release) Run(ctx context.Context, only *Step) (*Result, error) {
	unlock, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r.whole = only == nil
	first := cmp.Or(only, Steps[0])
	if err := r.step(ctx, first); err != nil {
		return nil, err
	}
	l, err := r.lock()
	if err != nil {
		return nil, err
	}
	result := &Result{Withdrawn: l.IsWithdrawn(), Needed: !l.IsWithdrawn(), Repositories: r.Repositories}
	if first == Steps[0] && result.Needed && !r.Again {
		done := l.Outputs != nil
		if done && r.whole {
			if done, err = r.published(ctx, l); err != nil {
				return nil, &StepError{"tag", err}
			}
		}
		if done { // what is not written down is not complete, whatever the registries have
			if done, err = r.Recorder.Recorded(ctx, l); err == nil && r.whole && !done {
				// A release that was stopped between its last two steps.
				done, err = true, r.carryOut(ctx, Named("record"), []Part{{}})
			}
			if err != nil {
				return nil, err
			}
		}
		result.Needed = !done
	}
	if result.Needed && r.whole {
		for _, s := range Steps[1:] {
			if s.Ahead {
				continue
			}
			if err := r.step(ctx, s); err != nil {
				return nil, err
			}
		}
		result.Published = true
		if l, err = r.lock(); err != nil {
			return nil, err
		}
	}
	if first == Steps[0] && !r.whole { // whose other steps run on other machines
		if result.Compiling, err = delivery.Compiling(l.Inputs); err != nil {
			return nil, err
		}
	}
	result.Version, result.Variants = l.Inputs.Version(), l.Inputs.VariantNames()
	if l.Outputs == nil { // which revision it is, the step build says
		result.Version = l.Inputs.Tailscale.Short()
	}
	for _, v := range l.Inputs.Variants {
		tags := tagsOf(l.Inputs.ImageVersion(), v)
		if l.Outputs == nil {
			tags = tags[1:]
		}
		for _, t := range tags {
			result.Tags = append(result.Tags, t.Name)
		}
	}
	if l.Outputs != nil {
		result.Images = digestsOf(l)
		result.Digest = result.Images[lock.Default]
		if r.journal.covers("record", Part{}, result.Images, r.Repositories) {
			result.Notes = r.path(notesName)
		}
	}
	return result, nil
}

// lock reads the lock of the release.
func (r *Release) lock() (*lock.Lock, error) {
	l, err := lock.Read(r.path(lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &OrderError{Step: "update", Folder: r.Folder}
	}
	return l, err
}

func digestsOf(l *lock.Lock) Digests { return l.Indexes() }

// tagsOf are the tags of the image of a variant.
func tagsOf(version lock.ImageVersion, v lock.Variant) []registry.Tag {
	return registry.Tags(version, v.Suffix, lock.ChannelOf(version.Tailscale))
}

// references are the images of these variants in each repository, by digest.
func (r *Release) references(l *lock.Lock, variants ...string) (refs []string) {
	for _, v := range variants {
		for _, repository := range r.Repositories {
			refs = append(refs, repository+"@"+l.Outputs[v].Index)
		}
	}
	return refs
}

// A StepError says which step failed, and why.
type StepError struct {
	Step string
	Err  error
}

// Error names the step once: a tool that is a command of its own does so, too.
func (e *StepError) Error() string {
	return "release: " + e.Step + ": " + strings.TrimPrefix(e.Err.Error(), e.Step+": ")
}
func (e *StepError) Unwrap() error { return e.Err }

// An OrderError says that a step was not done for the image at hand.
type OrderError struct {
	// Step is the one to do first; Image what it is to be done for, if that is known.
	Step, Image, Folder string
}

func (e *OrderError) Error() string {
	if e.Image == "" {
		return fmt.Sprintf("%s: step %s has not been carried out", e.Folder, e.Step)
	}
	return fmt.Sprintf("%s: step %s has not been carried out for %s", e.Folder, e.Step, e.Image)
}

// A MismatchError says that what is in the folder is not what was built.
type MismatchError struct {
	Folder     string
	Have, Want Digests
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: expected the images %s, which the step build gave; got %s", e.Folder, e.Want, e.Have)
}

// step carries out a step, after all checks that come between two steps.
func (r *Release) step(ctx context.Context, s *Step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	parts := []Part{{}}
	if s.Has(Images) || s.variants {
		l, err := r.ready(s)
		if err != nil {
			return err
		}
		if parts, err = r.parts(s, l.Inputs); err != nil {
			return err
		}
	}
	if s.once && r.whole {
		parts = slices.DeleteFunc(parts, func(part Part) bool { return r.journal.has(s.Name, part, r.entry(s.Needs)) })
		if len(parts) == 0 {
			r.done("%s: was done before", s.Name)
			return nil
		}
	}
	return r.carryOut(ctx, s, parts)
}

// parts are the parts of a step that are to be done.
func (r *Release) parts(s *Step, in lock.Inputs) ([]Part, error) {
	all := in.VariantNames()
	for _, name := range r.Variants {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("release: %s: no variant %q: it has %s", r.path(lockName), name, strings.Join(all, ", "))
		}
	}
	variants, platforms := r.Variants, r.Platforms
	if variants == nil {
		variants = all
	}
	if platforms == nil {
		platforms = in.Platforms
	}
	return s.parts(variants, platforms), nil
}

func (r *Release) carryOut(ctx context.Context, s *Step, parts []Part) error {
	l, err := r.lock()
	if err == nil || s.Name == "update" { // which makes it
		err = s.run(r, ctx, l, parts)
	}
	if err != nil {
		return &StepError{s.Name, err}
	}
	if s.Name != "update" && !s.Ahead { // the one has more to say, of the other nothing depends
		e := r.entry(s.Needs)
		for _, part := range parts {
			e.Tests = r.tested[part]
			if err := r.journal.put(s.Name, part, e); err != nil {
				return err
			}
		}
	}
	r.done("%s: done", s.Name)
	return nil
}

// ready checks that the folder has the images that were built, and that every step
// before s was done for them, in these repositories. It returns the release's lock.
func (r *Release) ready(s *Step) (*lock.Lock, error) {
	l, err := r.lock()
	if err != nil {
		return nil, err
	}
	if !s.Has(Images) {
		return l, nil
	}
	if l.Outputs == nil {
		return nil, &OrderError{Step: "build", Folder: r.Folder}
	}
	if l.IsWithdrawn() && s != VEX { // which does nothing then
		return nil, fmt.Errorf("%s: %s was withdrawn, and is not published until there is another image", r.Folder, l.Inputs.ImageVersion())
	}
	have := digestsOf(l)
	if r.Images != nil && !maps.Equal(have, r.Images) {
		return nil, &MismatchError{r.Folder, have, r.Images}
	}
	for _, before := range s.waitsFor() {
		for _, part := range before.parts(l.Inputs.VariantNames(), l.Inputs.Platforms) {
			if !r.journal.covers(before.Name, part, have, r.repositoriesOf(before.Needs)) {
				return nil, &OrderError{strings.TrimSuffix(before.Name+" "+part.String(), " "), have[lock.Default], r.Folder}
			}
		}
	}
	return l, nil
}

// repositoriesOf are the repositories that a step with such needs is about.
func (r *Release) repositoriesOf(needs Need) []string {
	if needs&(Pull|Push) != 0 {
		return r.Repositories
	}
	return nil
}
