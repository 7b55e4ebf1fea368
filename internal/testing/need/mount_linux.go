package need

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

// Mount mounts a file system in memory on a folder until the test ends, with options of
// tmpfs, such as how large it is.
func Mount(t testing.TB, dir, options string) {
	t.Helper()
	Root(t, "to mount a file system")
	mount(t, dir, options, 0)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// Remount changes the options of what Mount has mounted.
func Remount(t testing.TB, dir, options string) {
	t.Helper()
	mount(t, dir, options, syscall.MS_REMOUNT)
}

func mount(t testing.TB, dir, options string, flags uintptr) {
	t.Helper()
	err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options)
	if errors.Is(err, fs.ErrPermission) { // root without capabilities
		Missing(t, "a mount", fmt.Sprintf("%s (mount: %v)", privileged, err))
	}
	if err != nil {
		t.Fatalf("mount %s on %s: %v", options, dir, err)
	}
}
