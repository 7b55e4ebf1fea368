// Package testlock lets one test binary at a time use what a machine has only once.
// go test runs the tests of several packages side by side; those that start
// containers, and check that none is left, must not see each other's.
package testlock

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Containers waits until no other test binary of this user runs containers, and
// keeps others from it until unlock is called, or this one ends.
func Containers() (unlock func(), err error) {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("derper-test-containers-%d.lock", os.Getuid()))
	// A bare descriptor: nothing but unlock closes it, and so gives the lock back,
	// before the process ends.
	fd, err := syscall.Open(name, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// The runtime's own signals interrupt a long wait.
	for err = syscall.EINTR; err == syscall.EINTR; {
		err = syscall.Flock(fd, syscall.LOCK_EX)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return func() { syscall.Close(fd) }, nil
}
