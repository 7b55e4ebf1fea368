package need

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// childVariable makes this process the one that [Namespaces] tries with.
const childVariable = "DERPER_TEST_NAMESPACES"

func init() {
	if os.Getenv(childVariable) == "" {
		return
	}
	// AppArmor can let a user make namespaces, and do nothing in them.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "mount:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// privileged is what helps root who may not do what root can.
const privileged = "start the container with --privileged"

// HasNamespaces says why this process can make no namespaces; nil where it can.
func HasNamespaces() error { return namespaces() }

// namespaces tries once.
var namespaces = sync.OnceValue(func() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return err
})

// Namespaces is for what makes namespaces, as containers are made of: root may, and other
// users where the machine lets them.
func Namespaces(t testing.TB) {
	t.Helper()
	if err := namespaces(); err != nil {
		do := "run .ci/prepare, or the tests as root"
		if os.Getuid() == 0 {
			do = privileged
		}
		Missing(t, "namespaces", fmt.Sprintf("%s (%v)", do, err))
	}
}
