package tailscaled_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

const (
	version  = "1.102.3-t53a0d659a"
	selfJSON = `"Self":{"PublicKey":"nodekey:0a","DNSName":"derp1.example.ts.net.","TailscaleIPs":["100.64.0.1"]}`
)

func inDays(days int) string {
	return time.Now().Add(time.Duration(days)*24*time.Hour + time.Hour).UTC().Format(time.RFC3339)
}

// TestDiagnoseState guards against a tailscaled that lets no client in and does not say
// why, or says another thing than what helps.
func TestDiagnoseState(t *testing.T) {
	loginError := func(text string) string {
		return `"Health":["You are logged out. The last login error was: ` + text + `"]`
	}
	own, host := tailscaled.Verifier{Own: true}, tailscaled.Verifier{}
	key := tailscaled.Verifier{Own: true, HasAuthKey: true}
	expired := `"Self":{"DNSName":"derp1.ts.net.","Expired":true,"KeyExpiry":"2026-01-02T03:04:05Z"}`
	for _, test := range []struct {
		name       string
		by         tailscaled.Verifier
		state      string
		more       string
		what, hint string
	}{
		{"runs", host, "Running", `"Peer":{"a":{}}`, "", ""},
		{"has no relay yet", own, "Starting", `"Peer":{"a":{}}`, "", ""},
		{"own waits, URL", own, "NeedsLogin", `"AuthURL":"https://l.example.com/a/1"`,
			"tailscaled is in state NeedsLogin: it waits for a login", "log in at https://l.example.com/a/1"},
		{"own waits, no URL", own, "NeedsLogin", `"AuthURL":""`,
			"tailscaled is in state NeedsLogin: it waits for a login", "the URL to log in at was asked for and comes in the log; or set TS_AUTHKEY_FILE"},
		{"host waits", host, "NeedsLogin", `"AuthURL":"https://l.example.com/a/1"`,
			"the host's tailscaled is in state NeedsLogin: it waits for a login", "run tailscale up on the host"},
		// As testcontrol, Tailscale and Headscale, new and old, answer.
		{"key refused", key, "NeedsLogin", loginError("invalid authkey"), "tailscaled is in state NeedsLogin: TS_AUTHKEY is refused: invalid authkey", "set TS_AUTHKEY to a valid key: reusable"},
		{"key refused", key, "NeedsLogin", loginError("invalid key: API key does not exist"), "tailscaled is in state NeedsLogin: TS_AUTHKEY is refused: invalid key: ", "set TS_AUTHKEY"},
		{"key refused", key, "NoState", loginError("authkey expired"), "tailscaled is in state NoState: TS_AUTHKEY is refused: authkey expired", "set TS_AUTHKEY"},
		{"key refused", key, "NoState", loginError("register request: http 401: AuthKey not found"), "tailscaled is in state NoState: TS_AUTHKEY is refused: ", "set TS_AUTHKEY"},
		{"login refused", own, "NeedsLogin", loginError("tailnet is locked"), "tailscaled is in state NeedsLogin: the login is refused: tailnet is locked", "the URL to log in at"},
		{"no control server", key, "NoState", loginError(`fetch control key: Get \"http://127.0.0.1:1/key?v=142\": dial tcp 127.0.0.1:1: connect: connection refused`),
			"tailscaled is in state NoState: the control server does not let it log in: fetch control key: Get ", "check TS_LOGIN_SERVER"},
		{"control server fails", key, "NeedsLogin", loginError("register request: http 502: bad gateway"), "tailscaled is in state NeedsLogin: the control server does not let it log in: ", "check TS_LOGIN_SERVER"},
		{"no network", host, "NoState", loginError("fetch control key: 502"), "the host's tailscaled is in state NoState: the control server does not let it log in: ", "check the network of the host"},
		{"waits for an admin", key, "NeedsMachineAuth", selfJSON,
			"tailscaled is in state NeedsMachineAuth: the node derp1.example.ts.net waits for an admin", "approve it on the control server"},
		{"own stopped", own, "Stopped", `"a":0`, "tailscaled is in state Stopped: it was switched off", "restart the container"},
		{"host stopped", host, "Stopped", `"a":0`, "the host's tailscaled is in state Stopped: it is switched off", "run tailscale up on the host"},
		{"own expired", own, "NeedsLogin", expired + `,"AuthURL":"https://l.example.com/a/1"`,
			"tailscaled is in state NeedsLogin: the key of its node expired on 2026-01-02", "log in at https://l.example.com/a/1; to keep the node derp1.ts.net from expiring, disable key expiry"},
		{"own expired, no URL", key, "NeedsLogin", expired, "tailscaled is in state NeedsLogin: the key of its node expired on", "set TS_AUTHKEY to a valid key and restart the container; to keep"},
		{"host expired", host, "NeedsLogin", expired, "the host's tailscaled is in state NeedsLogin: the key of its node expired on", "run tailscale up --force-reauth on the host; to keep"},
		{"begins", own, "NoState", `"Health":["Tailscale is starting. Please wait."]`, "tailscaled is in state NoState: Tailscale is starting. Please wait.", "wait a moment, then check TS_AUTHKEY and TS_LOGIN_SERVER"},
		{"a state of tomorrow", host, "Sleeping", `"a":0`, "the host's tailscaled is in state Sleeping: it has not heard from the control server yet", "look at tailscale status on the host"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.by.Socket = serve(t, func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, `{"BackendState":%q,%s}`, test.state, test.more)
			})
			d := tailscaled.Diagnose(t.Context(), test.by)
			check(t, d.Reason, test.what, test.hint)
			if d.Status.BackendState != test.state {
				t.Errorf("the status is %+v", d.Status)
			}
		})
	}
}

