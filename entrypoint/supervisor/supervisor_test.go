package supervisor

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// The tests share one Supervisor: two would reap each other's processes.
var shared = New()

func shell(t *testing.T, script string, files ...*os.File) *Process {
	t.Helper()
	p, err := shared.Start(need.Program(t, "sh", "dash"), []string{"-c", script}, os.Environ(), files...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ended(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
}

func TestCode(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "kill -TERM $$": 143} {
		p := shell(t, script)
		ended(t, p)
		if p.Code() != want {
			t.Errorf("%s: code %d, want %d", script, p.Code(), want)
		}
		p.Signal(syscall.SIGTERM) // to a process that is gone: nothing
	}
	// Many that end before anybody looks.
	var all []*Process
	for range 50 {
		all = append(all, shell(t, "exit 3"))
	}
	for _, p := range all {
		if ended(t, p); p.Code() != 3 {
			t.Fatalf("code %d", p.Code())
		}
	}
	if _, err := shared.Start("/nonexistent", nil, nil); err == nil || !strings.Contains(err.Error(), "start /nonexistent") {
		t.Errorf("a missing program: %v", err)
	}
	var none *Process
	none.Signal(syscall.SIGTERM)
	none.Stop(time.Second)
	if none.Done() != nil {
		t.Error("no process has ended")
	}
}

// The mistake it guards: a process that does not end on SIGTERM keeps the
// container from ending.
func TestStop(t *testing.T) {
	trapped := func(action string) *Process {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p := shell(t, "trap '"+action+"' TERM; echo >&3; exec 3>&-; while :; do sleep 0.05; done", w)
		w.Close()
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	polite := trapped("exit 5")
	polite.Stop(time.Minute)
	if polite.Code() != 5 {
		t.Errorf("code %d, want its own", polite.Code())
	}
	deaf := trapped("")
	begin := time.Now()
	deaf.Stop(300 * time.Millisecond)
	if took := time.Since(begin); deaf.Code() != 137 || took > 30*time.Second {
		t.Errorf("code %d after %v", deaf.Code(), took)
	}
}

func TestFiles(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.WriteString("secret")
	w.Close()
	p := shell(t, `test "$(cat /proc/self/fd/3)" = secret && test -z "$(cat)"`, r)
	r.Close()
	if ended(t, p); p.Code() != 0 {
		t.Errorf("code %d", p.Code())
	}
}

func TestBackoff(t *testing.T) {
	var b Backoff
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		if got := b.Next(time.Second); got != want*time.Second {
			t.Errorf("restart %d after %v, want %v", i, got, want*time.Second)
		}
	}
	if got := b.Next(2 * time.Minute); got != time.Second {
		t.Errorf("after two minutes of work: %v", got)
	}
}
