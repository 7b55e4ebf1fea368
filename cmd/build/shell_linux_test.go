package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/terminal"
)

// TestShell has somebody type in the shell of the variant that has one, which is process 1 of a container, with
// nothing of this machine around it.
func TestShell(t *testing.T) {
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
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
		opened, err := image.Open(dir + "-debug")
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		root := t.TempDir()
		need.Program(t, "tar", "tar")
		files := mutate.Extract(only(t, opened))
		defer files.Close()
		tar := exec.Command("tar", "-x", "-C", root)
		tar.Stdin = files
		if out, err := tar.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cmd := exec.Command("/bin/sh")
		cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/local/bin", "TERM=xterm-256color", "PS1=> "}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Cloneflags: syscall.CLONE_NEWPID}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		terminal.Shell(t, cmd)
	})
	t.Run("docker", func(t *testing.T) {
		need.Docker(t)
		build(t, "--load")
		terminal.Shell(t, exec.Command("docker", "run", "--rm", "-it", "--network", "none", "-e", "TERM=xterm-256color", "-e", "PS1=> ",
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
