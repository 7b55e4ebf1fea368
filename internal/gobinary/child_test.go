package gobinary

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/testing/elftest"
)

func TestMain(m *testing.M) {
	Init()
	os.Exit(m.Run())
}

var small = elftest.Small(elftest.SmallTable, elftest.SmallInfo)

// TestJob guards against a program that ends whoever takes it apart, or holds it up, and
// against an answer about what was not read.
func TestJob(t *testing.T) {
	run := func(ctx context.Context, r io.Reader) error {
		_, err := Weigh(ctx, r)
		return err
	}
	real := compiled(t, "amd64", "-s -w")
	for name, test := range map[string]struct {
		program []byte
		want    string // a part of the error
	}{
		"functions":       {elftest.Functions(t, real, 1<<31), "taking it apart failed: its .gopclntab of "},
		"names of 40 MiB": {elftest.Names(t, real), "it took more than 512 MiB of memory"},
		"sections":        {elftest.Sections(t, real, 0xffff), "not a program that Go compiled"},
		"no program":      {[]byte("\x7fELF"), "not a program that Go compiled"},
		"more than there": {make([]byte, MaxProgram+1), limit.Err.Error()},
	} {
		if err := run(t.Context(), bytes.NewReader(test.program)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken")
	if err := run(t.Context(), io.MultiReader(bytes.NewReader(small[:100]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("what cannot be read: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	if err := run(ctx, bytes.NewReader(small)); !errors.Is(err, broken) {
		t.Errorf("error of the context: %v", err)
	}
	patience := maxTime
	defer func() { maxTime = patience }()
	maxTime = time.Nanosecond
	if err := run(t.Context(), bytes.NewReader(small)); err == nil || err.Error() != "it took longer than 1ns" {
		t.Errorf("no time: %v", err)
	}
	defer func() { ready = true }()
	ready = false
	if err := run(t.Context(), bytes.NewReader(small)); err == nil || !strings.Contains(err.Error(), "Init") {
		t.Errorf("not ready: %v", err)
	}
}

// TestOutOfMemory guards against a fault of the child's that is taken for a lack of memory.
func TestOutOfMemory(t *testing.T) {
	for said, want := range map[string]bool{
		"fatal error: runtime: out of memory\n":              true,
		"SIGSEGV: segmentation violation\nPC=0x40f2a4 m=3\n": true,
		"panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation violation code=0x1]\n": false,
		"not a program\n": false,
	} {
		if got := outOfMemory(said); got != want {
			t.Errorf("%q: %v", said, got)
		}
	}
}
