package sign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// A Checked is one subject with what is signed about it.
type Checked struct {
	Platform lock.Platform `json:"platform,omitempty"`
	Digest   string        `json:"digest"`
	// Verified has one statement for each of [attest.Types] that could be verified.
	Verified map[string]*Verified `json:"verified"`
	// Problems says, for each of [attest.Types] that could not, why.
	Problems map[string]string `json:"problems,omitempty"`
	// Tests are the results of tests of the image: see [Report.RequireTests].
	Tests []attest.Tests `json:"tests,omitempty"`

	tests   []attest.Tests
	refused []string // why results of tests do not count
}

// ErrUnverified says that something that should be signed is not, or not by whom it
// should.
var ErrUnverified = errors.New("is not signed as it should be")

// Check verifies that an index and each of its images has a signature, provenance and
// an SBOM by whom trust names. The error is ErrUnverified if one is missing; the list
// says which, and why.
func Check(ctx context.Context, r *registry.Repository, index v1.ImageIndex, trust *Trust) ([]Checked, error) {
	subjects, err := attest.Subjects(index)
	if err != nil {
		return nil, err
	}
	var list []Checked
	missing := 0
	for _, s := range subjects {
		digest := s.Descriptor.Digest
		bundles, err := Bundles(ctx, r, digest)
		if err != nil {
			return nil, err
		}
		c := Checked{Platform: s.Platform, Digest: digest.String(), Verified: map[string]*Verified{}, Problems: map[string]string{}}
		reasons := map[string][]string{}
		for _, b := range bundles {
			v, err := trust.Verify(b, digest)
			if refused, ok := errors.AsType[*RefusedError](err); ok {
				reasons[refused.Type] = append(reasons[refused.Type], refused.Why)
			} else if err == nil && v.Type == attest.TestResult {
				c.addTests(v.Statement)
			} else if err == nil && c.Verified[v.Type] == nil {
				c.Verified[v.Type] = v
			}
		}
		c.refused = append(c.refused, reasons[attest.TestResult]...)
		for _, typ := range attest.Types {
			if c.Verified[typ] == nil {
				slices.Sort(reasons[typ])
				c.Problems[typ] = cmp.Or(strings.Join(slices.Compact(reasons[typ]), "; "), "is not attached")
			}
		}
		missing += len(c.Problems)
		list = append(list, c)
	}
	if missing > 0 {
		return list, fmt.Errorf("%s@%s %w: %d of %d statements are missing or refused", r, subjects[0].Descriptor.Digest, ErrUnverified, missing, len(list)*len(attest.Types))
	}
	return list, nil
}
