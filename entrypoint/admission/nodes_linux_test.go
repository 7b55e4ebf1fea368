package admission

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// The mistake it guards: a start that hangs on a pipe.
func TestNodesPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewNodes(path, t.Logf).Err(); err == nil || err.Error() != path+": is no regular file" {
		t.Error(err)
	}
}

// The mistake it guards: a file that is let be read, and does not count because
// its time stays the same.
func TestNodesForbidden(t *testing.T) {
	need.Root(t, "to be another user")
	dir, err := os.MkdirTemp("", "nodes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "nodes")
	write(t, path, newKey().String())
	age(t, path, time.Hour)
	errs := make(chan error, 2)
	// A thread of its own is another user; it ends with the goroutine.
	go func() {
		runtime.LockOSThread()
		syscall.Setfsuid(65532)
		n := NewNodes(path, t.Logf)
		errs <- n.Err()
		syscall.Setfsuid(0)
		os.Chmod(path, 0o644)
		syscall.Setfsuid(65532)
		errs <- n.Err()
	}()
	if err := <-errs; err == nil || !strings.Contains(err.Error(), "may not read "+path+"; make it readable") {
		t.Error(err)
	}
	if err := <-errs; err != nil {
		t.Errorf("after it was made readable: %v", err)
	}
}
