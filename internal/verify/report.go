package verify

import (
	"slices"
	"time"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
)

// Result is what became of one check.
type Result string

const (
	Pass Result = "PASS" // the same, bit for bit
	Fail Result = "FAIL" // not the same
	Skip Result = "SKIP" // not compared; never counts as PASS
)

// Verdict is what a verification says in the end.
type Verdict string

const (
	// Verified means that everything that was asked for was rebuilt and is the same.
	Verified Verdict = "verified"
	// Differs means that something is not the same.
	Differs Verdict = "differs"
	// Unverified means that it could not be found out.
	Unverified Verdict = "not verified"
)

// Level is where things can differ, from the inside out.
type Level string

// Levels, innermost first.
const (
	LevelInput       Level = "input"       // what the image is made of
	LevelBinary      Level = "binary"      // a compiled program
	LevelEntry       Level = "tar entry"   // another file, or how a file stands in its layer
	LevelCompression Level = "compression" // how a layer is packed
	LevelConfig      Level = "config"      // how a container starts
	LevelManifest    Level = "manifest"    // what an image consists of
	LevelAttestation Level = "attestation" // what is stated of an image beside it
	LevelIndex       Level = "index"       // which images there are, for which platforms
)

// LevelRebuilder is no level: it is what others have found.
const LevelRebuilder Level = "rebuilder"

var levels = []Level{LevelInput, LevelBinary, LevelEntry, LevelCompression, LevelConfig, LevelManifest, LevelAttestation, LevelIndex}

// Kind is what was verified.
type Kind string

const (
	KindLock    Kind = "lock"           // the outputs that a lock records
	KindIndex   Kind = "index"          // a multi-platform image
	KindImage   Kind = "image"          // one of one platform
	KindArchive Kind = "docker archive" // what docker save writes: no manifest
)

// A Report is what a run of verifications found. Text, JSON and HTML follow from it.
type Report struct {
	Verdict  Verdict    `json:"verdict"`
	Program  Program    `json:"program"`
	Subjects []*Subject `json:"subjects"`
	// Fresh is set when everything was made from nothing, and not taken from a
	// cache.
	Fresh bool `json:"fresh"`
	// DiskBytes is the most that the cache took.
	DiskBytes int64 `json:"diskBytes"`
	// Time is when it began, Seconds how long it took.
	Time    time.Time `json:"time"`
	Seconds float64   `json:"seconds"`
}

// Program is who verified.
type Program struct {
	// Version is the module version of this program, Revision the commit that it
	// was compiled from, "" where it does not know.
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Host     string `json:"host"` // GOOS/GOARCH
}

