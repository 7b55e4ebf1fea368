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
	p, err := shared.Start(Command{Path: need.Program(t, "sh", "dash"), Args: []string{"-c", script}, Environ: os.Environ(), Files: files})
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
	if _, err := shared.Start(Command{Path: "/nonexistent"}); err == nil || !strings.Contains(err.Error(), "start /nonexistent") {
		t.Errorf("a missing program: %v", err)
	}
	var none *Process
	none.Signal(syscall.SIGTERM)
	if none.Done() != nil {
		t.Error("no process has ended")
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

// The mistake it guards: the version of derper, read without a bound, or a program that
// never ends and is waited for.
func TestOutput(t *testing.T) {
	sh := need.Program(t, "sh", "dash")
	run := func(script string, patience time.Duration) (string, error) {
		return shared.Output(Command{Path: sh, Args: []string{"-c", script}, Environ: os.Environ()}, patience)
	}
	if out, err := run("echo a; echo b >&2", time.Minute); err != nil || out != "a\nb\n" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("echo why; exit 3", time.Minute); err == nil || !strings.Contains(err.Error(), "ended with code 3: why") {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := run("exec sleep 1000", 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "ended with code 137") {
		t.Errorf("what does not end: %v", err)
	}
	if out, _ := run("while :; do echo many; done", time.Minute); len(out) > 4<<10 {
		t.Errorf("%d bytes are read", len(out))
	}
}
