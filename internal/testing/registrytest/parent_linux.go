package registrytest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// endWithParent lets a program end with this process, also where that panics or is killed.
// The goroutine that calls it starts the program and waits for it: the kernel ends a program
// with the thread that started it, so the goroutine keeps its thread.
// Source: prctl(2), PR_SET_PDEATHSIG.
func endWithParent(cmd *exec.Cmd) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
