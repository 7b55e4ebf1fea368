package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/terminal"
)

// TestShell has somebody type in the shell of the variant that has one, which is process 1 of a container, with
// nothing of this machine around it.
func TestShell(t *testing.T) {
	need.Minutes(t, "compiling the tools of the variant debug")
	dir := filepath.Join(t.TempDir(), "dist")
	build := func(t *testing.T, more ...string) {
		t.Helper()
		var out, errs strings.Builder
		args := append([]string{"--lock", "../../" + lock.File, "--variant", "debug", "--output", dir}, more...)
		if code := run(t.Context(), args, &out, &errs); code != cli.ExitOK {
			t.Fatal(errs.String())
		}
	}
	t.Run("native", func(t *testing.T) {
		need.Namespaces(t)
		build(t)
		opened, err := image.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		root := t.TempDir()
		if err := container.Unpack(only(t, opened), root); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh")
		cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/local/bin", "TERM=xterm-256color"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Cloneflags: syscall.CLONE_NEWPID}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		typeInShell(t, cmd)
	})
	t.Run("docker", func(t *testing.T) {
		need.Docker(t)
		l, err := lock.Read("../../" + lock.File)
		if err != nil {
			t.Fatal(err)
		}
		build(t, "--load")
		typeInShell(t, exec.Command("docker", "run", "--rm", "-it", "--network", "none", "-e", "TERM=xterm-256color",
			"derper:"+l.Inputs.Tailscale.Short()+"-debug", "/bin/sh"))
	})
}

// only is the image of a layout that has one.
func only(t *testing.T, opened *image.Opened) v1.Image {
	t.Helper()
	top, err := opened.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := top.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// typeInShell expects of a shell what a person at a terminal does. After a key that is no character it waits
// for what the shell draws: keys that come in one read with it are lost, and no person is that fast.
func typeInShell(t *testing.T, cmd *exec.Cmd) {
	const (
		prompt                    = "> "
		up, down, left, backspace = "\x1b[A", "\x1b[B", "\x1b[D", "\x7f"
		interrupt, end            = "\x03", "\x04" // Ctrl-C, Ctrl-D
		cursor                    = "\x1b[7m"
	)
	sh := terminal.Start(t, cmd)
	sh.Type("", prompt)
	sh.Type("echo $$ fi''rst\r", "1 first\r\n", prompt)
	sh.Type("echo sec''ond\r", "second\r\n", prompt)

	// History, and changing a line.
	sh.Type(up, "sec''ond")
	sh.Type(up, "fi''rst")
	sh.Type(down, "sec''ond")
	sh.Type(left, cursor+"d")
	sh.Type(backspace, "sec''o\x1b", cursor+"d")
	sh.Type("re\r", "secored\r\n", prompt)

	// Jobs of a pipe, and exit codes.
	sh.Type("ls / | grep etc | head -n 1; echo $? lis''ted\r", "etc\r\n0 listed\r\n", prompt)
	sh.Type("sh -c 'exit 7'; echo code $?\r", "code 7\r\n", prompt)
	sh.Type("false; echo code $?\r", "code 1\r\n", prompt)
	sh.Type("no-such-program; echo code $?\r", "code 127\r\n", prompt)

	// Ctrl-C ends the program that runs, and a line that is being typed; the shell stays.
	sh.Type("cat\r", "\x1b[?25h") // the shell gives the terminal to the program
	sh.Type("pi'ng\n", "pi'ng\r\npi'ng\r\n")
	sh.Type(interrupt, prompt)
	sh.Type("echo code $?\r", "code 130\r\n", prompt)
	sh.Type("echo ne''ver", "ne''ver")
	sh.Type(interrupt, prompt)
	sh.Type("echo st''ays\r", "stays\r\n", prompt)
	sh.Ends(end, 0)
}
