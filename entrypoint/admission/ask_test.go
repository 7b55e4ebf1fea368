package admission

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"
)

// The mistake it guards: a controller that is asked otherwise than derper asks.
func TestAskWire(t *testing.T) {
	for _, allow := range []bool{true, false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var q tailcfg.DERPAdmitClientRequest
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != "POST" {
				t.Errorf("%s: %v", r.Method, err)
			}
			if q.NodePublic.String() != Probe || q.Source.String() != probeSource {
				t.Errorf("asked %+v", q)
			}
			json.NewEncoder(w).Encode(&tailcfg.DERPAdmitClientResponse{Allow: allow})
		}))
		defer server.Close()
		if err := Ask(t.Context(), server.URL, Rule{}); err != nil {
			t.Error(err)
		}
	}
}

// The mistake it guards: a relay that lets in nobody, or everybody, because of
// what is behind VERIFY_CLIENT_URL, and says so client by client only.
func TestAsk(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	answers := func(path string, status int, kind, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
	answers("/good", 200, "text/plain", ` {"allow":false,"more":1} and more`)
	answers("/401", 401, "", "")
	answers("/405", 405, "", "")
	answers("/502", 502, "text/html", `{"Allow":true}`)
	answers("/204", 204, "", "")
	answers("/html", 200, "text/html; charset=utf-8", "<html>")
	answers("/empty", 200, "application/json", "{}")
	answers("/null", 200, "application/json", "null")
	answers("/text", 200, "application/json", `{"Allow":"yes"}`)
	answers("/long", 200, "application/json", `{"a":"`+strings.Repeat("x", 5000)+`","Allow":true}`)
	redirect := func(path, to string, status int) {
		mux.Handle(path, http.RedirectHandler(to, status))
	}
	redirect("/301", "/good", 301)
	redirect("/302", "https://user:s3cr3t@login.example.com/x", 302)
	redirect("/303", "/good", 303)
	redirect("/307", "/good", 307)
	redirect("/308", "/307", 308)
	redirect("/loop", "/loop", 307)
	closed := httptest.NewServer(nil)
	closed.Close()
	silent := make(chan struct{})
	mux.HandleFunc("/silent", func(http.ResponseWriter, *http.Request) { <-silent })
	defer close(silent)

	withPassword := "http://user:s3cr3t@" + strings.TrimPrefix(server.URL, "http://")
	const nobody = ": derper lets no client in, whatever VERIFY_FAIL_OPEN is"
	const form = `; it must answer {"Allow": true} or {"Allow": false}`
	for _, test := range []struct {
		url        string
		failOpen   bool
		tailscaled bool
		want       string // a beginning; * is anything
		open       bool
	}{
		{url: server.URL + "/good"},
		{url: server.URL + "/307"},
		{url: server.URL + "/308"},
		{url: server.URL + "/301", failOpen: true, want: server.URL + "/301 redirects to " + server.URL + "/good in a way that turns a POST into a GET (use 307 or 308)" + nobody + "; set VERIFY_CLIENT_URL to that"},
		{url: withPassword + "/302", want: "*/302 redirects to https://user:xxxxx@login.example.com/x in a way"},
		{url: server.URL + "/303", want: "*/303 redirects to "},
		{url: server.URL + "/none", want: server.URL + "/none answers 404 Not Found" + nobody + "; check the path of the URL"},
		{url: withPassword + "/401", want: "http://user:xxxxx@*/401 answers 401 Unauthorized" + nobody + "; check the user and password"},
		{url: server.URL + "/405", want: "*/405 answers 405 Method Not Allowed" + nobody + "; it must answer a POST with status 200"},
		{url: server.URL + "/204", want: "*/204 answers 204 No Content" + nobody},
		{url: server.URL + "/502", failOpen: true, want: "*/502 answers 502 Bad Gateway" + nobody + "; look at the log of what is behind it"},
		{url: server.URL + "/html", want: "*/html gives no answer that derper can read (text/html): *" + nobody + form},
		{url: server.URL + "/text", want: "*/text gives no answer that derper can read (application/json): *" + nobody + form},
		{url: server.URL + "/long", want: "*/long gives no answer that derper can read (application/json): unexpected EOF" + nobody},
		{url: server.URL + "/empty", want: `*/empty answers without a member "Allow"` + nobody + form},
		{url: server.URL + "/null", want: `*/null answers without a member "Allow"` + nobody + form},
		{url: closed.URL, want: closed.URL + " cannot be reached: *refused: derper lets no client in; start it, or let everybody in meanwhile: VERIFY_FAIL_OPEN=true"},
		{url: closed.URL, failOpen: true, want: closed.URL + " cannot be reached: *refused: derper lets everybody in; start it, or let nobody in meanwhile: VERIFY_FAIL_OPEN=false", open: true},
		{url: closed.URL, failOpen: true, tailscaled: true, want: closed.URL + " cannot be reached: *refused: derper lets those in whom the tailscaled knows; start it, or let nobody in meanwhile", open: true},
		{url: server.URL + "/loop", failOpen: true, want: "*/loop cannot be reached: stopped after 10 redirects: derper lets everybody in", open: true},
		{url: server.URL + "/silent", want: "*/silent does not answer within *; derper waits for 5s, and lets no client in then"},
		{url: "http://user:s3cr3t@%zz", want: "VERIFY_CLIENT_URL is no URL; set it to one that begins"},
	} {
		ctx := t.Context()
		if strings.HasSuffix(test.url, "/silent") { // do not wait for all of it
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			ctx = short
		}
		err := Ask(ctx, test.url, Rule{FailOpen: test.failOpen, Tailscaled: test.tailscaled})
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.url, err)
			}
			continue
		}
		var problem *Problem
		if !errors.As(err, &problem) {
			t.Errorf("%s: %v, want %s", test.url, err, test.want)
			continue
		}
		rest, ok := err.Error(), true
		for i, part := range strings.Split(test.want, "*") {
			at := strings.Index(rest, part)
			if at < 0 || i == 0 && at > 0 {
				ok = false
				break
			}
			rest = rest[at+len(part):]
		}
		if !ok || problem.Open != test.open || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: open %v: %v\nwant %s", test.url, problem.Open, err, test.want)
		}
	}
}
