package main

import (
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	commands := map[string]func(){"tools": main, "sh": main}
	for name := range tools {
		commands[name] = main
	}
	testscript.Main(m, commands)
}

// TestScripts runs scripts of the shell and the tools as a user calls them.
func TestScripts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/file" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("X-Asked", r.Header.Get("X-Asking"))
		w.Write([]byte("content\n")) //nolint:errcheck // the client says it
	}))
	t.Cleanup(server.Close) // the scripts run when this function has ended
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("URL", server.URL)
			return nil
		},
	})
}

// TestSockets reads what a kernel of this machine's byte order prints.
func TestSockets(t *testing.T) {
	loopback := map[bool]string{true: "0100007F", false: "7F000001"}[binary.NativeEndian.Uint16([]byte{1, 0}) == 1]
	one := map[bool]string{true: "01000000", false: "00000001"}[binary.NativeEndian.Uint16([]byte{1, 0}) == 1]
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: " + loopback + ":01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n" +
		"   1: 000000000000000000000000" + one + ":0050 00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n"
	got, err := sockets(table, "tcp")
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if want := netip.MustParseAddrPort("127.0.0.1:443"); got[0].local != want || got[0].state != "LISTEN" || got[0].inode != "4711" {
		t.Errorf("got %v, want a socket that listens on %v", got[0], want)
	}
	if want := netip.MustParseAddrPort("[::1]:80"); got[1].local != want || got[1].state != "ESTAB" {
		t.Errorf("got %v, want a connection of %v", got[1], want)
	}
}