// A Subject is something that was verified.
type Subject struct {
	Ref     string  `json:"ref"`
	From    string  `json:"from,omitempty"` // what was read: a layout, an archive, or the full name in a registry
	Kind    Kind    `json:"kind,omitempty"`
	Digest  string  `json:"digest,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Error says why it could not be verified.
	Error string `json:"error,omitempty"`
	// Err is the same, for programs.
	Err error `json:"-"`

	Release *Claims `json:"release,omitempty"`
	// Builder is whose program built what it was compared with, nil for this program.
	Builder *Builder `json:"builder,omitempty"`
	// Inputs are the checks of what it is made of.
	Inputs    []Check           `json:"inputs,omitempty"`
	Platforms []*PlatformResult `json:"platforms,omitempty"`
	// Index are the checks of what holds the platforms together.
	Index []Check `json:"index,omitempty"`
	// Rebuilders are those who are trusted, and what they attest.
	Rebuilders []Check `json:"rebuilders,omitempty"`
	// Explanations say what differs, innermost first: the first is the cause, as
	// far as that can be said.
	Explanations []Explanation `json:"explanations,omitempty"`
	// Means and MeansNot are what the verdict means and what it does not.
	Means    []string `json:"means,omitempty"`
	MeansNot []string `json:"meansNot,omitempty"`
	Seconds  float64  `json:"seconds"`

	// Statement is what can be attested of it, nil for nothing: everything must have
	// been made from nothing, and the image must be in a registry.
	Statement *attest.Statement `json:"-"`
	// revision is the commit of this project that the image's provenance names, ""
	// if it names none. Nobody vouches for it here.
	revision string
}

// Claims are what an image claims to be made of, and for a lock its inputs.
type Claims struct {
	Version   string         `json:"version"`   // of the image, as 1.102.3-r1
	Tailscale string         `json:"tailscale"` // as v1.102.3
	Commit    string         `json:"commit"`
	Time      time.Time      `json:"time"`
	Go        string         `json:"go"`
	Roots     string         `json:"roots"`
	Format    int            `json:"format"`
	Source    string         `json:"source"`
	Variant   lock.Variant   `json:"variant"`
	Programs  []lock.Program `json:"programs"`
	Modules   []string       `json:"modules,omitempty"` // that programs come from besides, as path@version
}

// A PlatformResult is what was found about one platform.
type PlatformResult struct {
	Platform string  `json:"platform"`
	Digest   string  `json:"digest,omitempty"` // of the manifest, as found
	Result   Result  `json:"result"`
	Checks   []Check `json:"checks"`
}

// A Check compares one thing.
type Check struct {
	Level  Level  `json:"level"`
	Name   string `json:"name"`
	Result Result `json:"result"`
	// Rebuilt and Image are what was compared: digests and sums, mostly.
	Rebuilt string `json:"rebuilt,omitempty"`
	Image   string `json:"image,omitempty"`
	// Note says what differs, or why nothing was compared. Details say it at length.
	Note    string   `json:"note,omitempty"`
	Details []string `json:"details,omitempty"`
	// Follows is set when it only differs because something inside of it does.
	Follows bool `json:"follows,omitempty"`
}

func (c Check) failed() bool { return c.Result == Fail }

// compared is the check of something by the digest, or what else stands for it.
func compared(level Level, name, rebuilt, image string) Check {
	c := Check{Level: level, Name: name, Result: Pass, Rebuilt: rebuilt, Image: image}
	if rebuilt != image {
		c.Result = Fail
	}
	return c
}

// An Explanation is one thing that differs, in words.
type Explanation struct {
	Level Level `json:"level"`
	// Names are the things that differ in this way, Platforms where.
	Names     []string `json:"names"`
	Platforms []string `json:"platforms,omitempty"`
	// Text is a paragraph that a person understands.
	Text    string   `json:"text"`
	Details []string `json:"details,omitempty"`
}

// Count counts a platform's checks of these levels by their result.
func (p *PlatformResult) Count(r Result, of ...Level) int {
	return count(p.Checks, func(c Check) bool { return c.Result == r && slices.Contains(of, c.Level) })
}

func count[T any](list []T, is func(T) bool) (n int) {
	for _, e := range list {
		if is(e) {
			n++
		}
	}
	return n
}

func (p *PlatformResult) failed() bool { return p.Result == Fail }

// conclude sets the verdict from those of the subjects.
func (r *Report) conclude() {
	r.Verdict = Unverified
	for i, s := range r.Subjects {
		if i == 0 || r.Verdict == Verified || s.Verdict == Differs {
			r.Verdict = s.Verdict
		}
	}
}

// conclude sets the platforms' results and the verdict. asked says which platforms
// were to be verified: each of them must pass.
func (s *Subject) conclude(asked func(platform string) bool) {
	results := map[Result]int{Fail: count(slices.Concat(s.Inputs, s.Index), Check.failed)}
	for _, p := range s.Platforms {
		if p.conclude(); p.Result != Skip || asked(p.Platform) {
			results[p.Result]++
		}
	}
	switch {
	case results[Fail] > 0:
		s.Verdict = Differs
	case results[Skip] > 0 || results[Pass] == 0:
		s.Verdict = Unverified
	default:
		s.Verdict = Verified
	}
}

// conclude sets the result. Without a FAIL it is PASS only when everything that a
// container sees was compared: its files and its config. What a docker archive does
// not have is left out of that, and says so in a row of its own.
func (p *PlatformResult) conclude() {
	skipped := p.Count(Skip, levels...) - p.Count(Skip, LevelCompression, LevelManifest)
	switch {
	case slices.ContainsFunc(p.Checks, Check.failed):
		p.Result = Fail
	case skipped > 0 || p.Count(Pass, LevelConfig) == 0 || p.Count(Pass, LevelBinary) == 0:
		p.Result = Skip
	default:
		p.Result = Pass
	}
}
