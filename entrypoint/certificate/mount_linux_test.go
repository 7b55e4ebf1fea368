package certificate_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// The mistake it guards: a renewal that replaces one file of two and stops at the other, which
// is mounted by itself; nobody can replace such a one.
func TestRenewMounted(t *testing.T) {
	need.Root(t, "to mount a file")
	for _, only := range []string{".key", ".crt"} {
		t.Run(only, func(t *testing.T) {
			p := made(t, "derp.example.com")
			before := load(t, p)
			file := strings.TrimSuffix(p.Crt, ".crt") + only
			err := syscall.Mount(file, file, "", syscall.MS_BIND, "")
			if errors.Is(err, fs.ErrPermission) {
				need.Missing(t, "a mount", fmt.Sprintf("start the container with --privileged (mount: %v)", err))
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(file, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			_, err = p.Renew(now)
			says(t, p, err, "the pair cannot be replaced: ", "mount the folder of the two files, not each of them")
			if !load(t, p).Same(before) {
				t.Error("the pair changed")
			}
			if left := strings.Join(names(t, p), " "); strings.Contains(left, ".renew") {
				t.Errorf("left: %s", left)
			}
		})
	}
}
