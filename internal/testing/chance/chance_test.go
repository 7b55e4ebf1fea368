package chance_test

import (
	"testing"

	"github.com/xavieralpha/derper/internal/testing/chance"
)

// TestSeed guards against a failure that cannot be had again, and against a test that runs
// with the same numbers every time.
func TestSeed(t *testing.T) {
	t.Setenv(chance.Variable, "12345")
	if a, b := chance.New(t).Uint64(), chance.New(t).Uint64(); a != b {
		t.Errorf("the same seed gives %d and %d", a, b)
	}
	t.Setenv(chance.Variable, "")
	if a, b := chance.New(t).Uint64(), chance.New(t).Uint64(); a == b {
		t.Errorf("no seed gives %d twice", a)
	}
}
