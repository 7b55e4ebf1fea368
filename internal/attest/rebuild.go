package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// TestResult is the type of what somebody found who rebuilt an image.
// Source: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md.
const TestResult = "https://in-toto.io/attestation/test-result/v0.1"

// A Rebuild is what somebody found who rebuilt an image from nothing and compared. It
// names no time, so that the same finding is the same statement: when it was signed is
// in the signature, where that is logged.
type Rebuild struct {
	Inputs lock.Inputs
	// Host is where it was rebuilt, GOOS/GOARCH, and Version the version of this
	// project's program that did.
	Host, Version string
	// Passed and Failed are the platforms that are the same, bit for bit, and those
	// that are not. A failed one makes the result FAILED.
	Passed, Failed []string
	// Whole is set when the index was found to be right, too.
	Whole bool
}

// rebuildTest begins the names of the tests in the predicate.
const rebuildTest = "rebuild "

type testResult struct {
	Result        string     `json:"result"` // PASSED, WARNED or FAILED
	Configuration []resource `json:"configuration"`
	Passed        []string   `json:"passedTests"`
	Warned        []string   `json:"warnedTests"`
	Failed        []string   `json:"failedTests"`
}

// Statement is the in-toto statement about the digests that were compared; the first
// is what the signature is attached to.
func (r Rebuild) Statement(about ...Subject) (Statement, error) {
	p := testResult{Result: "PASSED", Passed: []string{}, Warned: []string{}, Failed: []string{}}
	if len(r.Failed) > 0 {
		p.Result = "FAILED"
	}
	for _, name := range r.Passed {
		p.Passed = append(p.Passed, rebuildTest+name)
	}
	if r.Whole {
		p.Passed = append(p.Passed, rebuildTest+"index")
	}
	for _, name := range r.Failed {
		p.Failed = append(p.Failed, rebuildTest+name)
	}
	in := r.Inputs
	for _, m := range []struct {
		module.Version
		sum string
	}{
		{module.Version{Path: lock.TailscaleModule, Version: in.Tailscale.Version}, in.Tailscale.Sum},
		{in.Go.Module(r.Host), in.Go.Sums[r.Host]},
		{module.Version{Path: lock.RootsModule, Version: in.Roots.Version}, in.Roots.Sum},
	} {
		hash, err := dirHash(m.sum)
		if err != nil {
			return Statement{}, fmt.Errorf("attest: %s: %w", m.Version, err)
		}
		p.Configuration = append(p.Configuration, resource{Name: m.Path, URI: modulePURL(m.Path, m.Version.Version), Digest: map[string]string{"dirHash": hash}})
	}
	p.Configuration = append(p.Configuration, resource{Name: "verifier", URI: image.Source + "/cmd/build@" + r.Version})
	data, err := statement(TestResult, p, in, about...)
	return Statement{Type: TestResult, Payload: data, Subjects: about[:1]}, err
}

// ParseRebuild reads which platforms a statement says that somebody rebuilt. The error
// says that it is no such statement.
func ParseRebuild(statement []byte) (passed, failed []string, err error) {
	var p testResult
	s := inToto{Predicate: &p}
	if err := json.Unmarshal(statement, &s); err != nil {
		return nil, nil, fmt.Errorf("attest: rebuild: %w", err)
	}
	if s.PredicateType != TestResult {
		return nil, nil, fmt.Errorf("attest: rebuild: type %q is not %q", s.PredicateType, TestResult)
	}
	read := func(tests []string) (names []string) {
		for _, t := range tests {
			if len(t) > len(rebuildTest) && t[:len(rebuildTest)] == rebuildTest {
				names = append(names, t[len(rebuildTest):])
			}
		}
		return names
	}
	passed, failed = read(p.Passed), read(p.Failed)
	if p.Result != "PASSED" && len(failed) == 0 || p.Result == "PASSED" && len(failed) > 0 {
		return nil, nil, errors.New("attest: rebuild: its result is not that of its tests")
	}
	slices.Sort(passed)
	return passed, failed, nil
}
