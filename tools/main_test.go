package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"mvdan.cc/sh/v3/interp"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/freeport"
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

// TestLinks guards against a tool that the image has no link to.
func TestLinks(t *testing.T) {
	if names := slices.Sorted(maps.Keys(tools)); !slices.Equal(slices.Sorted(slices.Values(append(names, "sh"))), lock.Tools) {
		t.Errorf("the lock's default variants link to %q", lock.Tools)
	}
}

// TestMoveAcross guards against a file that is lost, or there twice, after a move to another
// file system, where a name cannot just be changed.
func TestMoveAcross(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "moved")
	if err := os.WriteFile(filepath.Join(from, "file"), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("no-such", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := moveAcross(from, to); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(to, "file"))
	link, linkErr := os.Readlink(filepath.Join(to, "link"))
	if err != nil || linkErr != nil || string(content) != "content" || link != "no-such" {
		t.Errorf("moved %q (%v) and a link to %q (%v)", content, err, link, linkErr)
	}
	if _, err := os.Lstat(from); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is where it was, too: %v", err)
	}
	if err := moveAcross(from, to); err == nil {
		t.Error("what is not there was moved")
	}
	if _, err := os.Stat(filepath.Join(to, "file")); err != nil {
		t.Error(err)
	}
}

// TestComplete guards against a line that Tab makes mean something else.
func TestComplete(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a file (1)", "a$b1", "a$b2", "bin/program", "other/x", "ünï", "ünö", "[x]/inner"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	runner, err := interp.New(interp.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	s := &session{runner: runner}
	for _, test := range []struct{ command, line, want string }{
		{"PATH=bin", `pro`, `program `},
		{"", `cat a\ `, `cat a\ file\ \(1\) `},
		{"", `cat a\ file\ \(`, `cat a\ file\ \(1\) `},
		{"", `cat a`, `cat a`},
		{"", `cat a\$`, `cat a\$b`},
		{"", `ls>ot`, `ls>other/`},
		{"", `ls ./ot`, `ls ./other/`},
		{"", `no-such`, `no-such`},
		{"", `ls ü`, `ls ün`},
		{"", `ls \[x`, `ls \[x\]/`},
		{"cd '[x]'; PATH=../bin", `ls in`, `ls inner `},
		{"", `pro`, `program `},
	} {
		if err := s.run(t.Context(), strings.NewReader(test.command), ""); err != nil {
			t.Fatal(err)
		}
		if got, pos, ok := s.complete(test.line, len(test.line), '\t'); !ok || got != test.want || pos != len(got) {
			t.Errorf("%s becomes %s with the cursor at %d, want %s", test.line, got, pos, test.want)
		}
	}
}

// TestConnect has nc wait for nc, and each get what the other sends.
func TestConnect(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			free, err := freeport.Choose("127.0.0.1")
			if err != nil {
				t.Fatal(err)
			}
			start := func(says string, args ...string) (*exec.Cmd, *bytes.Buffer) {
				if network == "udp" {
					args = append([]string{"-u", "-w", "1"}, args...)
				}
				var out bytes.Buffer
				cmd := exec.CommandContext(t.Context(), "nc", args...)
				cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(says), &out, os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				return cmd, &out
			}
			waiting, heard := start("hello\n", "-l", "-p", strconv.Itoa(free))
			for range 50 { // until somebody waits there, and with UDP until it has come
				caller, answer := start("hi\n", "127.0.0.1", strconv.Itoa(free))
				if err := caller.Wait(); err == nil {
					if answer.String() != "hello\n" {
						t.Errorf("the caller got %q", answer)
					}
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err := waiting.Wait(); err != nil || heard.String() != "hi\n" {
				t.Errorf("who waits got %q: %v", heard, err)
			}
		})
	}
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
