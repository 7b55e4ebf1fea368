// Package verify rebuilds images and says whether they are what was rebuilt.
//
// Its contract. An image names in its own labels what it was made of: a release of
// tailscale, a Go, a set of CA roots, programs, a variant, a format. Nothing else of it is
// taken on trust. The inputs are made again from these names alone, with every sum from the
// Go checksum database; the image is built from them, and all that the registry, the
// layout or the archive has is read and compared with it, bit for bit: every file of
// every layer, the layers, the config, the manifest, the attestation, the index. No difference is
// allowed for. A report says of each of them PASS, FAIL or SKIP; SKIP is said, with a
// reason, and never counts as PASS.
//
// What an image claims besides is compared like all of it. Some claims cannot be made
// again from the checksum database, which does not know them. The commit's time is the
// module proxy's word. For the commit, which is stamped into the programs, the report says
// what confirms it, which a proof from upstream's git repository does. Files, user and
// programs of a variant pass only if this program or the lock at hand knows them, since
// any could be claimed and would be made again. Build tags and the source's address are
// reported as claims unless they are known.
//
// Where things differ, an explanation begins at the innermost of them, since all that
// is around it then differs, too. It is exact about what differs. Why it does is read
// from what a program says of itself, and whoever changed a program may have changed
// that.
//
// An image may be made to harm. Its documents may have 1 MiB each and 8 MiB in all; its
// layers 1 GiB each, 2 GiB in all, and 8 GiB unpacked, with 16384 files; what refers to it
// in a registry 32 MiB; reading it may take four hours. Where a program differs, FAIL is said
// first, and then a process of its own takes it apart, with bounds of memory and of time: no
// explanation changes a verdict.
//
// What this program makes otherwise may be what an older revision of this project made: its
// entrypoint has another source. With Others, the program of the revision that the image's
// version names builds it, too, and nothing else: this program compares and judges. That
// decides about what is this project's own only, and the report says which revision it was.
//
// The package writes nothing but the cache that it is given.
package verify

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// A Verifier verifies images and locks.
type Verifier struct {
	// Cache is where everything is built. It must be empty for a verification that
	// trusts nothing; Fresh says that it was, and that it belongs to the Verifier.
	Cache   *cache.Cache
	Fresh   bool
	Modules *modproxy.Client
	// Keychain has the credentials for registries; nil for none.
	Keychain authn.Keychain
	Display  *progress.Display
	// Lock is the lock at hand, nil for none. What it says of a release must agree.
	Lock *lock.Lock
	// Variants are the names of those of the lock that Locked verifies; nil for all.
	Variants []string
	// Platforms are those to verify; nil for all.
	Platforms []lock.Platform
	// Source proves that a release's git tag, its module and the checksum database
	// agree; nil for no proof.
	Source *upstream.Source
	// Others lets another revision of this project build what this program makes otherwise;
	// nil for this program alone.
	Others *Others
	// Rebuilders are others whose word is wanted, too.
	Rebuilders Rebuilders

	disk     int64 // the most that the cache took, in bytes
	contents map[v1.Hash]*diff.Layer
}

// asked reports whether a platform is to be verified.
func (v *Verifier) asked(platform string) bool {
	return len(v.Platforms) == 0 || slices.Contains(v.Platforms, lock.Platform(platform))
}

// References verifies images, one after the other. What cannot be verified is in the
// report; the error is that of ctx.
func (v *Verifier) References(ctx context.Context, refs []string) (*Report, error) {
	r, end := v.begin()
	var jobs []*job
	for _, ref := range refs {
		j := &job{Verifier: v, subject: &Subject{Ref: ref}}
		defer j.close()
		jobs = append(jobs, j)
		r.Subjects = append(r.Subjects, j.subject)
		// What can fail within seconds fails before anything is compiled.
		if err := j.do(ctx, j.read); err != nil {
			return nil, err
		}
	}
	for i, j := range jobs {
		if j.subject.Err == nil {
			if err := j.do(ctx, j.verify); err != nil {
				return nil, err
			}
		}
		if v.Fresh {
			if err := v.drop(jobs[i+1:]); err != nil {
				return nil, err
			}
		}
	}
	// Another program runs only when all that this one makes is made.
	for _, j := range jobs {
		if j.subject.Err == nil {
			if err := j.do(ctx, j.finish); err != nil {
				return nil, err
			}
			j.discard()
		}
	}
	return end(), nil
}

// begin begins a report; end ends it.
func (v *Verifier) begin() (r *Report, end func() *Report) {
	v.contents = map[v1.Hash]*diff.Layer{}
	began := time.Now()
	r = &Report{Program: ThisProgram(), Fresh: v.Fresh, Time: began.UTC().Truncate(time.Second)}
	return r, func() *Report {
		v.measure()
		r.DiskBytes, r.Seconds = v.disk, time.Since(began).Seconds()
		r.conclude()
		return r
	}
}

// ThisProgram is what is known of the running program.
func ThisProgram() Program {
	p := Program{Version: "(unknown)", Host: pipeline.Host}
	if info, ok := debug.ReadBuildInfo(); ok {
		p.Version = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				p.Revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				p.Revision += " with changes"
			}
		}
	}
	return p
}

