package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// TestMain is the program that is run, if it is called by a name of its own.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		os.Exit(m.Run())
	}
	if err := programs[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var programs = map[string]func(string) error{
	"read":  func(name string) error { _, err := os.ReadFile(name); return err },
	"write": func(name string) error { return os.WriteFile(name, []byte("evil"), 0o644) },
	"link":  func(name string) error { return os.Link(name, "link") },
	"dial": func(address string) error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	},
	"send": func(address string) error {
		c, err := net.Dial("udp", address)
		if err == nil {
			_, err = c.Write([]byte("secret"))
		}
		return err
	},
	"talk to": func(socket string) error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err
	},
	"kill": func(pid string) error {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return err
		}
		return syscall.Kill(n, syscall.SIGKILL)
	},
	"environment": func(string) error { return errors.New("has: " + strings.Join(os.Environ(), ",")) },
	"talk": func(string) error {
		for range 1 << 12 {
			fmt.Print(strings.Repeat("a", 100))
		}
		return errors.New("the end")
	},
	"hang": func(string) error { time.Sleep(time.Hour); return nil },
	"leave": func(string) error {
		exe, _ := os.Executable()
		return exec.Command(exe, "later", "later").Start()
	},
	"leave well": func(string) error {
		exe, _ := os.Executable()
		cmd := exec.Command(exe, "later", "later")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	},
	"later": func(name string) error {
		time.Sleep(300 * time.Millisecond)
		return os.WriteFile(name, nil, 0o644)
	},
}

func command(t *testing.T, args ...string) Command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := Command{Program: exe, Args: args, Dir: t.TempDir(), Limit: time.Minute}
	for _, name := range []string{"/lib", "/lib64", "/usr/lib"} { // a test may be linked dynamically
		if _, err := os.Stat(name); err == nil {
			c.Read = append(c.Read, name)
		}
	}
	return c
}

// TestRun guards against a program that gets more than it was given.
func TestRun(t *testing.T) {
	t.Setenv("SECRET", "secret")
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	agent, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	other := exec.Command(os.Args[0], "hang", "")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { other.Wait(); close(ended) }()
	defer func() {
		select {
		case <-ended:
			t.Error("the program ended another one of its user's")
		default:
			other.Process.Kill()
			<-ended
		}
	}()
	for _, test := range []struct {
		name   string
		args   []string
		fails  bool
		closed bool // only where the kernel helps
		says   string
	}{
		{name: "its own folder", args: []string{"write", "own"}},
		{name: "its environment", args: []string{"environment", ""}, fails: true, says: "has:"},
		{name: "another's file", args: []string{"read", outside}, fails: true, closed: true, says: "permission denied"},
		{name: "write elsewhere", args: []string{"write", outside}, fails: true, closed: true, says: "permission denied"},
		{name: "another's file by a link", args: []string{"link", outside}, fails: true, closed: true},
		{name: "network", args: []string{"dial", tcp.Addr().String()}, fails: true, closed: true},
		{name: "network without a connection", args: []string{"send", "127.0.0.1:9"}, fails: true, closed: true, says: "unreachable"},
		{name: "a socket of another program", args: []string{"talk to", socket}, fails: true, closed: true},
		{name: "another's environment", args: []string{"read", fmt.Sprintf("/proc/%d/environ", other.Process.Pid)}, fails: true, closed: true, says: "permission denied"},
		{name: "another's process", args: []string{"kill", fmt.Sprint(other.Process.Pid)}, fails: true, closed: true},
		{name: "words without end", args: []string{"talk", ""}, fails: true, says: "the end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.closed {
				need.Linux(t)
			}
			closed, err := command(t, test.args...).Run(t.Context())
			if test.closed && !closed {
				need.Missing(t, "Landlock and user namespaces", "use a newer kernel, or one that allows both")
			}
			if (err != nil) != test.fails || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want one that says %q: %v", err, test.says, test.fails)
			}
			if err != nil && (strings.Contains(err.Error(), "SECRET") || len(err.Error()) > 2*maxWords) {
				t.Errorf("says %d bytes: %.200s", len(err.Error()), err)
			}
		})
	}
}

// TestEnd guards against a program that does not end, or leaves another behind.
func TestEnd(t *testing.T) {
	c := command(t, "hang", "")
	c.Limit = 100 * time.Millisecond
	began := time.Now()
	if _, err := c.Run(t.Context()); !errors.Is(err, ErrSlow) || time.Since(began) > time.Minute {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	for _, how := range []string{"leave", "leave well"} {
		c = command(t, how, "")
		closed, err := c.Run(t.Context())
		if err != nil {
			t.Error(err)
		}
		if how == "leave well" && !closed {
			continue // it is out of its process group, and only a namespace of processes holds it
		}
		time.Sleep(600 * time.Millisecond)
		if _, err := os.Stat(filepath.Join(c.Dir, "later")); err == nil {
			t.Errorf("%s: what it started went on", how)
		}
	}
}
