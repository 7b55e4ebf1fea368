package attest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
)

// TestResult is the type of what somebody found who rebuilt an image, or tested it.
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

// Outcomes of a test result.
const passed, failed = "PASSED", "FAILED"

// program begins the URI of this project's program, before its version.
const program = lock.DefaultSource + "/cmd/build@"

// testResult is the predicate. Skipped is this project's: the specification lets readers
// ignore what they do not know.
type testResult struct {
	Result        string     `json:"result"` // PASSED, WARNED or FAILED
	Configuration []resource `json:"configuration"`
	Passed        []string   `json:"passedTests"`
	Warned        []string   `json:"warnedTests"`
	Failed        []string   `json:"failedTests"`
	Skipped       []string   `json:"skippedTests,omitempty"`
}

// newResult is the result of tests of a kind, which begins their names.
func newResult(kind string, pass, skip, fail []string) testResult {
	prefixed := func(names []string) []string {
		tests := make([]string, len(names)) // not null in JSON
		for i, name := range names {
			tests[i] = kind + name
		}
		return tests
	}
	p := testResult{Result: passed, Passed: prefixed(pass), Warned: []string{}, Failed: prefixed(fail), Skipped: prefixed(skip)}
	if len(fail) > 0 {
		p.Result = failed
	}
	return p
}

// of are the names of the tests of a kind.
func (p *testResult) of(kind string) (pass, skip, fail []string, err error) {
	read := func(tests []string) (names []string) {
		for _, t := range tests {
			if name, ok := strings.CutPrefix(t, kind); ok && name != "" {
				names = append(names, name)
			}
		}
		return names
	}
	pass, skip, fail = read(p.Passed), read(p.Skipped), read(p.Failed)
	if (p.Result == passed) != (len(fail) == 0) {
		err = errors.New("its result is not that of its tests")
	}
	return pass, skip, fail, err
}

// Statement is the in-toto statement about the digests that were compared; the first
// is what the signature is attached to.
func (r Rebuild) Statement(about ...Subject) (Statement, error) {
	p := newResult(rebuildTest, r.Passed, nil, r.Failed)
	modules, err := resources(Modules(r.Inputs, r.Host))
	if err != nil {
		return Statement{}, fmt.Errorf("attest: %w", err)
	}
	p.Configuration = append(modules, resource{Name: "verifier", URI: program + r.Version})
	if r.Builder != "" {
		p.Configuration = append(p.Configuration, resource{Name: "builder", URI: program + r.Builder})
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
	if passed, _, failed, err = p.of(rebuildTest); err != nil {
		return nil, nil, fmt.Errorf("attest: rebuild: %w", err)
	}
	return passed, failed, nil
}
