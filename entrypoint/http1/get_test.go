package http1

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The mistake it guards: a hand-written client that does not understand the
// server of the standard library, which is derper's and tailscaled's.
func TestAgainstStandardLibrary(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.URL.RawQuery)
		case "/chunked":
			for range 3 {
				fmt.Fprint(w, strings.Repeat("x", 5000))
				w.(http.Flusher).Flush()
			}
		case "/nothing":
			w.WriteHeader(204)
		case "/close":
			w.Header().Set("Connection", "close")
			w.WriteHeader(500)
			fmt.Fprint(w, "no")
		case "/long":
			fmt.Fprint(w, strings.Repeat("x", maxBody+1))
		}
	}))
	defer server.Close()
	dial := func() *Client {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return New(conn, "host.example")
	}
	c := dial()
	for _, test := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/length?a=b", 200, "GET host.example a=b"},
		{"POST", "/length", 200, "POST host.example "},
		{"GET", "/chunked", 200, strings.Repeat("x", 15000)},
		{"GET", "/nothing", 204, ""},
		{"GET", "/close", 500, "no"},
	} {
		r, err := c.Do(test.method, test.path)
		if err != nil || r.Status != test.status || string(r.Body) != test.body {
			t.Errorf("%s: %v, %d, %.40q", test.path, err, r.Status, r.Body)
		}
	}
	if _, err := c.Do("GET", "/length"); err == nil {
		t.Error("a closed connection answers")
	}
	if _, err := dial().Do("GET", "/long"); err == nil {
		t.Error("an endless answer is read")
	}
}

// FuzzRead: whatever a server says, the client does not panic or hang.
func FuzzRead(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	f.Add("HTTP/1.0 x")
	f.Fuzz(func(t *testing.T, answer string) {
		client, server := net.Pipe()
		go func() {
			b := make([]byte, 1024)
			server.Read(b)
			server.Write([]byte(answer))
			server.Close()
		}()
		New(client, "x").Do("GET", "/")
		client.Close()
	})
}
