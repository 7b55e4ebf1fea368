package main

import (
	"errors"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/health"
)

// The mistake it guards: a relay that is taken out of use for a moment without
// verification, or one that stays ready while nobody can be let in.
func TestForgive(t *testing.T) {
	lost := errors.New("lost")
	for _, part := range []string{health.Verification, health.VerifyURL, health.VerifyNodes, "https"} {
		v, now := newVerdict(), time.Now()
		ready := func(err error, after time.Duration) bool {
			results := []health.Result{{Part: part, Err: err}}
			v.forgive(results, now.Add(after))
			return results[0].Err == nil
		}
		if ready(lost, 0) {
			t.Errorf("%s: never worked, and is forgiven", part)
		}
		if !ready(nil, 0) {
			t.Errorf("%s: works, and is not ready", part)
		}
		if got, want := ready(lost, lostPatience-time.Second), part != "https"; got != want {
			t.Errorf("%s: lost for less than a minute, ready is %v", part, got)
		}
		if ready(lost, lostPatience+time.Second) {
			t.Errorf("%s: lost for more than a minute, and still ready", part)
		}
	}
}
