package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

var printTable = flag.Bool("table", false, "let TestHealthTable print the table of docs/health.md")

// A broken relay is one way to be so, and what the health check says of it.
type broken struct {
	what string // in words
	env  []string
	// prepare changes the folder of the relay, and returns more of the environment.
	prepare func(t *testing.T, dir string) []string
	// after breaks a relay that works.
	after  func(t *testing.T, s *started)
	ask    func(s *started) *exec.Cmd // nil: as docker exec does
	users  bool                       // needs others than root
	code   int
	says   string // a pattern, of the whole answer
	varies bool   // from run to run
}

const tableName = "derp.example.com"

// brokenRelays are all of them, those that are only worth a note among them.
var brokenRelays = []broken{
	{what: "nothing", says: `ok: stun, https, derp`},
	{
		what: "the relay does not run", code: 1, says: `entrypoint: healthcheck: no relay runs in this container`,
		ask: func(*started) *exec.Cmd { return exec.Command(filepath.Join(binDir, "entrypoint"), "healthcheck") },
	},
	{
		what: "the entrypoint stands still", code: 1, says: `entrypoint: healthcheck: the relay does not answer: nothing within 4s`,
		after: func(t *testing.T, s *started) {
			s.signal(t, syscall.SIGSTOP)
			t.Cleanup(func() { s.cmd.Process.Signal(syscall.SIGCONT) })
		},
	},
	{
		what: "derper stands still", code: 1,
		says: `entrypoint: healthcheck: stun: no answer from udp 127\.0\.0\.1:3478: nothing within 2s
entrypoint: healthcheck: https: nothing within 2s`,
		after: func(t *testing.T, s *started) {
			s.kill(t, "derper", syscall.SIGSTOP)
			t.Cleanup(func() { syscall.Kill(pidOf(t, s, "derper"), syscall.SIGCONT) })
		},
	},
	{
		what: "derper ends again and again", code: 1,
		says: `entrypoint: healthcheck: stun: no answer from udp 127\.0\.0\.1:3478: connection refused
entrypoint: healthcheck: https: no connection to tcp 127\.0\.0\.1:443: connection refused`,
		after: func(t *testing.T, s *started) {
			s.kill(t, "derper", syscall.SIGKILL) // it has worked
			killAgain(t, s, "derper")
		},
	},
	{
		what: "somebody else asks, who is not root", code: 1, users: true,
		says: `entrypoint: healthcheck: the relay does not answer: the relay runs as uid 0, and answers that user and root; this is uid 65532`,
		ask: func(s *started) *exec.Cmd {
			return exec.Command("nsenter", "--target", fmt.Sprint(s.cmd.Process.Pid), "--mount", "--setuid=65532", filepath.Join(binDir, "entrypoint"), "healthcheck")
		},
	},

	{
		what: "the certificate expires within 30 days", prepare: selfSignedFor(10),
		says: `ok: stun, https \(certificate expires in 9 days, on \S+; to get a new one run: docker exec CONTAINER /entrypoint renew, and put the new CertName into the tailnet policy\), derp`,
	},
	{
		what: "the certificate has expired", prepare: selfSignedFor(-1), code: 1,
		says: `entrypoint: healthcheck: https: the certificate expired on \S+; clients refuse it; to get a new one run: docker exec CONTAINER /entrypoint renew, and put the new CertName into the tailnet policy`,
	},
	{
		what: "the pair on the disk is no pair, and derper has the one before",
		says: `ok: stun, https \(\S+/derp\.example\.com\.key is not the key of \S+/derp\.example\.com\.crt; replace both with files that belong together\), derp`,
		after: func(t *testing.T, s *started) {
			s.healthy(t)
			_, key, err := signedPair(tableName, 90*24*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			store(t, s.dir, nil, key)
		},
	},
	{
		what: "the pair on the disk is for another name",
		says: `ok: stun, https \(\S+/derp\.example\.com\.crt: the certificate is for other\.example\.com, not for derp\.example\.com; set HOSTNAME to a name in it, or get one for this name\), derp`,
		after: func(t *testing.T, s *started) {
			s.healthy(t)
			crt, key, err := signedPair("other.example.com", 90*24*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			store(t, s.dir, crt, key)
		},
	},
	{
		what: "the pair on the disk is gone", says: `ok: stun, https \(\S+/derp\.example\.com\.crt and its key are gone\), derp`,
		after: func(t *testing.T, s *started) {
			s.healthy(t)
			pair := certificate.At(filepath.Join(s.dir, "derper-certs"), tableName)
			os.Remove(pair.Crt)
			os.Remove(pair.Key)
		},
	},
	{
		what: "Let's Encrypt has not given a certificate yet", env: []string{"CERT_MODE=letsencrypt"}, code: 1,
		says: `entrypoint: healthcheck: https: there is no certificate for derp\.example\.com: derper is still waiting for the CA; if its log does not say why, this container cannot reach the CA`,
	},
	{
		what: "the same within 15 minutes", env: []string{"CERT_MODE=letsencrypt"}, code: 1,
		says:  `entrypoint: healthcheck: https: there is no certificate for derp\.example\.com: derper is still waiting for the CA; if its log does not say why, this container cannot reach the CA; not asked again for 15m0s`,
		after: func(t *testing.T, s *started) { s.healthcheck() },
	},

	{
		what: "there is no tailscaled", env: []string{"VERIFY_CLIENTS=true", "SOCKET=/var/run/none/tailscaled.sock"}, code: 1,
		says: `entrypoint: healthcheck: verification: clients cannot be verified: VERIFY_CLIENTS=true, but there is no tailscaled at /var/run/none/tailscaled\.sock: there is no folder /var/run/none`,
	},
	{
		what: "the host's tailscaled does not run", prepare: hostIs("dead"), code: 1,
		says: `entrypoint: healthcheck: verification: clients cannot be verified: the host's tailscaled does not run: nobody listens at \S+`,
	},
	{
		what: "the host's tailscaled waits for a login", prepare: hostIs("NeedsLogin"), code: 1,
		says: `entrypoint: healthcheck: verification: clients cannot be verified: the host's tailscaled is in state NeedsLogin: it waits for a login`,
	},
	{
		what: "the host's tailscaled is switched off", prepare: hostIs("Stopped"), code: 1,
		says: `entrypoint: healthcheck: verification: clients cannot be verified: the host's tailscaled is in state Stopped: it is switched off`,
	},
	{
		what: "the host's tailscaled is of another version",
		prepare: func(t *testing.T, _ string) []string {
			return []string{"VERIFY_CLIENTS=true", "SOCKET=" + host(t, "1.2.3")}
		},
		says: `ok: stun, https, derp, verification \(the host's tailscaled is 1\.2\.3, derper is \S+: verification may fail\)`,
	},
	{
		what: "the tailnet policy shows it no other node", prepare: hostIs("alone"),
		says: `ok: stun, https, derp, verification \(the tailnet shows the host's tailscaled no other node, so no client is let in\)`,
	},
	{
		what: "the tailscaled in the image cannot reach its control server", code: 1,
		env:  []string{"VERIFY_CLIENTS=true", "TS_AUTHKEY=tskey-auth-x", "TS_LOGIN_SERVER=http://127.0.0.1:1"},
		says: `entrypoint: healthcheck: verification: clients cannot be verified: tailscaled is in state (NoState|NeedsLogin): .+`, varies: true,
	},
	{
		what: "the tailscaled in the image stands still", code: 1,
		env:  []string{"VERIFY_CLIENTS=true", "TAILSCALED=true", "TS_LOGIN_SERVER=http://127.0.0.1:1"},
		says: `entrypoint: healthcheck: verification: clients cannot be verified: tailscaled at \S+ does not answer: nothing within 2s`,
		after: func(t *testing.T, s *started) {
			s.kill(t, "tailscaled", syscall.SIGSTOP)
			t.Cleanup(func() { syscall.Kill(pidOf(t, s, "tailscaled"), syscall.SIGCONT) })
		},
	},
	{
		what: "tailscaled ends again and again, and nobody has the port of the peer relay", code: 1,
		env:   []string{"PEER_RELAY_PORT=40000", "TAILSCALED=true", "TS_LOGIN_SERVER=http://127.0.0.1:1"},
		says:  `entrypoint: healthcheck: peer relay: no program listens on udp port 40000`,
		after: func(t *testing.T, s *started) { killAgain(t, s, "tailscaled") },
	},

	{
		what: "VERIFY_CLIENT_URL redirects (301, 302)", prepare: controllerIs("301"), code: 1,
		says: `entrypoint: healthcheck: verify-client-url: \S+ redirects to \S+ in a way that turns a POST into a GET \(use 307 or 308\): derper lets no client in, whatever VERIFY_FAIL_OPEN is; set VERIFY_CLIENT_URL to that`,
	},
	{
		what: "it answers 404", prepare: controllerIs("404"), code: 1,
		says: `entrypoint: healthcheck: verify-client-url: \S+ answers 404 Not Found: derper lets no client in, whatever VERIFY_FAIL_OPEN is; check the path of the URL`,
	},
	{
		what: "it answers 502", prepare: controllerIs("502"), code: 1,
		says: `entrypoint: healthcheck: verify-client-url: \S+ answers 502 Bad Gateway: derper lets no client in, whatever VERIFY_FAIL_OPEN is; look at the log of what is behind it`,
	},
	{
		what: "it answers with a web page", prepare: controllerIs("html"), code: 1,
		says: `entrypoint: healthcheck: verify-client-url: \S+ gives no answer that derper can read \(text/html\): .+: derper lets no client in, whatever VERIFY_FAIL_OPEN is; it must answer {"Allow": true} or {"Allow": false}`,
	},
	{
		what: "it does not answer", prepare: controllerIs("silent"), code: 1,
		says: `entrypoint: healthcheck: verify-client-url: \S+ does not answer within 2s; derper waits for 5s, and lets everybody in then; look at what makes it slow`,
	},
	{
		what: "it cannot be reached", prepare: controllerIs("gone"), code: 1,
		says: `entrypoint: healthcheck: verify-client-url: \S+ cannot be reached: .+: derper lets everybody in; start it, or let nobody in meanwhile: VERIFY_FAIL_OPEN=false`,
	},
	{
		what: "the same with VERIFY_FAIL_OPEN=false", env: []string{"VERIFY_FAIL_OPEN=false"}, prepare: controllerIs("gone"), code: 1,
		says: `entrypoint: healthcheck: verify-client-url: \S+ cannot be reached: .+: derper lets no client in; start it, or let everybody in meanwhile: VERIFY_FAIL_OPEN=true`,
	},
	{
		what: "the file of VERIFY_NODES is missing", env: []string{"VERIFY_NODES=/run/nodes"}, code: 1,
		says: `entrypoint: healthcheck: verify-nodes: there is no file /run/nodes; mount it there, with a node key in each line`,
	},
	{
		what: "it has no node key", env: []string{"VERIFY_NODES=nodes"}, code: 1,
		prepare: func(t *testing.T, dir string) []string {
			if err := os.WriteFile(filepath.Join(dir, "nodes"), []byte("# nobody yet\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		says: `entrypoint: healthcheck: verify-nodes: no node key is in nodes; add one in each line, like nodekey:… \(PublicKey in tailscale status --json\)`,
	},
}

// store replaces files of the pair.
func store(t *testing.T, dir string, crt, key []byte) {
	t.Helper()
	pair := certificate.At(filepath.Join(dir, "derper-certs"), tableName)
	if err := os.MkdirAll(filepath.Dir(pair.Crt), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{pair.Crt: crt, pair.Key: key} {
		if b == nil {
			continue
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func selfSignedFor(days int) func(*testing.T, string) []string {
	return func(t *testing.T, dir string) []string {
		crt, key, err := selfSignedPair(tableName, time.Duration(days)*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		store(t, dir, crt, key)
		return nil
	}
}

// killAgain kills a program until its next start waits for seconds.
func killAgain(t *testing.T, s *started, name string) {
	t.Helper()
	s.logged(t, name) // it was started
	for _, word := range []string{"", " in 1s", " in 2s"} {
		eventually(t, time.Minute, func() error {
			for _, pid := range pidsBelow(t, s) {
				if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(exe) == name {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			if ended := name + ": ended with code 137; starting it again" + word + "\n"; !strings.Contains(s.log.String(), ended) {
				return fmt.Errorf("the log does not say %q", ended)
			}
			return nil
		})
	}
}

// hostIs has the host's tailscaled be in a state.
func hostIs(state string) func(*testing.T, string) []string {
	return func(t *testing.T, _ string) []string {
		return []string{"VERIFY_CLIENTS=true", "SOCKET=" + hostIn(t, release.Long(), state)}
	}
}

func controllerIs(mode string) func(*testing.T, string) []string {
	return func(t *testing.T, _ string) []string {
		return []string{"VERIFY_CLIENT_URL=" + startController(t, mode).URL + "/admit"}
	}
}

// The mistake it guards: a relay that is broken and healthy, one that is well and is
// started again, an answer that does not help, and a documentation that has another one.
// With -table it prints the table that is there.
func TestHealthTable(t *testing.T) {
	doc, err := os.ReadFile("../docs/health.md")
	if err != nil && !*printTable {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| what is broken | answer | code | time |\n|---|---|---|---|\n")
	for _, b := range brokenRelays {
		t.Run(b.what, func(t *testing.T) {
			if b.users {
				otherUsers(t)
			}
			dir := t.TempDir()
			// The ports are derper's own; the last of two equal variables counts.
			env := []string{"HOSTNAME=" + tableName, "ADDR=127.0.0.1:443", "HTTP_PORT=80", "STUN_PORT=3478", "VERIFY_CLIENTS=false"}
			env = append(env, b.env...)
			if b.prepare != nil {
				env = append(env, b.prepare(t, dir)...)
			}
			s := start(t, dir, env)
			s.logged(t, "serving on ")
			if b.after != nil {
				b.after(t, s)
			}
			pattern := regexp.MustCompile(`^(?:` + b.says + `)\n$`)
			var row, took string
			eventually(t, time.Minute, func() error {
				cmd := exec.Command("nsenter", s.beside("healthcheck")...)
				if b.ask != nil {
					cmd = b.ask(s)
				}
				began := time.Now()
				out, _ := cmd.CombinedOutput() // the code tells
				took = fmt.Sprintf("%.1f s", time.Since(began).Seconds())
				if code := cmd.ProcessState.ExitCode(); code != b.code || !pattern.Match(out) {
					return fmt.Errorf("code %d, want %d:\n%swant:\n%s", code, b.code, out, b.says)
				}
				row = fmt.Sprintf("| %s | `%s` | %d |", b.what, shown(string(out), dir), b.code)
				return nil
			})
			fmt.Fprintf(&table, "%s %s |\n", row, took)
			if !*printTable && !b.varies && !strings.Contains(string(doc), row) {
				t.Errorf("docs/health.md does not have this row; print the table with -table:\n%s", row)
			}
		})
	}
	if *printTable {
		fmt.Print(table.String())
	}
}

// shown is an answer without what is another in each run.
func shown(out, dir string) string {
	out = strings.ReplaceAll(strings.TrimSpace(out), dir, "/root")
	for _, r := range []struct{ is, becomes string }{
		{`(/tmp|` + regexp.QuoteMeta(os.TempDir()) + `)/(host|tailscaled)\d*/`, "/var/run/tailscale/"},
		{`http://127\.0\.0\.1:\d{4,5}/`, "http://admit.example.com/"},
		{`127\.0\.0\.1:\d{5}`, "192.0.2.10:80"},
		{`\d+-\d+-\d+`, "DATE"},
		{`\d+\.\d+\.\d+-t[0-9a-f]+`, "VERSION"},
		{`\n(entrypoint: )`, "`<br>`$1"},
	} {
		out = regexp.MustCompile(r.is).ReplaceAllString(out, r.becomes)
	}
	return out
}
