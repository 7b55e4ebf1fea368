package attest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
)

// testsOf are results of tests of a subject.
func testsOf(s attest.Subject) attest.Tests {
	return attest.Tests{
		Digest: s.Descriptor.Digest.String(), Platform: s.Platform, Passed: []string{"versions", "probe/ipv4"}, Skipped: []string{"probe/ipv6"},
		TestedBy: attest.TestedBy{Runner: "native", Host: "linux/amd64", Version: "v0.1.0"},
	}
}

// TestTests guards what anybody reads of how an image was tested: what is written is read
// back, from the file and from the statement, which is about the image that was tested alone.
func TestTests(t *testing.T) {
	b := attesttest.Build(t, nil)
	set := attesttest.Set(t, b)
	for _, fails := range []bool{false, true} {
		want := testsOf(set.Subjects[1])
		result := "PASSED"
		if fails {
			want.Failed, result = []string{"sigterm"}, "FAILED"
		}
		data, err := json.Marshal([]attest.Tests{want})
		if err != nil {
			t.Fatal(err)
		}
		list, err := attest.ParseTests(data)
		if err != nil || !reflect.DeepEqual(list, []attest.Tests{want}) {
			t.Errorf("from the file: %+v, %v", list, err)
		}
		statements, err := set.TestStatements(list)
		if err != nil || len(statements) != 1 {
			t.Fatalf("%d statements, %v", len(statements), err)
		}
		s := statements[0]
		var in struct {
			Subject       []struct{ Digest map[string]string }
			PredicateType string
			Predicate     struct {
				Result      string
				PassedTests []string
				WarnedTests []string
				FailedTests []string
			}
		}
		if err := json.Unmarshal(s.Payload, &in); err != nil {
			t.Fatal(err)
		}
		if p := in.Predicate; in.PredicateType != "https://in-toto.io/attestation/test-result/v0.1" || p.Result != result ||
			!slices.Equal(p.PassedTests, []string{"suite versions", "suite probe/ipv4"}) || p.WarnedTests == nil || len(p.FailedTests) != len(want.Failed) {
			t.Errorf("statement: %s", s.Payload)
		}
		if len(in.Subject) != 1 || "sha256:"+in.Subject[0].Digest["sha256"] != want.Digest || !reflect.DeepEqual(s.Subjects, set.Subjects[1:2]) {
			t.Errorf("is about %v, attached to %v", in.Subject, s.Subjects)
		}
		got, err := attest.ParseTestStatement(s.Payload)
		if err != nil || got.Result() != result {
			t.Fatalf("%+v, %v", got, err)
		}
		got.Digest, got.Platform = want.Digest, want.Platform
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("from the statement: %+v", got)
		}
		// It says nothing of a rebuild, nor does a rebuild of tests.
		if passed, failed, err := attest.ParseRebuild(s.Payload); err == nil && len(passed)+len(failed) > 0 {
			t.Errorf("as a rebuild: %q, %q", passed, failed)
		}
		rebuild, err := attest.Rebuild{Inputs: b.Lock.Inputs, Host: "linux/amd64", Passed: []string{"linux/amd64"}}.Statement(set.Subjects[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attest.ParseTestStatement(rebuild.Payload); err == nil {
			t.Error("a rebuild is read as tests")
		}
	}
}

// TestTestsRefused guards the signer: results may come from another machine, and nothing is
// signed of another image, or that a reader of the signed results would be deceived by.
func TestTestsRefused(t *testing.T) {
	set := attesttest.Set(t, attesttest.Build(t, nil))
	for _, tt := range []struct {
		name   string
		change func(*attest.Tests)
		want   string
	}{
		{"another digest", func(r *attest.Tests) { r.Digest = "sha256:" + strings.Repeat("0", 64) }, "are of sha256:000"},
		{"the index", func(r *attest.Tests) { r.Digest = set.Subjects[0].Descriptor.Digest.String() }, "which is no image of the index"},
		{"another platform", func(r *attest.Tests) { r.Platform = "linux/arm/v7" }, "which is the image for linux/amd64"},
		{"nothing ran", func(r *attest.Tests) { r.Passed = nil }, "no case ran"},
		{"a line break", func(r *attest.Tests) { r.Passed = []string{"a\nindex ok"} }, `"a\nindex ok" is no name of a case`},
		{"an escape", func(r *attest.Tests) { r.Failed = []string{"\x1b[2J"} }, "is no name of a case"},
		{"passed and failed", func(r *attest.Tests) { r.Failed = r.Passed[:1] }, `duplicate case "versions"`},
		{"too many", func(r *attest.Tests) {
			for i := range 2000 {
				r.Passed = append(r.Passed, fmt.Sprint(i))
			}
		}, "more than 2000"},
		{"a runner", func(r *attest.Tests) { r.Runner = "" }, "is no runner"},
		{"a host", func(r *attest.Tests) { r.Host = "linux amd64" }, "expected one word"},
	} {
		r := testsOf(set.Subjects[1])
		tt.change(&r)
		if _, err := set.TestStatements([]attest.Tests{testsOf(set.Subjects[2]), r}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := set.TestStatements([]attest.Tests{{Digest: "sha256:", Passed: []string{"x"}, TestedBy: testsOf(set.Subjects[1]).TestedBy}}); !errors.Is(err, attest.ErrOtherImage) {
		t.Errorf("no digest: %v", err)
	}
	for _, data := range []string{"", "{}", `[{"digest":"x","other":1}]`, `[{"digest":"x","digest":"y"}]`, "[{}]", "[null]"} {
		if _, err := attest.ParseTests([]byte(data)); err == nil {
			t.Errorf("%q is read", data)
		}
	}
}
