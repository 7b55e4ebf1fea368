package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

// said is what f prints on standard error.
func said(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	defer func(old *os.File) { os.Stderr = old }(os.Stderr)
	os.Stderr = file
	f()
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The mistake it guards: words of clients, of control servers and of admission controllers
// that a terminal carries out, or that look like a line of the entrypoint's own.
func TestPrintable(t *testing.T) {
	const hostile = "a\x1b[2Jb\u009b2J\u202ec\r\nentrypoint: all is well"
	const shown = `a\u001b[2Jb\u009b2J\u202ec\u000d` + "\n  entrypoint: all is well"
	const lines = `a\u001b[2Jb\u009b2J\u202ec\u000d` + "\nentrypoint: all is well"
	if got, want := said(t, func() { logf("%v", errors.New(hostile)) }), "entrypoint: "+shown+"\n"; got != want {
		t.Errorf("log: %q, want %q", got, want)
	}
	if got, want := said(t, func() { hint("%s", hostile) }), "hint: "+shown+"\n"; got != want {
		t.Errorf("hint: %q, want %q", got, want)
	}
	for _, each := range []func(string){nil, func(string) {}} {
		got := said(t, func() {
			var o output
			if err := o.follow(each); err != nil {
				t.Fatal(err)
			}
			io.WriteString(o, hostile[:3]) // in the middle of the sequence
			io.WriteString(o, hostile[3:]+"\n")
			o.Close()
			<-o.drained
		})
		if got != lines+"\n" {
			t.Errorf("a program's output: %q, want %q", got, lines)
		}
	}
	// What a command prints is an answer of the entrypoint that runs.
	a := healthAnswer([]health.Result{{Part: "verify-client-url", Err: errors.New(hostile)}}).
		And(complaints([]setting.Problem{{What: hostile}}))
	if strings.Contains(a.Err, "\nentrypoint: all is well") {
		t.Errorf("lines of a stranger: %q", a.Err)
	}
}
