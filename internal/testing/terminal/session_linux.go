package terminal

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Session is a program on a pseudo terminal, and somebody who types.
type Session struct {
	t      testing.TB
	person *os.File
	said   chan string // by the program; closed when it has let go of the terminal
	rest   string      // what the program said after what was last waited for
	code   chan int
	late   <-chan time.Time
}

// Start starts a command on a pseudo terminal of its own. It has two minutes, and is killed when the test ends.
func Start(t testing.TB, cmd *exec.Cmd) *Session {
	t.Helper()
	person, program := Open(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	program.Close() // so that reading ends when the last of its programs has
	s := &Session{t: t, person: person, said: make(chan string), code: make(chan int, 1), late: time.After(2 * time.Minute)}
	over := make(chan struct{})
	t.Cleanup(func() {
		close(over)
		cmd.Process.Kill() //nolint:errcheck // it may have ended
	})
	go func() {
		cmd.Wait() //nolint:errcheck // the code says it
		s.code <- cmd.ProcessState.ExitCode()
	}()
	go func() {
		defer close(s.said)
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			if err != nil {
				return
			}
			select {
			case s.said <- string(buf[:n]):
			case <-over:
				return
			}
		}
	}()
	return s
}

// whereIs asks a terminal where its cursor is. Programs that draw wait for the answer.
const whereIs = "\x1b[6n"

// Type types keys and waits until the program has shown all of want after that, in this order.
func (s *Session) Type(keys string, want ...string) {
	s.t.Helper()
	if _, err := s.person.WriteString(keys); err != nil {
		s.t.Fatalf("type %q: %v", keys, err)
	}
	screen := s.rest
	for _, w := range want {
		for !strings.Contains(s.rest, w) {
			select {
			case more, ok := <-s.said:
				if !ok {
					s.t.Fatalf("typed %q: the program ended without %q after\n%s", keys, w, screen)
				}
				screen, s.rest = screen+more, s.rest+more
				for range strings.Count(more, whereIs) {
					s.person.WriteString("\x1b[1;1R") //nolint:errcheck // what is typed next says it
				}
			case <-s.late:
				s.t.Fatalf("typed %q: no %q in\n%s", keys, w, screen)
			}
		}
		_, s.rest, _ = strings.Cut(s.rest, w)
	}
}

// Ends types keys and expects the program to end with a code.
func (s *Session) Ends(keys string, want int) {
	s.t.Helper()
	s.Type(keys)
	screen := s.rest
	for said := s.said; ; {
		select {
		case more, ok := <-said:
			if !ok {
				said = nil
			}
			screen += more
		case code := <-s.code:
			if code != want {
				s.t.Errorf("typed %q: ended with code %d, want %d:\n%s", keys, code, want, screen)
			}
			return
		case <-s.late:
			s.t.Fatalf("typed %q: the program did not end:\n%s", keys, screen)
		}
	}
}
