//go:build !linux

package confine

import (
	"context"
	"syscall"
)

func (c Command) run(ctx context.Context) (closed bool, err error) {
	cmd, said := c.command(ctx)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return false, err
	}
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has left running
	return false, failed(err, said)
}
