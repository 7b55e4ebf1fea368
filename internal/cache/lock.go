package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// ErrNoLocks says that a file system refuses to lock a file for another reason than
// that somebody else holds the lock.
var ErrNoLocks = errors.New("the file system does not lock files")

// Lock waits until no other program runs the action with this key, and keeps
// others from it until unlock is called or this program ends. It calls wait once
// when it has to.
func (c *Cache) Lock(ctx context.Context, key string, wait func()) (unlock func(), err error) {
	if unlock, err = lock(ctx, fileLock(c.actionFile(key, ".lock")), wait); err != nil {
		err = fmt.Errorf("cache: %w", err)
	}
	return unlock, err
}

// LockFolder is Lock for a folder outside of any cache, made when missing.
func LockFolder(ctx context.Context, dir string, wait func()) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return lock(ctx, folderLock(dir), wait)
}

func lock(ctx context.Context, l *flock.Flock, wait func()) (unlock func(), err error) {
	ok, err := try(l, l.TryLock)
	if err == nil && !ok {
		wait()
		_, err = l.TryLockContext(ctx, 50*time.Millisecond)
	}
	return func() { l.Close() }, err
}

// fileLock is the lock on a file, made when missing. It opens it for writing: some
// network file systems lock nothing else.
func fileLock(name string) *flock.Flock {
	return flock.New(name, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o666))
}

// folderLock is the lock on a folder.
func folderLock(dir string) *flock.Flock { return flock.New(dir, flock.SetFlag(os.O_RDONLY)) }

// try tries to take a lock. It is not ok, and no error, when somebody else holds it.
func try(l *flock.Flock, take func() (bool, error)) (ok bool, err error) {
	ok, err = take()
	if errno, bare := err.(syscall.Errno); bare {
		err = fmt.Errorf("lock %s: %w: %w", l.Path(), ErrNoLocks, errno)
	}
	return ok, err
}
