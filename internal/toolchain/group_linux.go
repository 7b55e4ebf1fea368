package toolchain

import "syscall"

// ownGroup puts a process into a group of its own. It dies with the thread that starts
// it, and so with this program even when that is killed; compilers that it has started
// end by themselves then.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
