// Package testlock lets one test binary at a time use what a machine has only once.
// go test runs the tests of several packages side by side; those that start
// containers, and check that none is left, must not see each other's.
package testlock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// held keeps the lock until unlock is called, also where nobody keeps unlock.
var held *flock.Flock

// Containers waits until no other test binary of this user runs containers, and
// keeps others from it until unlock is called, or this one ends.
func Containers() (unlock func(), err error) {
	held = flock.New(filepath.Join(os.TempDir(), fmt.Sprintf("derper-test-containers-%d.lock", os.Getuid())))
	if _, err := held.TryLockContext(context.Background(), 100*time.Millisecond); err != nil {
		return nil, fmt.Errorf("%s: %w", held, err)
	}
	return func() { held.Close() }, nil
}
