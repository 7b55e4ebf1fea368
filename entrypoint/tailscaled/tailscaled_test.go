package tailscaled_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// TestConfig guards against a file that tailscaled does not read as it was meant, and
// against one with which it takes more from the tailnet than the list of nodes.
func TestConfig(t *testing.T) {
	always := map[string]any{"version": "alpha0", "enabled": true, "acceptDNS": false, "acceptRoutes": false}
	for _, test := range []struct {
		env  []string
		more map[string]any
	}{
		{nil, nil},
		{[]string{"TS_AUTHKEY=tskey-1"}, map[string]any{"authKey": "tskey-1"}},
		{[]string{"TS_AUTHKEY=tskey-1?a=\"b\\", "TS_LOGIN_SERVER=https://login.example.com", "TS_HOSTNAME=derp1"},
			map[string]any{"authKey": "tskey-1?a=\"b\\", "serverURL": "https://login.example.com", "hostname": "derp1"}},
	} {
		set, problems := setting.Read(test.env, nil, "")
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		var got map[string]any
		if err := json.Unmarshal(tailscaled.Config(set), &got); err != nil {
			t.Errorf("%q: %v", test.env, err)
		}
		want := maps.Clone(always)
		maps.Copy(want, test.more)
		if !maps.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", test.env, got, want)
		}
	}
}

// short is a folder with a short name, as that of a socket has to be.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestChoose guards against a place that tailscaled cannot use, on an image whose file
// system can be written in some places only, and against state that is lost although
// there is a volume for it.
func TestChoose(t *testing.T) {
	dir := short(t)
	file := filepath.Join(dir, "file") // below it, nobody can write, root neither
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		certs, temp   string
		state, socket string // of the place; a socket's folder is new when it ends in *
		err           string
	}{
		{name: "both can be written", certs: filepath.Join(dir, "a"), temp: dir, state: filepath.Join(dir, "a/tailscaled"), socket: filepath.Join(dir, "tailscaled*")},
		{name: "no volume", certs: filepath.Join(file, "a"), temp: dir, socket: filepath.Join(dir, "tailscaled*")},
		{name: "read-only root", certs: filepath.Join(dir, "b"), temp: filepath.Join(file, "tmp"), state: filepath.Join(dir, "b/tailscaled"), socket: filepath.Join(dir, "b/tailscaled")},
		{name: "neither", certs: filepath.Join(file, "a"), temp: filepath.Join(file, "tmp"), err: "no place for tailscaled: "},
		{name: "long path", certs: filepath.Join(dir, strings.Repeat("c", 100)), temp: filepath.Join(file, "tmp"), err: "is too long; use a shorter CERT_DIR"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("TMPDIR", test.temp)
			place, err := tailscaled.Choose(test.certs)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if place.State != test.state {
				t.Errorf("state in %q, want %q", place.State, test.state)
			}
			folder, name := filepath.Split(place.Socket)
			folder = filepath.Clean(folder)
			if prefix, isNew := strings.CutSuffix(test.socket, "*"); name != "tailscaled.sock" || !strings.HasPrefix(folder, prefix) || isNew == (folder == prefix) {
				t.Errorf("socket %s, want one in %s", place.Socket, test.socket)
			}
			listener, err := net.Listen("unix", place.Socket)
			if err != nil {
				t.Fatalf("no socket can be there: %v", err)
			}
			listener.Close()
		})
	}
}

// TestPlace guards against a tailscaled that writes where it may not, as to its default
// folders, or needs a device.
func TestPlace(t *testing.T) {
	kept := tailscaled.Place{State: "/certs/tailscaled", Socket: "/tmp/x/tailscaled.sock"}
	lost := tailscaled.Place{Socket: "/tmp/x/tailscaled.sock"}
	for _, test := range []struct {
		place       tailscaled.Place
		state, logs string
	}{
		{kept, "--statedir=/certs/tailscaled", "TS_LOGS_DIR=/certs/tailscaled"},
		{lost, "--state=mem:", "TS_LOGS_DIR=/tmp/x"},
	} {
		want := []string{"--tun=userspace-networking", "--socket=/tmp/x/tailscaled.sock", "--config=/proc/self/fd/3", "--port=0", test.state}
		if got := test.place.Args("/proc/self/fd/3"); !slices.Equal(got, want) {
			t.Errorf("arguments %q, want %q", got, want)
		}
		t.Setenv("TS_LOGS_DIR", "")
		given := make([]string, 1, 10)
		given[0] = "A=b"
		if got := test.place.Environ(given); !slices.Equal(got, []string{"A=b", test.logs}) {
			t.Errorf("environment %q, want %s in it", got, test.logs)
		}
		if more := given[:2]; more[1] != "" {
			t.Error("the caller's environment was written to")
		}
		t.Setenv("TS_LOGS_DIR", "/logs")
		if got := test.place.Environ([]string{"TS_LOGS_DIR=/logs"}); !slices.Equal(got, []string{"TS_LOGS_DIR=/logs"}) {
			t.Errorf("environment %q: the user's folder does not count", got)
		}
	}
}

