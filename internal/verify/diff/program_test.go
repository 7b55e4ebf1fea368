package diff

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/testing/elftest"
)

func TestMain(m *testing.M) {
	gobinary.Init()
	os.Exit(m.Run())
}

// compiled is a program that Go compiled for Linux on amd64.
func compiled(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/a\ngo 1.24\n", "a.go": "package main\nfunc main() { println() }\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", "a", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func programs(ctx context.Context, want, got []byte) (string, []string, error) {
	return Programs(ctx, bytes.NewReader(want), int64(len(want)), bytes.NewReader(got))
}

// TestPrograms guards against a program that ends whoever takes it apart, or holds it up,
// and against an explanation of what was not read.
func TestPrograms(t *testing.T) {
	want := compiled(t)
	attack := func(change func(program []byte)) []byte {
		got := bytes.Clone(want)
		change(got)
		return got
	}
	for name, test := range map[string]struct {
		got           []byte
		summary, fail string // a part of it
	}{
		"one byte of code": {attack(func(p []byte) {
			f, _ := elf.NewFile(bytes.NewReader(p))
			p[f.Section(".text").Offset+100] ^= 0xff
		}), "their code differs (function ", ""},
		"2^31 functions": {elftest.Functions(t, want, 1<<31), "no table of functions in the image's program: its .gopclntab of ", ""},
		// A number that wraps on 32 bits when it is multiplied.
		"2^30 functions":  {elftest.Functions(t, want, 1<<30), "no table of functions in the image's program: its .gopclntab of ", ""},
		"names of 40 MiB": {elftest.Names(t, want), "", "it took more than 512 MiB of memory"},
		"2^16 sections":   {elftest.Sections(t, want, 0xffff), "is not a program that Go compiled", ""},
		"not a program":   {[]byte("\x7fELF"), "is not a program that Go compiled", ""},
		"none":            {nil, "is not a program that Go compiled", ""},
		"more than there": {make([]byte, gobinary.MaxProgram+1), "", limit.Err.Error()},
	} {
		summary, details, err := programs(t.Context(), want, test.got)
		switch {
		case test.fail != "" && (err == nil || !strings.Contains(err.Error(), test.fail) || summary != ""):
			t.Errorf("%s: %q, %v", name, summary, err)
		case test.fail == "" && (err != nil || !strings.Contains(summary, test.summary)):
			t.Errorf("%s: %q %q, %v", name, summary, details, err)
		}
	}
	if _, _, err := programs(t.Context(), want[:100], want); err == nil {
		t.Error("the wanted one is not whole, and there is no error")
	}
	// What cannot be read is not what differs.
	broken := errors.New("broken")
	half := io.MultiReader(bytes.NewReader(want[:len(want)/2]), iotest.ErrReader(broken))
	if summary, _, err := Programs(t.Context(), bytes.NewReader(want), int64(len(want)), half); !errors.Is(err, broken) {
		t.Errorf("%q, %v", summary, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	if _, _, err := programs(ctx, want, want); !errors.Is(err, broken) {
		t.Errorf("error of the context: %v", err)
	}
}
