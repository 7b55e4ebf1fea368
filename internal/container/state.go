package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// A run keeps its files in a directory of its own, and holds a lock in it as long as it lives. The kernel gives the
// lock back however the run ends, so a directory whose lock is free belongs to nobody, once it is made: who makes one,
// or removes what belongs to nobody, holds the lock of the directory of all.

// stateDir is where the directories of all runs of this user are.
func stateDir() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("derper-container-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Getuid() || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s: not a directory of ours with mode 0700: somebody else made it; remove it, or set TMPDIR", dir)
	}
	return dir, nil
}

// lockedStateDir is stateDir with its lock, for a moment.
func lockedStateDir() (dir string, l *flock.Flock, err error) {
	if dir, err = stateDir(); err != nil {
		return "", nil, err
	}
	l = flock.New(dir, flock.SetFlag(os.O_RDONLY))
	if _, err = l.TryLockContext(context.Background(), 10*time.Millisecond); err != nil {
		return "", nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return dir, l, nil
}

// state is the directory of one run.
type state struct {
	dir  string
	lock *flock.Flock
}

func newState() (*state, error) {
	parent, l, err := lockedStateDir()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	dir, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		return nil, err
	}
	s := &state{dir, flock.New(filepath.Join(dir, "lock"))}
	if err := s.lock.Lock(); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", s.lock, err), s.remove())
	}
	return s, nil
}

// id names the run, for others to look up with alive.
func (s *state) id() string { return filepath.Base(s.dir) }

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

func (s *state) remove() error { return errors.Join(removeAll(s.dir), s.lock.Close()) }

// removeAll removes a directory of ours. Who is not root is also the user of containers, which may have closed folders
// of a volume to that user, and a container may have nested so many that [os.RemoveAll] runs out of files: what it
// leaves must not stay, and keep all later runs from starting.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	// Folders are moved up, so that none is deep.
	up, err := os.MkdirTemp(dir, "removed-")
	if err != nil {
		return err
	}
	moved := 0
	for folders := []string{dir}; len(folders) > 0; {
		at := folders[len(folders)-1]
		folders = folders[:len(folders)-1]
		os.Chmod(at, 0o700)
		entries, _ := os.ReadDir(at)
		for _, e := range entries {
			name := filepath.Join(at, e.Name())
			if name == up {
				continue
			}
			if !e.IsDir() {
				os.Remove(name)
				continue
			}
			if at != dir {
				moved++
				to := filepath.Join(up, strconv.Itoa(moved))
				os.Chmod(name, 0o700) // its .. is written
				if os.Rename(name, to) != nil {
					continue
				}
				name = to
			}
			folders = append(folders, name)
		}
		if at != dir {
			os.Remove(at)
		}
	}
	return os.RemoveAll(dir) // which says what is wrong
}

// alive reports whether the run of that id holds its lock.
func alive(id string) (bool, error) {
	parent, err := stateDir()
	if err != nil {
		return false, err
	}
	l := flock.New(filepath.Join(parent, filepath.Base(id), "lock"), flock.SetFlag(os.O_RDWR))
	free, err := l.TryLock()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("lock %s: %w", l, err)
	}
	return !free, l.Close()
}

// sweepState removes the directories of dead runs.
func sweepState() error {
	parent, l, err := lockedStateDir()
	if err != nil {
		return err
	}
	defer l.Close()
	entries, err := os.ReadDir(parent)
	for _, e := range entries {
		on, aerr := alive(e.Name())
		if aerr == nil && !on {
			aerr = removeAll(filepath.Join(parent, e.Name()))
		}
		err = errors.Join(err, aerr)
	}
	return err
}

// TempDir makes a directory for what a tester needs besides containers, such as their volumes. Remove it when done; if
// the tester is killed before, the next Sweep does. Users of containers can get at it.
func TempDir() (dir string, remove func() error, err error) {
	s, err := newState()
	if err != nil {
		return "", nil, err
	}
	dir = s.path("files")
	for _, err := range []error{os.Chmod(s.dir, 0o755), os.Mkdir(dir, 0o755)} {
		if err != nil {
			return "", nil, errors.Join(err, s.remove())
		}
	}
	return dir, s.remove, nil
}
