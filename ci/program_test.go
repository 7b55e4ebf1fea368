package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// TestProgram guards against a program that an empty container cannot run, and against
// one with something of this machine in it, which an engine would have to be sent anew.
func TestProgram(t *testing.T) {
	need.AWeek(t, "the build program compiled with other flags")
	t.Setenv("GOFLAGS", "-tags=x -race")
	t.Setenv("CGO_ENABLED", "1")
	t.Setenv("GOAMD64", "v3")
	var content []string
	for range 2 {
		name, err := program(t.Context(), t.TempDir(), "linux/"+runtime.GOARCH)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Error("it wants an interpreter")
			}
		}
		f.Close()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, string(data))
		need.Linux(t) // to run it
		if out, err := exec.Command(name, "-h").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	if content[0] != content[1] {
		t.Error("compiled twice, it is not the same")
	}
	if dir, err := os.Getwd(); err != nil || strings.Contains(content[0], dir) {
		t.Errorf("it has the checkout's path in it, %s (%v)", dir, err)
	}
}

func TestProgramForNobody(t *testing.T) {
	if _, err := program(t.Context(), t.TempDir(), "windows/amd64"); err == nil || !strings.Contains(err.Error(), "windows/amd64") {
		t.Error(err)
	}
}
