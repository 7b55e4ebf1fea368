//go:build unix

package container

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps Ctrl-C from a command: it is for us, and we end it in order.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
