package need_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// A recorder notes how a test ends, and ends it by a panic.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper()          {}
func (r *recorder) Skip(args ...any) { r.end("skipped: " + fmt.Sprint(args...)) }
func (r *recorder) Skipf(format string, args ...any) {
	r.end("skipped: " + fmt.Sprintf(format, args...))
}
func (r *recorder) Fatalf(format string, args ...any) {
	r.end("failed: " + fmt.Sprintf(format, args...))
}

func (r *recorder) end(how string) {
	r.ended = how
	panic(r)
}

// TestLevels guards against a test that the gate skips silently, and against one
// that fails on a machine that has nothing but Go.
func TestLevels(t *testing.T) {
	missing := func(t testing.TB) { need.Missing(t, "a thing", "install it") }
	minutes := func(t testing.TB) { need.Minutes(t, "a compile") }
	aWeek := func(t testing.TB) { need.AWeek(t, "a fuzz") }
	program := func(t testing.TB) { need.Program(t, "no such program", "a-package") }
	for _, test := range []struct {
		level string
		asks  func(testing.TB)
		want  string // what it begins with; "" for a test that goes on
	}{
		{"", missing, "skipped: needs a thing: install it"},
		{need.Gate, missing, "failed: needs a thing: install it"},
		{need.Weekly, missing, "failed: needs a thing: install it"},
		{"", program, "skipped: needs no such program: install Debian's package a-package"},
		{need.Gate, program, "failed: needs no such program: install Debian's package a-package"},
		{"", minutes, "skipped: needs minutes (a compile)"},
		{need.Gate, minutes, ""},
		{need.Weekly, minutes, ""},
		{"", aWeek, "skipped: needs much time (a fuzz)"},
		{need.Gate, aWeek, "skipped: needs much time (a fuzz)"},
		{need.Weekly, aWeek, ""},
		{"gaet", minutes, `failed: DERPER_TESTS is "gaet"`}, // misspelt, it must not mean none
		{"gaet", missing, `failed: DERPER_TESTS is "gaet"`},
	} {
		t.Setenv(need.Variable, test.level)
		r := &recorder{TB: t}
		func() {
			defer func() {
				if p := recover(); p != nil && p != any(r) {
					panic(p)
				}
			}()
			test.asks(r)
		}()
		if (r.ended == "") != (test.want == "") || !strings.HasPrefix(r.ended, test.want) {
			t.Errorf("%s=%q: %q, want %q", need.Variable, test.level, r.ended, test.want)
		}
	}
}
