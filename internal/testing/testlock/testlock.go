// Package testlock lets one test binary at a time do what a machine should do only once.
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

// folder is that of the process as it starts: tests change it.
var folder = os.TempDir()

// Take waits until no other process of this user has the lock of this name.
func Take(name string) (*flock.Flock, error) {
	l := flock.New(filepath.Join(folder, fmt.Sprintf("derper-test-%s-%d.lock", name, os.Getuid())))
	if _, err := l.TryLockContext(context.Background(), 100*time.Millisecond); err != nil {
		return nil, fmt.Errorf("%s: %w", l, err)
	}
	return l, nil
}

// held keeps locks until they are closed, also where nobody keeps what closes them.
var held []*flock.Flock

// Containers waits until no other test binary of this user runs containers, and
// keeps others from it until unlock is called, or this one ends.
func Containers() (unlock func(), err error) {
	l, err := Take("containers")
	if err != nil {
		return nil, err
	}
	held = append(held, l)
	return func() { l.Close() }, nil
}
