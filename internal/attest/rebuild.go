package attest

import (
	"errors"
	"fmt"
	"strings"

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
	// Builder is the version of the program that rebuilt it, "" for that program.
	Builder string
	// Passed and Failed are the platforms that are the same, bit for bit, and those
	// that are not, and what else was compared: index, inputs. A failed one makes the
	// result FAILED.
	Passed, Failed []string
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
	prefixed := func(names []string) []string {
		tests := make([]string, len(names)) // not null in JSON
		for i, name := range names {
			tests[i] = rebuildTest + name
		}
		return tests
	}
	p := testResult{Result: "PASSED", Passed: prefixed(r.Passed), Warned: []string{}, Failed: prefixed(r.Failed)}
	if len(r.Failed) > 0 {
		p.Result = "FAILED"
	}
	modules, err := resources(Modules(r.Inputs, r.Host))
	if err != nil {
		return Statement{}, fmt.Errorf("attest: %w", err)
	}
	p.Configuration = append(modules, resource{Name: "verifier", URI: lock.DefaultSource + "/cmd/build@" + r.Version})
	if r.Builder != "" {
		p.Configuration = append(p.Configuration, resource{Name: "builder", URI: lock.DefaultSource + "/cmd/build@" + r.Builder})
	}
	data, err := statement(TestResult, p, r.Inputs, about...)
	return Statement{Type: TestResult, Payload: data, Subjects: about[:1]}, err
}

// ParseRebuild reads which platforms a statement says that somebody rebuilt. The error
// says that it is no such statement.
func ParseRebuild(statement []byte) (passed, failed []string, err error) {
	var p testResult
	if err := parse(statement, TestResult, &p); err != nil {
		return nil, nil, fmt.Errorf("attest: rebuild: %w", err)
	}
	read := func(tests []string) (names []string) {
		for _, t := range tests {
			if name, ok := strings.CutPrefix(t, rebuildTest); ok && name != "" {
				names = append(names, name)
			}
		}
		return names
	}
	passed, failed = read(p.Passed), read(p.Failed)
	if (p.Result == "PASSED") != (len(failed) == 0) {
		return nil, nil, errors.New("attest: rebuild: its result is not that of its tests")
	}
	return passed, failed, nil
}
