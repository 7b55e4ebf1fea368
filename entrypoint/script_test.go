package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"tailscale.com/types/key"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// TestScripts runs the scenarios in testdata with the real programs. Each one
// says in its first line which mistake it guards. See the commands below.
func TestScripts(t *testing.T) {
	entrypointBinary(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, baseEnv(env.WorkDir)...)
			t := env.T().(testing.TB)
			env.Vars = append(env.Vars, ports(t)...)
			env.Vars = append(env.Vars, fmt.Sprintf("OTHER_ADDR=127.0.0.1:%d", freePort(t)))
			env.Values["relay"] = new(holder)
			env.Values["state"] = &scriptState{pids: make(map[string]int), keys: make(map[string]key.NodePrivate)}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":     scriptStart,
			"signal":    scriptSignal,
			"stops":     scriptStops,
			"healthy":   scriptHealthy,
			"unhealthy": scriptUnhealthy,
			"logged":    scriptLogged,
			"process":   scriptProcess,
			"hides":     scriptHides,
			"pair":      scriptPair,
			"serves":    scriptServes,
			"occupy":    scriptOccupy,
			"relay":     scriptRelay,
			"sendto":    scriptSendTo,

			"client":     scriptClient,
			"controller": scriptController,
			"count":      scriptCount,
			"flood":      scriptFlood,
			"host":       scriptHost,
			"key":        scriptKey,
			"notes":      scriptNotes,
			"page":       scriptPage,
			"same":       scriptSame,
			"within":     scriptWithin,
			"write":      scriptWrite,
		},
	})
}

func scriptTB(ts *testscript.TestScript) testing.TB { return scriptFatal{ts: ts} }

// scriptFatal makes the helpers of the Go tests usable in scripts.
type scriptFatal struct {
	testing.TB
	ts *testscript.TestScript
}

func (f scriptFatal) Helper()                           {}
func (f scriptFatal) Fatalf(format string, args ...any) { f.ts.Fatalf(format, args...) }
func (f scriptFatal) Fatal(args ...any)                 { f.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (f scriptFatal) Errorf(format string, args ...any) { f.ts.Fatalf(format, args...) }
func (f scriptFatal) Failed() bool                      { return false }
func (f scriptFatal) Cleanup(fn func())                 { f.ts.Defer(fn) }

func relayOf(ts *testscript.TestScript) *started {
	s, _ := ts.Value("relay").(*holder)
	if s == nil || s.started == nil {
		ts.Fatalf("no relay was started")
	}
	return s.started
}

// A holder lets a command replace the relay of a script.
type holder struct{ *started }

// start [arguments]: starts the entrypoint with the script's environment.
func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	var env []string
	for _, v := range setting.Known().Variables() {
		for _, name := range []string{v.Name, v.FileName(), v.Alias} {
			if text := ts.Getenv(name); name != "" && text != "" {
				env = append(env, name+"="+text)
			}
		}
	}
	ts.Value("relay").(*holder).started = start(scriptTB(ts), ts.MkAbs("."), env, args...)
}

// signal HUP|TERM|INT|QUIT|USR1: sends it to the started process.
func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT,
	}
	relayOf(ts).signal(scriptTB(ts), signals[args[0]])
}

// relay COMMAND [arguments]: runs it beside the started relay, as docker exec does.
func scriptRelay(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("nsenter", relayOf(ts).beside(args...)...)
	if neg != (err != nil) {
		ts.Fatalf("%q: %v", args, err)
	}
}

// sendto PROGRAM SIGNAL: sends it to a program below the relay, once that has been running
// for more than the second in which an end would be a failure to start.
func scriptSendTo(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}
	relayOf(ts).kill(scriptTB(ts), args[0], signals[args[1]])
}

// stops CODE: waits up to 3 seconds for the end.
func scriptStops(ts *testscript.TestScript, neg bool, args []string) {
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	relayOf(ts).stops(scriptTB(ts), code)
}

// healthy [text]: waits until the health check succeeds, and says the text.
func scriptHealthy(ts *testscript.TestScript, neg bool, args []string) {
	out := relayOf(ts).healthy(scriptTB(ts))
	if len(args) > 0 && strings.TrimSpace(out) != args[0] {
		ts.Fatalf("healthcheck says %q, want %q", out, args[0])
	}
}

// unhealthy PATTERN: waits until the health check fails with such a message.
func scriptUnhealthy(ts *testscript.TestScript, neg bool, args []string) {
	relayOf(ts).unhealthy(scriptTB(ts), args[0])
}

// logged PATTERN: waits until the log matches. ! logged: it does not, now.
func scriptLogged(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		if log := relayOf(ts).log.String(); regexp.MustCompile(args[0]).MatchString(log) {
			ts.Fatalf("the log matches %q:\n%s", args[0], log)
		}
		return
	}
	relayOf(ts).logged(scriptTB(ts), args[0])
}

// process NAME [CHILD...]: the started process is this program, and has
// exactly these below it.
func scriptProcess(ts *testscript.TestScript, neg bool, args []string) {
	s := relayOf(ts)
	if got := s.program(scriptTB(ts)); got != args[0] {
		ts.Fatalf("the process is %s, want %s", got, args[0])
	}
	if got := strings.Join(s.children(scriptTB(ts)), " "); got != strings.Join(args[1:], " ") {
		ts.Fatalf("the processes below are %q, want %q", got, args[1:])
	}
}

// hides TEXT: it is not in the log, nor in the environment or arguments of
// derper, nor in what env prints. ! hides: allowed in the arguments only.
func scriptHides(ts *testscript.TestScript, neg bool, args []string) {
	s := relayOf(ts)
	out, _ := s.command("env")
	places := map[string]string{"log": s.log.String(), "env": out}
	pids := pidsBelow(scriptTB(ts), s)
	if s.program(scriptTB(ts)) == "derper" {
		pids = []int{s.cmd.Process.Pid}
	}
	for _, pid := range pids {
		for _, file := range []string{"environ", "cmdline"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			ts.Check(err)
			if !(neg && file == "cmdline") {
				places[fmt.Sprintf("/proc/%d/%s", pid, file)] = string(b)
			}
		}
	}
	for name, text := range places {
		if strings.Contains(text, args[0]) {
			ts.Fatalf("the secret is in %s:\n%s", name, text)
		}
	}
}

// serves CRT HOST: waits until the relay serves the certificate in the file.
func scriptServes(ts *testscript.TestScript, neg bool, args []string) {
	want, _ := pem.Decode([]byte(ts.ReadFile(args[0])))
	eventually(scriptTB(ts), time.Minute, func() error {
		conn, err := tls.Dial("tcp", relayOf(ts).get("ADDR"), &tls.Config{ServerName: args[1], InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		defer conn.Close()
		if !bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, want.Bytes) {
			return fmt.Errorf("the relay serves another certificate than %s", args[0])
		}
		return nil
	})
}

// occupy udp|tcp PORT: listens there until the end of the script.
func scriptOccupy(ts *testscript.TestScript, neg bool, args []string) {
	if args[0] == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:"+args[1])
		ts.Check(err)
		ts.Defer(func() { conn.Close() })
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:"+args[1])
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
}