// A job is the verification of one image.
type job struct {
	*Verifier
	subject *Subject
	found   *found
	inputs  lock.Inputs
	// expected are the platforms that there should be, build those that are rebuilt,
	// in the same order.
	expected, build []lock.Platform
	// temporary and opened are what another revision's program has made.
	temporary []string
	opened    []io.Closer
}

func (j *job) close() {
	j.discard()
	if j.found != nil && j.found.opened.Files != nil {
		j.found.opened.Files.Close()
	}
}

// do does a part of the verification, and notes how long it took and why the image could
// not be verified: what was found to differ does, whatever fails behind that. The error is
// that of ctx.
func (j *job) do(ctx context.Context, part func(context.Context) error) error {
	began := time.Now()
	if err := part(ctx); err != nil {
		err = fmt.Errorf("%s: %w", diff.Printable(j.subject.Ref), err)
		j.subject.Err, j.subject.Error = err, diff.Printable(err.Error())
		if j.subject.Verdict != Differs {
			j.subject.Verdict = Unverified
		}
	}
	j.subject.Seconds += time.Since(began).Seconds()
	return ctx.Err()
}

// maxReading is how long it may take to read an image. What bounds each read bounds all of
// them to days.
var maxReading = 4 * time.Hour // shorter in a test

// read finds an image, reads all of it, and makes its inputs again.
func (j *job) read(ctx context.Context) (err error) {
	s := j.subject
	// The context goes on with the layers, which are opened again to say how they differ.
	ctx, cancel := context.WithCancelCause(ctx)
	slow := fmt.Errorf("it took longer than %s to read it", maxReading)
	timer := time.AfterFunc(maxReading, func() { cancel(slow) })
	defer timer.Stop()
	defer func() {
		if err != nil && context.Cause(ctx) == slow {
			err = slow
		}
	}()
	task := j.Display.Start("read "+s.Ref, "layers")
	defer func() { task.End(err) }()
	if j.found, err = open(ctx, s.Ref, j.Keychain); err != nil {
		return err
	}
	s.From, s.Kind, s.Digest = registry.Describe(s.Ref), j.found.kind, j.found.digest
	if j.inputs, err = j.found.claims(); err != nil {
		return err
	}
	s.Release = claimsOf(j.inputs)
	for _, step := range []func(context.Context) error{j.choose, j.remake, j.rebuilders} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	have, budget := map[v1.Hash]*diff.Layer{}, new(diff.Budget)
	for i, img := range j.found.images {
		if slices.Contains(j.build, img.platform()) {
			if err := img.readLayers(ctx, have, budget); err != nil {
				return err
			}
		}
		task.Set(int64(i+1), int64(len(j.found.images)))
	}
	return nil
}

// choose chooses the platforms. An index must have those that the lock at hand has,
// or else all that this program knows: which it has itself is no claim to go by.
func (j *job) choose(context.Context) error {
	var have []lock.Platform
	for _, img := range j.found.images {
		if p := img.platform(); p != "" {
			have = append(have, p)
		}
	}
	switch {
	case j.found.kind != KindIndex:
		if len(have) == 0 {
			return fmt.Errorf("is for %s, for which this program builds no image: %w", j.found.images[0].name, image.ErrForeign)
		}
		if !j.asked(string(have[0])) {
			return fmt.Errorf("is an image for %s only, which was not asked for", have[0])
		}
		j.expected = have[:1]
	case j.sameRelease():
		j.expected = j.Lock.Inputs.Platforms
	default:
		j.expected = lock.Known
	}
	j.build = slices.DeleteFunc(j.wanted(), func(p lock.Platform) bool { return !slices.Contains(have, p) })
	return nil
}

// wanted are the platforms to verify.
func (j *job) wanted() []lock.Platform {
	return slices.DeleteFunc(slices.Clone(j.expected), func(p lock.Platform) bool { return !j.asked(string(p)) })
}

// verify rebuilds what was found and compares.
func (j *job) verify(ctx context.Context) error {
	built, err := j.rebuild(ctx)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	task := j.Display.Start("compare "+j.subject.Ref, "platforms")
	err = j.compare(ctx, built, func(done int) { task.Set(int64(done), int64(len(j.found.images))) })
	task.End(err)
	if err != nil {
		return err
	}
	j.conclude(ctx)
	return nil
}

// finish compares with what another revision makes, where that decides, and says what there is
// to be attested.
func (j *job) finish(ctx context.Context) error {
	if err := j.others(ctx); err != nil {
		return err
	}
	statement, err := j.statement()
	if err == nil {
		j.subject.Statement = statement
	}
	return err
}

// conclude says what all the checks come to.
func (j *job) conclude(ctx context.Context) {
	s := j.subject
	s.conclude(j.asked)
	if s.Verdict == Differs {
		s.revision = j.revision(ctx)
	}
	s.explain()
	s.mean(j.Verifier, j.found.opened.Tag)
}
