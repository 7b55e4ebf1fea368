package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

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
			env.Vars = append(env.Vars, ports(env.T().(testing.TB))...)
			env.Values["relay"] = new(holder)
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
	for _, v := range setting.Table() {
		for _, name := range []string{v.Name, v.FileName()} {
			if text := ts.Getenv(name); text != "" {
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

// pair HOST DAYS CRT KEY: makes a certificate that a CA signed.
func scriptPair(ts *testscript.TestScript, neg bool, args []string) {
	days, err := strconv.Atoi(args[1])
	ts.Check(err)
	crt, key, err := signedPair(args[0], time.Duration(days)*24*time.Hour)
	ts.Check(err)
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[2])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), crt, 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), key, 0o600))
}

// signedPair makes a pair as a CA would, that nobody knows.
func signedPair(host string, validity time.Duration) (crtPEM, keyPEM []byte, err error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, nil, err
	}
	return ca.sign(host, validity)
}

// An authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err = x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// sign makes a pair for a host.
func (a *authority) sign(host string, validity time.Duration) (crtPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: host},
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(validity),
	}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), err
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