// serve is the socket of a tailscaled with these answers.
func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	socket := filepath.Join(short(t), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket
}

// TestAsk guards against a status that is misread, and against an error that does not say
// what tailscaled said.
func TestAsk(t *testing.T) {
	for _, test := range []struct {
		name   string
		code   int
		body   string
		status tailscaled.Status
		ready  bool
		err    string
	}{
		{name: "runs", code: 200, body: `{"Version":"1.102.3-t53a0d659a","BackendState":"Running","AuthURL":"","Health":null,"Self":{"ID":"n1"}}`,
			status: tailscaled.Status{Version: "1.102.3-t53a0d659a", BackendState: "Running"}, ready: true},
		{name: "has the nodes, and no relay yet", code: 200, body: `{"BackendState":"Starting"}`, status: tailscaled.Status{BackendState: "Starting"}, ready: true},
		{name: "waits for a login", code: 200, body: `{"BackendState":"NeedsLogin","AuthURL":"https://login.example.com/a/1","Health":["You are logged out.","no route"]}`,
			status: tailscaled.Status{BackendState: "NeedsLogin", AuthURL: "https://login.example.com/a/1", Health: "You are logged out.; no route"}},
		{name: "waits for an admin", code: 200, body: `{"BackendState":"NeedsMachineAuth"}`, status: tailscaled.Status{BackendState: "NeedsMachineAuth"}},
		{name: "has stopped", code: 200, body: `{"BackendState":"Stopped"}`, status: tailscaled.Status{BackendState: "Stopped"}},
		{name: "members of other types", code: 200, body: `{"Version":1,"BackendState":["Running"],"Health":"bad"}`},
		{name: "refuses", code: 403, body: "access denied\n", err: "tailscaled answered 403: access denied"},
		{name: "no object", code: 200, body: `[]`, err: "tailscaled's status: "},
		{name: "no JSON", code: 200, body: `<html>`, err: "tailscaled's status: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked string
			socket := serve(t, func(w http.ResponseWriter, req *http.Request) {
				asked = req.Method + " " + req.Host + " " + req.RequestURI
				w.WriteHeader(test.code)
				io.WriteString(w, test.body)
			})
			got, err := tailscaled.Ask(socket, time.Minute)
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("%v, want %q", err, test.err)
				}
			} else if err != nil || got != test.status || got.Ready() != test.ready {
				t.Errorf("%+v, ready %v, %v; want %+v, %v", got, got.Ready(), err, test.status, test.ready)
			}
			// tailscaled takes requests with this Host only.
			if want := "GET local-tailscaled.sock /localapi/v0/status?peers=false"; asked != want {
				t.Errorf("asked %s, want %s", asked, want)
			}
		})
	}
}

// TestAskNobody guards against a start that hangs on a tailscaled that does not answer.
func TestAskNobody(t *testing.T) {
	if _, err := tailscaled.Ask(filepath.Join(t.TempDir(), "none"), time.Minute); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
	silent := make(chan struct{})
	defer close(silent)
	socket := serve(t, func(http.ResponseWriter, *http.Request) { <-silent })
	if _, err := tailscaled.Ask(socket, 10*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
}

// TestLogin guards against a login that is never asked for.
func TestLogin(t *testing.T) {
	code := 204
	var asked []string
	socket := serve(t, func(w http.ResponseWriter, req *http.Request) {
		asked = append(asked, req.Method+" "+req.URL.Path)
		w.WriteHeader(code)
		if code >= 400 {
			fmt.Fprintln(w, "login access denied")
		}
	})
	if err := tailscaled.Login(socket, time.Minute); err != nil {
		t.Error(err)
	}
	code = 403
	if err := tailscaled.Login(socket, time.Minute); err == nil || err.Error() != "tailscaled answered 403: login access denied" {
		t.Error(err)
	}
	if want := []string{"POST /localapi/v0/login-interactive", "POST /localapi/v0/login-interactive"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
}

// TestSameRevision guards against a warning about two programs of one build, and against
// none about those of two.
func TestSameRevision(t *testing.T) {
	for _, test := range []struct {
		tailscaled, derper string
		same               bool
	}{
		{"1.102.3-t53a0d659a", "1.102.3-t53a0d659a", true},
		{"1.102.3-t53a0d659a-gabc", "1.102.3-t53a0d659a", true},
		{"1.102.3-t53a0d659ab", "1.102.3-t53a0d659a", false},
		{"1.102.3", "1.102.3-t53a0d659a", false},
		{"", "1.102.3-t53a0d659a", false},
	} {
		if got := tailscaled.SameRevision(test.tailscaled, test.derper); got != test.same {
			t.Errorf("%s and %s: %v", test.tailscaled, test.derper, got)
		}
	}
}
