package toolchain

import (
	"os/exec"
	"runtime"
	"sync"
	"testing"
)

// TestThreadsEnd guards a command against the end of a thread: package container ends
// threads on purpose, and the kernel kills what was started on one.
func TestThreadsEnd(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that goroutines change threads
	done := make(chan struct{})
	var enders, commands sync.WaitGroup
	enders.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				enders.Go(func() { runtime.LockOSThread() }) // never unlocked: the thread ends with it
				runtime.Gosched()
			}
		}
	})
	for range 50 {
		commands.Go(func() {
			if err := wait(t.Context(), exec.CommandContext(t.Context(), "sleep", "0.5"), "sleep", nil); err != nil {
				t.Error(err)
			}
		})
	}
	commands.Wait()
	close(done)
	enders.Wait()
}