// check takes beginnings.
func check(t *testing.T, got *tailscaled.Reason, what, hint string) {
	t.Helper()
	switch {
	case got == nil && what != "":
		t.Errorf("no reason, want %q", what)
	case got != nil && (what == "" || !strings.HasPrefix(got.What, what) || !strings.HasPrefix(got.Hint, hint)):
		t.Errorf("%q, hint %q\nwant %q, hint %q", got.What, got.Hint, what, hint)
	}
}

// TestDiagnoseWarnings guards against trouble that is known before it keeps clients out,
// or that a tailscaled which runs does not show.
func TestDiagnoseWarnings(t *testing.T) {
	self := func(more string) string { return `"Self":{"PublicKey":"nodekey:0a"` + more + `}` }
	const peers = `,"Peer":{"a":{}}`
	const grant = `only nodes that a rule of the tailnet policy lets reach this one are let in; add to "grants", with the tags of servers in src, too: {"src": ["autogroup:member"], "dst": ["%s"], "ip": ["tcp:443"]}`
	for _, test := range []struct {
		name           string
		own            bool
		state, version string
		more           string
		what, hint     string
	}{
		{"all is well", false, "Running", version, self(`,"KeyExpiry":"`+inDays(31)+`"`) + peers, "", ""},
		{"packaged elsewhere", false, "Running", version + "-gabc", self("") + peers, "", ""},
		{"another version", false, "Running", "1.90.1-t1", self("") + peers, "the host's tailscaled is 1.90.1-t1, derper is " + version + ": verification may fail", "bring both to one version, or set TS_AUTHKEY"},
		{"another version, no login", false, "NeedsLogin", "1.90.1-t1", self("") + peers, "the host's tailscaled is 1.90.1-t1, derper is", "bring"},
		{"expires soon", true, "Running", version, self(`,"DNSName":"d.ts.net.","KeyExpiry":"`+inDays(29)+`"`) + peers,
			"the key of tailscaled's node expires on " + inDays(29)[:10] + "; from then on no client is let in", "to keep the node d.ts.net from expiring"},
		{"expired, and not noticed", false, "Starting", version, self(`,"KeyExpiry":"`+inDays(-2)+`"`) + peers, "the key of the host's tailscaled's node expired on " + inDays(-2)[:10], "to keep the node from"},
		{"no nodes", true, "Running", version, self(`,"Tags":["tag:relay"],"TailscaleIPs":["100.64.0.1"]`) + `,"Peer":null`, "the tailnet shows tailscaled no other node", fmt.Sprintf(grant, "tag:relay")},
		{"no nodes, no tag", false, "Running", version, self(`,"TailscaleIPs":["100.64.0.1"]`) + `,"Peer":{}`, "the tailnet shows the host's tailscaled no other node", fmt.Sprintf(grant, "100.64.0.1")},
		{"no nodes yet", true, "Starting", version, self("") + `,"Peer":null`, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, `{"Version":%q,"BackendState":%q,%s}`, test.version, test.state, test.more)
			})
			d := tailscaled.Diagnose(t.Context(), tailscaled.Verifier{Socket: socket, Own: test.own, DerperVersion: version})
			if (test.state == "Running" || test.state == "Starting") && d.Reason != nil {
				t.Errorf("a reason: %+v", *d.Reason)
			}
			if d.Alone != nil {
				d.Warnings = append(d.Warnings, *d.Alone)
			}
			if test.what == "" {
				if len(d.Warnings) > 0 {
					t.Errorf("warnings %q", d.Warnings)
				}
				return
			}
			if len(d.Warnings) != 1 {
				t.Fatalf("warnings %q", d.Warnings)
			}
			check(t, &d.Warnings[0], test.what, test.hint)
		})
	}
}

// TestDiagnoseTooOld guards against a warning only, where derper lets nobody in: it asks
// for nodes in a way that an old tailscaled does not know.
func TestDiagnoseTooOld(t *testing.T) {
	asked := ""
	socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/whois") {
			asked = r.FormValue("addr")
			http.Error(w, "invalid 'addr' parameter", http.StatusBadRequest)
			return
		}
		io.WriteString(w, `{"Version":"1.60.1-t1","BackendState":"Running",`+selfJSON+`,"Peer":{"a":{}}}`)
	})
	d := tailscaled.Diagnose(t.Context(), tailscaled.Verifier{Socket: socket, DerperVersion: version})
	check(t, d.Reason, "the host's tailscaled is 1.60.1-t1, which is too old for derper "+version, "bring both to one version")
	if asked != "nodekey:0a" {
		t.Errorf("asked for %q", asked)
	}
}

