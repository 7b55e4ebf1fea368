package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openBinfmt opens the kernel's list of emulators and returns a folder to read it in,
// valid until it is closed. Where it is not mounted, as in a container on its own
// /proc, a privileged process sees it all the same, through a mount in no tree.
func openBinfmt() (dir string, closeIt func()) {
	if _, err := os.Stat(binfmtDir + "/status"); err == nil {
		return binfmtDir, func() {}
	}
	context, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return binfmtDir, func() {}
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return binfmtDir, func() {}
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return binfmtDir, func() {}
	}
	return fmt.Sprintf("/proc/self/fd/%d", mount), func() { unix.Close(mount) }
}
