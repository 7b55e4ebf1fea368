package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/terminal"
)

// TestTerminal has somebody type in the shell.
func TestTerminal(t *testing.T) {
	cmd := exec.Command("sh")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PS1=> ", "TERM=dumb"}
	terminal.Shell(t, cmd)
}
