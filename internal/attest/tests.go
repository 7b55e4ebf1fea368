package attest

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
)

// Tests is what came out when the image for a platform was tested: the names of the cases, by
// their outcome, in the order in which they ran. It has no times and no reasons, so that the
// same outcome is the same statement.
type Tests struct {
	// Digest is that of the manifest of the image that was tested.
	Digest   string        `json:"digest"`
	Platform lock.Platform `json:"platform"`
	TestedBy
	Passed  []string `json:"passed,omitempty"`
	Skipped []string `json:"skipped,omitempty"`
	Failed  []string `json:"failed,omitempty"`
}

// TestedBy is what tested an image.
type TestedBy struct {
	// Runner ran the image, native or docker, and Host, a GOOS/GOARCH, is where: on another
	// architecture than the image's, in an emulator. Version is that of this project's program.
	Runner  string `json:"runner"`
	Host    string `json:"host"`
	Version string `json:"version"`
}

// suiteTest begins the names of the tests in the predicate. The name of its configuration is
// the word.
const suiteTest = "suite "

// Result is PASSED, or FAILED if a case failed. A case that was skipped takes nothing away.
func (t *Tests) Result() string {
	if len(t.Failed) > 0 {
		return failed
	}
	return passed
}

// What Tests may have: what was found on another machine is signed here.
const mostTests = 2000

var (
	testName   = regexp.MustCompile(`^[0-9A-Za-z][!-~ ]{0,199}$`)
	testWord   = regexp.MustCompile(`^[!-~]{1,200}$`)
	testRunner = regexp.MustCompile(`^[a-z]{1,20}$`)
)

func (t *Tests) check() error {
	names := map[string]bool{}
	for _, list := range [][]string{t.Passed, t.Skipped, t.Failed} {
		for _, name := range list {
			if !testName.MatchString(name) {
				return fmt.Errorf("%q is no name of a case", name)
			}
			if names[name] {
				return fmt.Errorf("duplicate case %q", name)
			}
			names[name] = true
		}
	}
	switch {
	case len(names) > mostTests:
		return fmt.Errorf("%d cases, more than %d", len(names), mostTests)
	case len(t.Passed)+len(t.Failed) == 0:
		return errors.New("no case ran")
	case !testRunner.MatchString(t.Runner):
		return fmt.Errorf("%q is no runner", t.Runner)
	case !testWord.MatchString(t.Host), !testWord.MatchString("v" + t.Version): // which a program may lack
		return fmt.Errorf("host %q, version %q: expected one word each", t.Host, t.Version)
	}
	return nil
}

// ParseTests reads a list of results, in JSON. What could not be signed is refused.
func ParseTests(data []byte) ([]Tests, error) {
	var list []Tests
	if err := lock.Decode(data, &list); err != nil {
		return nil, err
	}
	for i := range list {
		if err := list[i].check(); err != nil {
			return nil, fmt.Errorf("results of %s: %w", list[i].Platform, err)
		}
	}
	return list, nil
}

// TestStatements are the statements about the results of images of the set, each about the
// image that was tested, and attached to that. Results of any other digest, or that call the
// image's platform by another name, are refused: they may come from another machine.
func (s *Set) TestStatements(list []Tests) ([]Statement, error) {
	var statements []Statement
	for _, t := range list {
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("attest: test results of %s: %w", t.Platform, err)
		}
		subject, err := Tested(s.Subjects, t)
		if err != nil {
			return nil, fmt.Errorf("attest: %w", err)
		}
		p := newResult(suiteTest, t.Passed, t.Skipped, t.Failed)
		p.Configuration = []resource{{
			Name: "suite", URI: program + t.Version,
			Annotations: map[string]string{"runner": t.Runner, "host": t.Host},
		}}
		data, err := statement(TestResult, p, s.inputs, subject)
		if err != nil {
			return nil, fmt.Errorf("attest: %w", err)
		}
		statements = append(statements, Statement{TestResult, data, []Subject{subject}})
	}
	return statements, nil
}

// Tested is the one of subjects that was tested: an image with the very digest.
func Tested(subjects []Subject, t Tests) (Subject, error) {
	for _, s := range subjects {
		switch {
		case s.Platform == "" || s.Descriptor.Digest.String() != t.Digest:
		case s.Platform != t.Platform:
			return Subject{}, fmt.Errorf("test results of %s are of %s, which is the image for %s", t.Platform, t.Digest, s.Platform)
		default:
			return s, nil
		}
	}
	return Subject{}, fmt.Errorf("test results of %s are of %s, %w", t.Platform, t.Digest, ErrOtherImage)
}

// ErrOtherImage says that results are of another image than the one at hand.
var ErrOtherImage = errors.New("which is no image of the index")

// ParseTestStatement reads the results that a statement has, but for their digest and
// platform, which its reader knows. The error says that it is no such statement.
func ParseTestStatement(statement []byte) (*Tests, error) {
	var p testResult
	if err := parse(statement, TestResult, &p); err != nil {
		return nil, fmt.Errorf("attest: tests: %w", err)
	}
	t := new(Tests)
	var err error
	if t.Passed, t.Skipped, t.Failed, err = p.of(suiteTest); err != nil {
		return nil, fmt.Errorf("attest: tests: %w", err)
	}
	for _, r := range p.Configuration {
		if version, ok := strings.CutPrefix(r.URI, program); ok && r.Name == "suite" {
			t.TestedBy = TestedBy{r.Annotations["runner"], r.Annotations["host"], version}
		}
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("attest: tests: %w", err)
	}
	return t, nil
}
