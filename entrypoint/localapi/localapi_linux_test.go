package localapi

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// asks has the test's program ask and end.
const asks = "LOCALAPI_TEST_ASKS"

func TestMain(m *testing.M) {
	if command := os.Getenv(asks); command != "" {
		a, err := Ask(context.Background(), command)
		if err != nil {
			os.Stdout.WriteString("error: " + err.Error())
		}
		os.Stdout.WriteString(a.Out)
		os.Exit(a.Code)
	}
	os.Exit(m.Run())
}

// ask asks from a process in a mount namespace of its own, or as another user.
func ask(t *testing.T, attr *syscall.SysProcAttr) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.SysProcAttr = append(os.Environ(), asks+"=env"), attr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The mistake it guards: a command that is answered by the relay of another container, one
// that a stranger asks, and one that a stranger answers.
func TestAsk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := Ask(ctx, "env"); !errors.Is(err, ErrNobody) {
		t.Fatalf("nobody is there: %v", err)
	}
	server, err := Serve(func(_ context.Context, command string) Answer {
		return Answer{Out: "out of " + command, Err: "err", Code: 3}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if a, err := Ask(ctx, "env"); err != nil || a != (Answer{Out: "out of env", Err: "err", Code: 3}) {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := Serve(nil); !errors.Is(err, ErrTaken) {
		t.Errorf("a second one: %v", err)
	}
	t.Run("another container", func(t *testing.T) {
		need.Namespaces(t)
		attr := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			attr.Cloneflags = syscall.CLONE_NEWUSER
			attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		}
		if got := ask(t, attr); got != "error: "+ErrNobody.Error() {
			t.Errorf("says %q", got)
		}
	})
	t.Run("another user", func(t *testing.T) {
		need.Root(t, "to ask as another user")
		cmd := exec.Command("/proc/self/fd/3") // another user may not find the test's program
		f, err := os.Open(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env, cmd.Dir = append(os.Environ(), asks+"=env"), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out); got != "error: the relay runs as uid 0, and answers that user and root; this is uid 65534" {
			t.Errorf("says %q", got)
		}
	})
}

// The mistake it guards: an answer that a stranger gets, or the question of a relay's own
// user that is refused.
func TestTrust(t *testing.T) {
	own := os.Geteuid()
	for _, test := range []struct {
		peer          peer
		near, trusted bool
	}{
		{peer{pid: 5, uid: own}, true, true},
		{peer{pid: 5, uid: 0}, true, true},
		{peer{pid: 5, uid: own + 1}, true, false},
		{peer{pid: 0, uid: own}, false, true}, // outside of this container
	} {
		if test.peer.near() != test.near || test.peer.trusted() != test.trusted {
			t.Errorf("%+v: near %v, trusted %v", test.peer, test.peer.near(), test.peer.trusted())
		}
	}
}
