package supervisor

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// child is a Child that runs a script.
func child(t *testing.T, script string) *Child {
	t.Helper()
	sh := need.Program(t, "sh", "dash")
	return NewChild(func() (*Process, error) {
		return shared.Start(Command{Path: sh, Args: []string{"-c", script}, Environ: os.Environ()})
	})
}

func receive[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("never: " + what)
	}
}

// The mistake it guards: a program that ends and is not started again, or one that is
// started again and again without a pause.
func TestChild(t *testing.T) {
	c := child(t, "exit 7")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		receive(t, "its end", c.Done())
		if code, _, asked := c.Ended(); code != 7 || asked || c.Running() {
			t.Fatalf("code %d, asked %v", code, asked)
		}
		if got := c.Wait(); got != want*time.Second {
			t.Errorf("end %d: the next start waits %v, want %v", i+1, got, want*time.Second)
		}
		if want == 0 {
			receive(t, "the next start", c.Due())
		}
		if err := c.Again(); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, "its end", c.Done())
	if c.Restarts != 9 {
		t.Errorf("%d restarts", c.Restarts)
	}
	var none *Child
	if none.Done() != nil || none.Due() != nil || none.Overdue() != nil || none.Running() {
		t.Error("what is not there does something")
	}
	none.Stop(time.Second)
}

// The mistake it guards: a program that cannot be started once is never started again.
func TestChildFailsToStart(t *testing.T) {
	works := child(t, "exec sleep 1000")
	again := errors.New("resource temporarily unavailable")
	c := NewChild(func() (*Process, error) {
		if again != nil {
			return nil, again
		}
		return works.start()
	})
	if err := c.Start(); !errors.Is(err, again) || c.Running() {
		t.Fatalf("%v", err)
	}
	receive(t, "the next start", c.Due())
	again = nil
	if err := c.Again(); err != nil || !c.Running() {
		t.Fatal(err)
	}
	c.Stop(time.Minute)
	receive(t, "its end", c.Done())
	c.Ended()
}

// The mistake it guards: a program that does not end on SIGTERM keeps the container from
// ending; and one that was stopped for good comes back.
func TestChildStops(t *testing.T) {
	polite := child(t, "exec sleep 1000")
	if err := polite.Start(); err != nil {
		t.Fatal(err)
	}
	polite.Stop(time.Minute)
	receive(t, "its end", polite.Done())
	if code, _, asked := polite.Ended(); code != 128+int(syscall.SIGTERM) || !asked || polite.Due() != nil {
		t.Errorf("code %d, asked %v", code, asked)
	}
	// One that stands still gets no SIGTERM.
	ready, says, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	frozen := NewChild(func() (*Process, error) {
		return shared.Start(Command{
			Path: need.Program(t, "sh", "dash"), Environ: os.Environ(), Files: []*os.File{says},
			Args: []string{"-c", "trap 'exit 5' TERM; echo >&3; while :; do sleep 0.05; done"},
		})
	})
	if err := frozen.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	says.Close()
	frozen.Signal(syscall.SIGSTOP)
	frozen.Renew(10 * time.Millisecond)
	receive(t, "that it takes too long", frozen.Overdue())
	frozen.Kill()
	receive(t, "its end", frozen.Done())
	if code, _, asked := frozen.Ended(); code != 137 || !asked {
		t.Errorf("code %d, asked %v", code, asked)
	}
	receive(t, "the next start", frozen.Due())
	// Stopped before it is started again, it stays stopped.
	frozen.Stop(time.Second)
	if frozen.Due() != nil {
		t.Error("it comes back")
	}
}
