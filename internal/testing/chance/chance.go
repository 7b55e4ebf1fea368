// Package chance is for tests that pick moments or sizes at random: each says its seed, and
// can be run again with it.
package chance

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Variable names the seed, a number, in place of a new one.
const Variable = "DERPER_SEED"

// New is a source of random numbers. It logs its seed.
func New(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if value := os.Getenv(Variable); value != "" {
		var err error
		if seed, err = strconv.ParseUint(value, 10, 64); err != nil {
			t.Fatalf("%s: %v", Variable, err)
		}
	}
	t.Logf("%s=%d runs this with the same random numbers", Variable, seed)
	return rand.New(rand.NewPCG(seed, 0))
}
