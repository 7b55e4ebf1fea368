package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/terminal"
)

// TestOnTerminal has somebody type in a shell: what Tab completes, what help shows, and what
// is said to who mistypes.
func TestOnTerminal(t *testing.T) {
	const library = "/usr/share/bash-completion/bash_completion"
	bash := need.Program(t, "bash", "bash")
	if _, err := os.Stat(library); err != nil {
		need.Missing(t, "bash's completion", "install Debian's package bash-completion")
	}
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm", "PS1=$ ", "INPUTRC=/dev/null", "LANG=C.UTF-8"}
	cmd.Dir = t.TempDir()
	shell := terminal.Start(t, cmd)
	shell.Type("", "$ ")
	const wipe = "\x15" // Ctrl-U
	shell.Type("source "+library+"; source <(build completion bash); echo re''ady\n", "ready\r\n", "$ ")
	shell.Type("build pus\t", "build push ")
	shell.Type("--dry\t", "--dry-run ")
	shell.Type(wipe+"build test --platform linux/s3\t", "linux/s390x ")
	shell.Type(wipe+"build release --step si\t", "sign ")
	shell.Type(wipe+"build completion \t\t", "bash  fish  zsh")
	shell.Type(wipe+"build tset\n", "build: unknown command \"tset\"\r\nhint: did you mean test?\r\n", "$ ")
	shell.Type("build push -h\n", "usage: build push [flags] [LAYOUT ...]\r\n", "$ ")
	shell.Type("build -lock x\n", "hint: a long flag has two dashes: --lock\r\n", "$ ")
	shell.Ends("exit 0\n", 0)
}
