package confine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// run runs the program from this thread, whose rights are those of the program from then on.
func (c Command) run(ctx context.Context) (closed bool, err error) {
	files, err := c.restrict()
	if err != nil {
		return false, fmt.Errorf("confine: %w", err)
	}
	sockets, err := withoutSockets()
	if err != nil {
		return false, fmt.Errorf("confine: %w", err)
	}
	for _, flags := range []uintptr{namespaces, 0} {
		cmd, said := c.command(ctx)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: flags}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		if err = cmd.Start(); err != nil {
			if flags != 0 && refusesNamespaces(err) {
				continue
			}
			return false, err
		}
		err = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has left running
		return files && sockets && flags != 0, failed(err, said)
	}
	return false, err
}

// namespaces are those of the program's own: without network, and without other processes than
// those that it starts, which end with it, in whatever session they are.
const namespaces = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC

// refusesNamespaces reports whether a system does not give its users namespaces of their own.
func refusesNamespaces(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSPC, unix.ENOSYS, unix.EUSERS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Rights of Landlock, by the version of its interface that has them.
// Source: https://docs.kernel.org/userspace-api/landlock.html.
const (
	readFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	ofAFile   = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	version2  = unix.LANDLOCK_ACCESS_FS_REFER<<1 - 1 // and all that were there before
	connect   = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
)

// restrict leaves this thread, and what it starts, the files of the command. It reports
// whether it could: there are kernels without Landlock.
func (c Command) restrict() (bool, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < 2 { // the first refuses to move files between folders
		return false, nil
	}
	all := uint64(version2)
	if version >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: all}
	if version >= 4 {
		attr.Handled_access_net = connect
	}
	if version >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return false, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(set))
	// Of the system, what Go's runtime and package memlimit read.
	allowed := map[string]uint64{c.Dir: all, "/proc": readFiles, "/sys": readFiles, "/dev/null": ofAFile}
	for _, name := range append([]string{c.Program}, c.Read...) {
		allowed[name] = readFiles
	}
	for _, name := range c.Write {
		allowed[name] = all
	}
	for name, rights := range allowed {
		if err := allow(int(set), name, rights&all); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, os.NewSyscallError("prctl", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return false, os.NewSyscallError("landlock_restrict_self", errno)
	}
	return true, nil
}

// allow adds a rule: these rights to what has a name, and to all that is below.
func allow(set int, name string, rights uint64) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofAFile
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock_add_rule %s: %w", name, errno)
	}
	return nil
}
