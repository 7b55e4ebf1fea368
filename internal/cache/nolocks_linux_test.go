package cache

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseLocks makes the kernel refuse this program all locks on files of a kind, as it
// does on a network file system without a lock service.
func refuseLocks(kind uint32) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nr, secondArgument = 0, 24 // offsets in struct seccomp_data, on a little-endian machine
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FLOCK, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: secondArgument},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: kind, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOLCK)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	return nil
}

// TestNoLocks guards against a cache on a file system without locks: it made folders
// for ever, or said that another build uses the cache.
func TestNoLocks(t *testing.T) {
	for _, how := range []string{"no shared locks", "no exclusive locks"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+strings.ReplaceAll(how, " ", "-")+" "+dir)
			out, err := cmd.CombinedOutput()
			if ctx.Err() != nil {
				t.Fatal("it does not end")
			}
			for _, want := range []string{"cache: lock " + dir, ErrNoLocks.Error(), syscall.ENOLCK.Error()} {
				if err == nil || !strings.Contains(string(out), want) {
					t.Errorf("%v: %s: not %q", err, out, want)
				}
			}
			if left, err := filepath.Glob(filepath.Join(dir, "tmp", "*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// noLocks opens a cache, and locks a folder, where no file can be locked.
func noLocks(dir string, kind uint32) error {
	if err := refuseLocks(kind); err != nil {
		return err
	}
	if _, err := LockFolder(context.Background(), filepath.Join(dir, "folder"), nil); kind == unix.LOCK_EX && !errors.Is(err, ErrNoLocks) {
		return errors.New("the folder was locked")
	}
	os.Remove(filepath.Join(dir, "folder"))
	c, err := Open(dir)
	if err == nil {
		return c.Close()
	}
	if !errors.Is(err, ErrNoLocks) {
		return errors.Join(err, errors.New("not ErrNoLocks"))
	}
	return err
}
