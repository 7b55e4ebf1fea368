package tailscaled_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// serve is the socket of a tailscaled with these answers.
func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	socket := filepath.Join(short(t), "s")
	serveAt(t, socket, answer)
	return socket
}

func serveAt(t *testing.T, socket string, answer http.HandlerFunc) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
}

// full is a status as tailscaled 1.102.3 writes it, in its order.
const full = `{
	"Version": "1.102.3-t53a0d659a", "TUN": false, "BackendState": "Running", "HaveNodeKey": true, "AuthURL": "",
	"TailscaleIPs": ["100.64.0.1"],
	"Self": {"ID": "n1", "PublicKey": "nodekey:0a", "DNSName": "derp1.example.ts.net.", "TailscaleIPs": ["100.64.0.1", "fd7a::1"],
		"Tags": ["tag:derp"], "KeyExpiry": "2027-01-02T03:04:05Z", "Expired": true, "CapMap": {"a": [{"b": [null]}]}},
	"Health": [], "MagicDNSSuffix": "example.ts.net", "CurrentTailnet": {"Name": "x", "Peer": {"not": "one"}}, "CertDomains": [], "ExtraRecords": null,
	"Peer": {%s}, "User": null, "ClientVersion": null
}
`

// TestAsk guards against a status that is misread, and against an error that does not say
// what tailscaled said.
func TestAsk(t *testing.T) {
	self := tailscaled.Node{
		Key: "nodekey:0a", KeyExpiry: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), Expired: true,
		IPs: []string{"100.64.0.1", "fd7a::1"}, DNSName: "derp1.example.ts.net", Tags: []string{"tag:derp"},
	}
	for _, test := range []struct {
		name   string
		code   int
		body   string
		status tailscaled.Status
		ready  bool
		err    string
	}{
		{name: "runs", code: 200, body: fmt.Sprintf(full, `"nodekey:0b": {"ID": "n2"}, "nodekey:0c": {}`),
			status: tailscaled.Status{Version: "1.102.3-t53a0d659a", BackendState: "Running", Self: self, HasPeers: true}, ready: true},
		{name: "has no peers", code: 200, body: fmt.Sprintf(full, ""),
			status: tailscaled.Status{Version: "1.102.3-t53a0d659a", BackendState: "Running", Self: self}, ready: true},
		{name: "has the nodes, and no relay yet", code: 200, body: `{"BackendState":"Starting","Self":null,"Health":null,"Peer":null}`,
			status: tailscaled.Status{BackendState: "Starting"}, ready: true},
		{name: "waits for a login", code: 200, body: `{"BackendState":"NeedsLogin","AuthURL":"https://login.example.com/a/1","Health":["You are logged out.","no route"]}`,
			status: tailscaled.Status{BackendState: "NeedsLogin", AuthURL: "https://login.example.com/a/1", Health: "You are logged out.; no route"}},
		{name: "is refused", code: 200, body: `{"BackendState":"NeedsLogin","Health":["x","You are logged out. The last login error was: invalid key"]}`,
			status: tailscaled.Status{BackendState: "NeedsLogin", LoginError: "invalid key", Health: "x; You are logged out. The last login error was: invalid key"}},
		{name: "refuses", code: 403, body: "access denied\n", err: "tailscaled answered 403: access denied"},
		{name: "redirects", code: 302, body: "elsewhere", err: "tailscaled answered 302: elsewhere"},
		{name: "members of other types", code: 200, body: `{"Version":1,"BackendState":"Running"}`, err: "tailscaled's status: Version: "},
		{name: "no array", code: 200, body: `[]`, err: "tailscaled's status: "},
		{name: "another object", code: 200, body: `{"a":[1,{"b":"c"}]}`, err: "tailscaled's status: it has no BackendState"},
		{name: "ends early", code: 200, body: `{"BackendState":"Running","Peer":{`, err: "tailscaled's status: "},
		{name: "no JSON", code: 200, body: `<html>`, err: "tailscaled's status: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked string
			socket := serve(t, func(w http.ResponseWriter, req *http.Request) {
				asked = req.Method + " " + req.Host + " " + req.RequestURI
				w.WriteHeader(test.code)
				io.WriteString(w, test.body)
			})
			got, err := tailscaled.Ask(t.Context(), socket)
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("%v, want %q", err, test.err)
				}
			} else if err != nil || !reflect.DeepEqual(got, test.status) || got.Ready() != test.ready {
				t.Errorf("%+v, ready %v, %v; want %+v, %v", got, got.Ready(), err, test.status, test.ready)
			}
			// tailscaled takes requests with this Host only.
			if want := "GET local-tailscaled.sock /localapi/v0/status?peers=true"; asked != want {
				t.Errorf("asked %s, want %s", asked, want)
			}
		})
	}
}

// TestAskLargeTailnet guards against a question that takes megabytes of memory, because
// the tailnet has ten thousand nodes.
func TestAskLargeTailnet(t *testing.T) {
	peers := strings.Repeat(`"nodekey:0b": {"HostName": "`+strings.Repeat("x", 1000)+`"},`, 20_000) + `"nodekey:0c": {}`
	written := make(chan int, 1)
	socket := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n, err := io.WriteString(w, fmt.Sprintf(full, peers))
		if err == nil {
			t.Error("all of it was taken")
		}
		written <- n
	})
	s, err := tailscaled.Ask(t.Context(), socket)
	if err != nil || !s.HasPeers || s.BackendState != "Running" {
		t.Errorf("%+v, %v", s, err)
	}
	if n := <-written; n > 4<<20 { // what fits the kernel's buffers is less
		t.Errorf("%d bytes were taken", n)
	}
}

// TestAskManyRecords guards against a long member before the peers that hides them.
func TestAskManyRecords(t *testing.T) {
	records := `"ExtraRecords": [` + strings.Repeat(`{"Name": "a"},`, 100_000) + `null]`
	body := strings.Replace(fmt.Sprintf(full, `"nodekey:0b": {}`), `"ExtraRecords": null`, records, 1)
	socket := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
	if s, err := tailscaled.Ask(t.Context(), socket); err != nil || !s.HasPeers {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestAskNobody guards against a start that hangs on a tailscaled that does not answer.
func TestAskNobody(t *testing.T) {
	if _, err := tailscaled.Ask(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
	silent := make(chan struct{})
	defer close(silent)
	begun := func(w http.ResponseWriter) { io.WriteString(w, `{"BackendState":`); w.(http.Flusher).Flush() }
	for _, begin := range []func(http.ResponseWriter){func(http.ResponseWriter) {}, begun} {
		socket := serve(t, func(w http.ResponseWriter, _ *http.Request) { begin(w); <-silent })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := tailscaled.Ask(ctx, socket); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("silent: %v", err)
		}
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
	if err := tailscaled.Login(t.Context(), socket); err != nil {
		t.Error(err)
	}
	code = 403
	if err := tailscaled.Login(t.Context(), socket); err == nil || err.Error() != "tailscaled answered 403: login access denied" {
		t.Error(err)
	}
	if want := []string{"POST /localapi/v0/login-interactive", "POST /localapi/v0/login-interactive"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
}
