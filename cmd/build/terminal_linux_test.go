package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/terminal"
)

// TestOnTerminal has somebody type in a shell: what Tab completes, what help shows, and what
// is said to who mistypes.
func TestOnTerminal(t *testing.T) {
	t.Parallel()
	const library = "/usr/share/bash-completion/bash_completion"
	bash := need.Program(t, "bash", "bash")
	if _, err := os.Stat(library); err != nil {
		need.Missing(t, "bash's completion", "install Debian's package bash-completion")
	}
	person, program := terminal.Open(t)
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm", "PS1=$ ", "INPUTRC=/dev/null", "LANG=C.UTF-8"}
	cmd.Dir = t.TempDir()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, over := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- cmd.Wait()
		close(ended)
	}()
	defer func() {
		cmd.Process.Kill()
		<-ended
		close(over)
	}()
	said := make(chan string)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			if err != nil {
				return
			}
			select {
			case said <- string(buf[:n]):
			case <-over:
				return
			}
		}
	}()
	late, screen := time.After(2*time.Minute), ""
	// shows waits until the shell shows want.
	shows := func(want string) {
		t.Helper()
		for !strings.Contains(screen, want) {
			select {
			case more := <-said:
				screen += more
			case <-late:
				t.Fatalf("no %q in\n%s", want, screen)
			}
		}
		_, screen, _ = strings.Cut(screen, want)
	}
	// types types keys and waits until the shell shows want after that, and reads again.
	types := func(keys, want string) {
		t.Helper()
		if _, err := person.WriteString(keys); err != nil {
			t.Fatal(err)
		}
		shows(want)
		if strings.HasSuffix(keys, "\n") {
			shows("$ ")
		}
	}
	shows("$ ")
	const wipe = "\x15" // Ctrl-U
	types("source "+library+"; source <(build completion bash); echo re''ady\n", "ready\r\n")
	types("build pus\t", "build push ")
	types("--dry\t", "--dry-run ")
	types(wipe+"build test --platform linux/s3\t", "linux/s390x ")
	types(wipe+"build release --step si\t", "sign ")
	types(wipe+"build completion \t\t", "bash  fish  zsh")
	types(wipe+"build tset\n", "build: unknown command \"tset\"\r\nhint: did you mean test?\r\n")
	types("build push -h\n", "usage: build push [flags] [LAYOUT]\r\n")
	types("build -lock x\n", "hint: a long flag has two dashes: --lock\r\n")
	if _, err := person.WriteString("exit 0\n"); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case more := <-said:
			screen += more
			continue
		case err := <-ended:
			if err != nil {
				t.Errorf("the shell ended with %v:\n%s", err, screen)
			}
		case <-late:
			t.Errorf("the shell did not end:\n%s", screen)
		}
		return
	}
}
