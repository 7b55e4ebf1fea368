package supervisor

import (
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The mistake it guards: a process whose parent has ended, as process 1 inherits it, and
// that stays in the process table for ever.
func TestInherited(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil { // as process 1
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	waits, let, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer let.Close()
	said, says, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	parent := shell(t, "(exec 4>&-; read line <&3; exit 0) & echo $! >&4; exit 4", waits, says)
	waits.Close()
	says.Close()
	if ended(t, parent); parent.Code() != 4 {
		t.Errorf("code %d", parent.Code())
	}
	text, err := io.ReadAll(said)
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(orphan, 0); err != nil {
		t.Fatalf("it does not wait: %v", err)
	}
	let.Close()
	for range 1000 { // until it has ended, and was seen
		if syscall.Kill(orphan, 0) == syscall.ESRCH {
			return
		}
		// Its own processes keep their codes meanwhile.
		p := shell(t, "exit 6")
		if ended(t, p); p.Code() != 6 {
			t.Fatalf("code %d", p.Code())
		}
	}
	t.Error("it was never reaped")
}