// TestDiagnoseSocket guards against one message for all that can be wrong with a path that
// somebody mounted.
func TestDiagnoseSocket(t *testing.T) {
	dir := short(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	listen := func(name string) *net.UnixListener {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at(name), Net: "unix"})
		must(err)
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	must(os.WriteFile(at("file"), nil, 0o600))
	must(os.Mkdir(at("folder"), 0o700))
	must(os.Symlink("nowhere/s", at("dangling")))
	must(os.Symlink("alive", at("link")))
	t.Setenv("TMPDIR", at("temp"))
	must(os.Symlink("temp/tailscaled/tailscaled.sock", at("image's")))
	dead := listen("dead")
	dead.SetUnlinkOnClose(false)
	must(dead.Close())
	frozen := listen("frozen") // as with SIGSTOP
	frozen.SetUnlinkOnClose(false)
	stranger := listen("stranger")
	go func() {
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(conn).ReadString('\n')
			io.WriteString(conn, "220 mail.example.com\r\n")
			conn.Close()
		}
	}()
	serveAt(t, at("refuses"), func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "status access denied", http.StatusForbidden)
	})
	serveAt(t, at("web"), func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") })
	serveAt(t, at("alive"), func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"BackendState":"Running"}`)
	})
	const mount = "mount the host's: -v /var/run/tailscale:/var/run/tailscale; or use the one in this image: TS_AUTHKEY_FILE; or let everybody in: VERIFY_CLIENTS=false"
	const folder = "mount the folder of the host's tailscaled, not the socket: -v /var/run/tailscale:/var/run/tailscale"
	own, url := tailscaled.Verifier{Own: true}, tailscaled.Verifier{HasURL: true}
	for _, test := range []struct {
		socket     string
		by         tailscaled.Verifier
		what, hint string
	}{
		{"alive", own, "", ""},
		{"link", own, "", ""},
		{"none/s", tailscaled.Verifier{}, "VERIFY_CLIENTS=true, but there is no tailscaled at " + at("none/s") + ": there is no folder " + at("none"), mount},
		{"file/s", tailscaled.Verifier{}, "VERIFY_CLIENTS=true, but there is no tailscaled at " + at("file/s"), mount},
		{"none", tailscaled.Verifier{}, "VERIFY_CLIENTS=true, but there is no tailscaled at " + at("none") + ": its folder has no such socket", mount + "; or, if the folder is the host's, start tailscaled there"},
		{"none", url, "VERIFY_CLIENTS=true, but there is no tailscaled at " + at("none"), "to leave verification to VERIFY_CLIENT_URL: VERIFY_CLIENTS=false; or mount"},
		{"none", own, "tailscaled does not answer: it has not made its socket " + at("none") + " yet", ""},
		{"dangling", tailscaled.Verifier{}, "VERIFY_CLIENTS=true, but there is no tailscaled at " + at("dangling") + ": it is a link to " + at("nowhere/s") + ", which does not exist here", mount},
		{"image's", tailscaled.Verifier{}, "VERIFY_CLIENTS=true, but there is no tailscaled at " + at("image's") + ": the host's is not mounted", mount},
		{"file", tailscaled.Verifier{}, at("file") + " is a file, not a socket", folder},
		{"folder", tailscaled.Verifier{}, at("folder") + " is a folder, not a socket", folder},
		{"dead", tailscaled.Verifier{}, "the host's tailscaled does not run: nobody listens at " + at("dead"), "start it on the host: systemctl restart tailscaled"},
		{"dead", own, "tailscaled does not run: nobody listens at " + at("dead"), ""},
		{"frozen", tailscaled.Verifier{}, "the host's tailscaled at " + at("frozen") + " does not answer: nothing within 2s", "start it on the host"},
		{"stranger", tailscaled.Verifier{}, "what listens at " + at("stranger") + " gives no status of a tailscaled: ", folder},
		{"refuses", tailscaled.Verifier{}, "what listens at " + at("refuses") + " gives no status of a tailscaled: tailscaled answered 403: status access denied", folder},
		{"web", tailscaled.Verifier{}, "what listens at " + at("web") + " gives no status of a tailscaled: tailscaled's status: invalid character", folder},
	} {
		t.Run(test.socket, func(t *testing.T) {
			test.by.Socket = at(test.socket)
			ctx := t.Context()
			if test.socket == "frozen" { // do not wait for all of Patience
				short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				ctx = short
			}
			d := tailscaled.Diagnose(ctx, test.by)
			check(t, d.Reason, test.what, test.hint)
		})
	}
}
