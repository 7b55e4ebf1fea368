package release

import (
	"context"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
)

// Tools do the work of the steps that are commands of their own, too.
type Tools struct {
	// Update is the lock that follows on base when the channel's newest release is
	// taken, and lines for the notes about what changed in derper's flags. base is
	// nil for the first release of a channel.
	Update func(ctx context.Context, base *lock.Lock) (*lock.Lock, []string, error)
	// Compile compiles what these variants of the lock in lockFile have and none before them
	// in it, for all platforms, into the folder compiled.
	Compile func(ctx context.Context, lockFile string, variants []string, compiled string) error
	// Build builds all variants and platforms of the lock in lockFile, with what is in the
	// folder compiled, if that is there; the default variant into layout. It records what
	// came out in a lock that has no outputs.
	Build func(ctx context.Context, lockFile, compiled, layout string) error
	// Scan looks for known vulnerabilities in what the lock in lockFile builds, and writes the
	// scans, [vex.Scans], to a file.
	Scan func(ctx context.Context, lockFile, scans string) error
	// Test tests the images of a variant, for these platforms, and returns what came out for
	// each. It writes a report in JUnit's form.
	Test func(ctx context.Context, layout string, platforms []lock.Platform, report string) ([]attest.Tests, error)
	// Verify rebuilds the images that references name.
	Verify func(ctx context.Context, l *lock.Lock, references []string) error
	// Confirmed is who of the rebuilders known, by name, attests that the image that a
	// reference names is what they rebuilt, for these platforms.
	Confirmed func(ctx context.Context, reference string, platforms []lock.Platform) (names []string, known int, err error)
}

// Findings are what the steps of a release found out about its images.
type Findings struct {
	Scans string // the file that the step scan wrote
	Tests []attest.Tests
}

// A Signer signs images.
type Signer interface {
	// String names the key or the identity.
	String() string
	// Sign signs what is in layout and attests what it is made of and what was found out about
	// it, in the repositories. What is signed already stays as it is. Test results of what is
	// not in layout are refused.
	Sign(ctx context.Context, lockFile, layout string, found Findings, repositories []string) error
	// Reassess attaches what the file scans says of an image, by its digest, in the place of
	// what was said before. The image must have been signed in all repositories.
	Reassess(ctx context.Context, lockFile, digest, scans string, repositories []string) error
	// Signed reports whether that was done for everything that references name.
	Signed(ctx context.Context, references []string) (bool, error)
	// Command is how anybody checks it, but for the reference. It is valid after
	// Sign or Signed.
	Command() string
}

// A Recorder writes down that a release is complete.
type Recorder interface {
	// Recorded reports whether the release of the lock's outputs is written down.
	Recorded(ctx context.Context, l *lock.Lock) (bool, error)
	// Record writes the release down: the lock, pages of the repository by their paths, and the
	// notes.
	Record(ctx context.Context, l *lock.Lock, pages map[string][]byte, notes string) error
	// Withdraw writes down that a version is withdrawn, as l has it: the images that have
	// these tags.
	Withdraw(ctx context.Context, l *lock.Lock, version string, tags []string) error
}
