package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"tailscale.com/types/key"
)

// What is around the relay of a script: clients, whom derper asks about them, and who
// looks at the relay.

// A scriptState is what commands of a script remember for later ones.
type scriptState struct {
	pids       map[string]int             // of programs, when they were last looked at
	keys       map[string]key.NodePrivate // of clients, by name
	controller *controller
}

func stateOf(ts *testscript.TestScript) *scriptState { return ts.Value("state").(*scriptState) }

// A controller pretends to be the one of VERIFY_CLIENT_URL.
type controller struct {
	*httptest.Server
	mode atomic.Value // a string
}

// startController starts one that answers in the given way: a status code, html, allow,
// deny, or silent; and with gone it is not there.
func startController(t testing.TB, mode string) *controller {
	t.Helper()
	c := new(controller)
	c.mode.Store(mode)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mode := c.mode.Load().(string)
		code, err := strconv.Atoi(mode)
		switch {
		case mode == "silent":
			io.Copy(io.Discard, r.Body) // or the server does not see the end of the connection
			<-r.Context().Done()
		case r.URL.Path == "/moved" && r.Method == http.MethodPost, mode == "allow":
			io.WriteString(w, `{"Allow": true}`)
		case mode == "deny":
			io.WriteString(w, `{"Allow": false}`)
		case mode == "html":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<!doctype html><title>Welcome</title>")
		case r.URL.Path == "/moved":
			http.Error(w, "only POST", http.StatusMethodNotAllowed)
		case err == nil && code/100 == 3:
			http.Redirect(w, r, "/moved", code)
		default:
			http.Error(w, "this is "+mode, code)
		}
	}))
	t.Cleanup(c.Close)
	if mode == "gone" {
		c.Close()
	}
	return c
}

// controller MODE: sets VERIFY_CLIENT_URL to a server that answers in that way.
func scriptController(ts *testscript.TestScript, neg bool, args []string) {
	s := stateOf(ts)
	if s.controller == nil || args[0] == "gone" {
		s.controller = startController(scriptTB(ts), args[0])
		ts.Setenv("VERIFY_CLIENT_URL", s.controller.URL+"/admit")
	}
	s.controller.mode.Store(args[0])
}

// flood N: waits until derper has been running for the second in which an end would be a
// failure to start, and connects to it so often.
func scriptFlood(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	relayOf(ts).kill(scriptTB(ts), "derper", syscall.SIGCONT)
	for range n {
		conn, err := net.Dial("tcp", relayOf(ts).get("ADDR"))
		if err != nil {
			return // derper has ended
		}
		ts.Check(conn.Close())
	}
}

// key NAME: makes a node key, and sets the variable NAME to the public one.
func scriptKey(ts *testscript.TestScript, neg bool, args []string) {
	k := key.NewNode()
	stateOf(ts).keys[args[0]] = k
	ts.Setenv(args[0], k.Public().String())
}

// client NAME: the relay lets the node in. ! client: it does not.
func scriptClient(ts *testscript.TestScript, neg bool, args []string) {
	err := connect(scriptTB(ts), relayOf(ts), stateOf(ts).keys[args[0]])
	if neg && err == nil {
		ts.Fatalf("%s is let in", args[0])
	}
	if !neg {
		ts.Check(err)
	}
}

// host VERSION|dead SOCKET: pretends to be the host's tailscaled, or leaves the socket of
// one that was killed.
func scriptHost(ts *testscript.TestScript, neg bool, args []string) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[1]), Net: "unix"})
	ts.Check(err)
	if args[0] == "dead" {
		ln.SetUnlinkOnClose(false)
		ts.Check(ln.Close())
		return
	}
	server := &http.Server{Handler: tailscaledStatus(args[0], "Running")}
	go server.Serve(ln)
	ts.Defer(func() { server.Close() })
}

// count N PATTERN: so many lines of the log match, now.
func scriptCount(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	log := relayOf(ts).log.String()
	if got := len(regexp.MustCompile("(?m)"+args[1]).FindAllString(log, -1)); got != want {
		ts.Fatalf("%d lines match %q, want %d:\n%s", got, args[1], want, log)
	}
}

// notes PATTERN: waits until the health check succeeds with such a message.
func scriptNotes(ts *testscript.TestScript, neg bool, args []string) {
	eventually(scriptTB(ts), time.Minute, func() error {
		out, err := relayOf(ts).healthcheck()
		if err != nil || !regexp.MustCompile(args[0]).MatchString(strings.TrimSpace(out)) {
			return fmt.Errorf("healthcheck says %q (%v), want a success that matches %q", out, err, args[0])
		}
		return nil
	})
}

// page VARIABLE PATH CODE [PATTERN]: waits until the server at the address that the
// variable has answers so.
func scriptPage(ts *testscript.TestScript, neg bool, args []string) {
	eventually(scriptTB(ts), time.Minute, func() error {
		res, err := http.Get("http://" + ts.Getenv(args[0]) + args[1])
		if err != nil {
			return err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		if strconv.Itoa(res.StatusCode) != args[2] || len(args) > 3 && !regexp.MustCompile("(?m)"+args[3]).Match(b) {
			return fmt.Errorf("%s answers %s: %s", args[1], res.Status, b)
		}
		return nil
	})
}

// same PROGRAM: the program below the relay is the process that it was when it was last
// looked at, if it was. ! same: waits until it is another one.
func scriptSame(ts *testscript.TestScript, neg bool, args []string) {
	s := stateOf(ts)
	before := s.pids[args[0]]
	eventually(scriptTB(ts), time.Minute, func() error {
		now := 0
		for _, pid := range pidsBelow(scriptTB(ts), relayOf(ts)) {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && strings.HasSuffix(exe, "/"+args[0]) {
				now = pid
			}
		}
		switch {
		case !neg && before != 0 && now != before:
			ts.Fatalf("%s was process %d, and is %d", args[0], before, now)
		case now == 0 || neg && now == before:
			return fmt.Errorf("%s is process %d", args[0], now)
		}
		s.pids[args[0]] = now
		return nil
	})
}

// within PROGRAM [arguments]: runs it in the relay's mount namespace.
func scriptWithin(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("nsenter", append([]string{"--target", fmt.Sprint(relayOf(ts).cmd.Process.Pid), "--mount", "--wd=" + ts.MkAbs(".")}, args...)...)
	if neg != (err != nil) {
		ts.Fatalf("%q: %v", args, err)
	}
}

// write FILE TEXT: TEXT has the escapes of Go.
func scriptWrite(ts *testscript.TestScript, neg bool, args []string) {
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}
