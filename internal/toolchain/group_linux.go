package toolchain

import "syscall"

// ownGroup puts a process into a group of its own, which dies with this program
// even when that is killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
