package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// A run keeps its files in a directory of its own, and holds a lock in it as long as it lives. The kernel gives the
// lock back however the run ends, so a directory whose lock is free belongs to nobody.

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

// state is the directory of one run.
type state struct {
	dir  string
	lock *flock.Flock
}

func newState() (*state, error) {
	parent, err := stateDir()
	if err != nil {
		return nil, err
	}
	for {
		dir, err := os.MkdirTemp(parent, "run-")
		if err != nil {
			return nil, err
		}
		l, err := lockFile(filepath.Join(dir, "lock"), os.O_CREATE)
		if err == nil {
			if _, err = os.Stat(dir); err == nil {
				return &state{dir, l}, nil
			}
			l.Close()
		}
		os.RemoveAll(dir)
		// Somebody who sweeps may see the file before it is locked. Then the directory is theirs.
		if !errors.Is(err, errLocked) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// id names the run, for others to look up with alive.
func (s *state) id() string { return filepath.Base(s.dir) }

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

func (s *state) remove() error {
	err := os.RemoveAll(s.dir)
	s.lock.Close()
	return err
}

var errLocked = errors.New("locked")

func lockFile(name string, flag int) (*flock.Flock, error) {
	l := flock.New(name, flock.SetFlag(flag|os.O_RDWR))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if !ok {
		return nil, errLocked
	}
	return l, nil
}

// alive reports whether the run of that id holds its lock.
func alive(id string) (bool, error) {
	parent, err := stateDir()
	if err != nil {
		return false, err
	}
	l, err := lockFile(filepath.Join(parent, filepath.Base(id), "lock"), 0)
	switch {
	case errors.Is(err, errLocked):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	return false, l.Close()
}

// sweepState removes the directories of dead runs.
func sweepState() error {
	parent, err := stateDir()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		l, err := lockFile(filepath.Join(dir, "lock"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			// Just being made, or made by a run that was killed in that moment.
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Minute {
				errs = append(errs, os.Remove(dir))
			}
			continue
		}
		if err != nil {
			if !errors.Is(err, errLocked) {
				errs = append(errs, err)
			}
			continue
		}
		errs = append(errs, os.RemoveAll(dir), l.Close())
	}
	return errors.Join(errs...)
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
