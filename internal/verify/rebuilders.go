package verify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// ErrRebuilders says that fewer rebuilders than required have attested an image.
var ErrRebuilders = errors.New("too few rebuilders attest it")

// Rebuilders says whose attestations of a rebuild count, and how many there must be.
type Rebuilders struct {
	// Require is the least number of those in Trust who must attest that the image is
	// what they rebuilt, on all platforms that are to be verified.
	Require int
	Trust   []Rebuilder
}

// A Rebuilder is somebody who rebuilds images.
type Rebuilder struct {
	*sign.Trust
	// Name is what people call the rebuilder, "" for nobody whom they know.
	Name string
	// Repository is where the attestations are if the rebuilder may not attach them to the
	// image itself: on the same digest, in a repository that need not have the image.
	Repository string
}

func (r Rebuilder) String() string {
	if r.Name != "" {
		return r.Name + " (" + r.Trust.String() + ")"
	}
	return r.Trust.String()
}

// rebuilders looks who has attested an image. It comes before the rebuild: what is
// missing is known within seconds.
func (j *job) rebuilders(ctx context.Context) error {
	r := j.Verifier.Rebuilders
	if r.Require == 0 {
		return nil
	}
	if j.found.opened.Repository == nil {
		return fmt.Errorf("%w: it is in no registry, so nothing is attached to it", ErrRebuilders)
	}
	var err error
	client := &registry.Client{Keychain: j.Keychain}
	if j.subject.Rebuilders, err = r.ask(ctx, client, j.found.opened.Repository, j.found.opened.Entries[0].Digest, j.wanted()); err != nil {
		return err
	}
	var lacking []string
	for _, c := range j.subject.Rebuilders {
		if c.Result != Pass {
			lacking = append(lacking, c.Name+" "+c.Note)
		}
	}
	if count := len(r.Trust) - len(lacking); count < r.Require {
		return fmt.Errorf("%w: %d of those trusted, %d are required: %s", ErrRebuilders, count, r.Require, strings.Join(lacking, "; "))
	}
	return nil
}

// ask looks what each has attested of an index, for these platforms.
func (r Rebuilders) ask(ctx context.Context, client *registry.Client, repository *registry.Repository, digest v1.Hash, platforms []lock.Platform) (checks []Check, err error) {
	bundles, err := sign.Bundles(ctx, repository, digest)
	if err != nil {
		return nil, fmt.Errorf("attestations: %w", registry.Explain(ctx, err))
	}
	for _, by := range r.Trust {
		all := bundles
		var unread error
		if by.Repository != "" {
			var theirs [][]byte
			own, err := client.Open(ctx, by.Repository, registry.Pull)
			if err == nil {
				theirs, err = sign.Bundles(ctx, own, digest)
			}
			unread, all = err, append(slices.Clone(bundles), theirs...)
		}
		c := by.attested(all, digest, platforms)
		if unread != nil && c.Result == Skip {
			c.Note = "could not be asked: " + diff.Printable(registry.Explain(ctx, unread).Error())
		}
		checks = append(checks, c)
	}
	return checks, ctx.Err()
}

// Confirmed are the names of those who attest that what a reference with a digest names is
// what they rebuilt, on all of these platforms.
func (r Rebuilders) Confirmed(ctx context.Context, client *registry.Client, ref string, platforms []lock.Platform) (names []string, err error) {
	repository, err := client.Open(ctx, ref, registry.Pull)
	var top v1.Descriptor
	if err == nil {
		top, err = repository.Resolve(ctx)
	}
	var checks []Check
	if err == nil {
		checks, err = r.ask(ctx, client, repository, top.Digest, platforms)
	}
	if err != nil {
		return nil, err
	}
	for i, c := range checks {
		if c.Result == Pass {
			names = append(names, r.Trust[i].Name)
		}
	}
	return names, nil
}

// attested looks what one of those who are trusted has attested of an index. One attestation
// must be of all platforms, and then no lesser one takes anything away; one that found a
// difference does.
func (r Rebuilder) attested(bundles [][]byte, digest v1.Hash, platforms []lock.Platform) Check {
	c := Check{Level: LevelRebuilder, Name: r.String(), Result: Skip, Note: "has attested nothing"}
	note := func(s string) {
		if c.Result != Pass {
			c.Note = s
		}
	}
	for _, b := range bundles {
		v, err := r.Verify(b, digest)
		if err != nil {
			// Attestations of others also end here: they did not sign with this key. Two
			// get a note: what this one signed about another image, and what others signed
			// in its name.
			switch refused, _ := errors.AsType[*sign.RefusedError](err); {
			case errors.Is(err, sign.ErrOtherDigest):
				note("has attested another image, and that attestation is attached to this one")
			case errors.Is(err, sign.ErrOtherRun):
				note("has attested nothing that counts: an attestation " + diff.Printable(refused.Why))
			}
			continue
		}
		if v.Type != attest.TestResult {
			continue
		}
		passed, failed, err := attest.ParseRebuild(v.Statement)
		switch {
		case err != nil:
			note("has attested something else: " + diff.Printable(err.Error()))
		case len(failed) > 0:
			c.Result, c.Note = Fail, "attests that what it rebuilt differs on "+diff.Printable(strings.Join(failed, ", "))
			return c
		default:
			lacks := slices.DeleteFunc(slices.Clone(platforms), func(p lock.Platform) bool { return slices.Contains(passed, string(p)) })
			if len(lacks) > 0 {
				note("attests a rebuild, but not of " + list(lacks))
				continue
			}
			c.Result, c.Note = Pass, "attests that it rebuilt the same, bit for bit"
		}
	}
	return c
}

// revision is the commit of this project that an image's provenance names, as a hint
// for an explanation: no signature is verified, and what cannot be read is left out.
func (j *job) revision(ctx context.Context) string {
	if j.found.opened.Repository == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // it is said only where it is at hand
	defer cancel()
	bundles, _ := sign.Bundles(ctx, j.found.opened.Repository, j.found.opened.Entries[0].Digest)
	for _, data := range bundles {
		var bundle struct{ DSSEEnvelope struct{ Payload []byte } }
		berr := json.Unmarshal(data, &bundle)
		p, err := attest.ParseProvenance(bundle.DSSEEnvelope.Payload)
		if err != nil || berr != nil {
			continue
		}
		for _, d := range p.BuildDefinition.ResolvedDependencies {
			if commit := d.Digest["gitCommit"]; d.Name == "derper" && isCommit.MatchString(commit) {
				return commit
			}
		}
	}
	return ""
}

var isCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// statement is what is to be attested of a verification: of one that made everything
// from nothing, and came to an end.
func (j *job) statement() (*attest.Statement, error) {
	s := j.subject
	if !j.Fresh || j.found.opened.Repository == nil || s.Verdict == Unverified {
		return nil, nil
	}
	r := attest.Rebuild{Inputs: j.inputs, Host: ThisProgram().Host, Version: ThisProgram().Version}
	if s.Builder != nil {
		r.Builder = cmp.Or(s.Builder.Version, "a checkout")
	}
	about := []attest.Subject{{Descriptor: j.found.opened.Entries[0]}}
	for _, p := range s.Platforms {
		switch p.Result {
		case Pass:
			r.Passed = append(r.Passed, p.Platform)
			if digest, err := v1.NewHash(p.Digest); err == nil && p.Digest != s.Digest {
				about = append(about, attest.Subject{Platform: lock.Platform(p.Platform), Descriptor: v1.Descriptor{Digest: digest}})
			}
		case Fail:
			r.Failed = append(r.Failed, p.Platform)
		}
	}
	for _, c := range s.Index {
		if c.Result == Pass {
			r.Passed = append(r.Passed, c.Name)
		} else if c.Result == Fail && !c.Follows {
			r.Failed = append(r.Failed, "index")
		}
	}
	if slices.ContainsFunc(s.Inputs, Check.failed) {
		r.Failed = append(r.Failed, "inputs")
	}
	statement, err := r.Statement(about...)
	return &statement, err
}
