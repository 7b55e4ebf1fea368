package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// TestFullDisk guards a disk that fills up: a message that says so, a non-zero exit
// code, and a build that goes on when there is space again.
func TestFullDisk(t *testing.T) {
	for _, place := range []string{"cache", "output"} {
		t.Run(place, func(t *testing.T) {
			small := t.TempDir()
			need.Mount(t, small, "size=3m")
			b := newBuilder(t)
			b.run() // so that the toolchain, which the small one shares, is there
			b.cache = releasetest.CacheDir(t)
			if place == "output" {
				b.output = filepath.Join(small, "dist")
			} else {
				releasetest.ShareInto(t, small)
				b.cache = small
			}
			cmd, stdout, stderr := b.command("--platform", "all")
			if err := cmd.Run(); err == nil {
				t.Fatal("a build on a full disk worked")
			}
			for _, want := range []string{"no space left on device", "hint: free space on the disk"} {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("does not say %q:\n%s", want, stderr)
				}
			}
			if stdout.Len() > 0 {
				t.Errorf("printed a result: %s", stdout)
			}
			b.validLayout()
			need.Remount(t, small, "size=900m")
			if want := b.run("--platform", "all").Digest; b.validLayout() != want {
				t.Error("the layout is not what was built")
			}
		})
	}
}

// TestCompileWithoutNetwork guards that compiling needs no network: once sources
// are fetched, everything is built again in a network namespace that has nothing.
func TestCompileWithoutNetwork(t *testing.T) {
	need.Root(t, "for a network namespace")
	need.Namespaces(t)
	b := newBuilder(t)
	want := b.run("--platform", "all")
	results, err := filepath.Glob(filepath.Join(b.cache, "actions", "*.json"))
	if err != nil || len(results) == 0 {
		t.Fatalf("no results in the cache: %v", err)
	}
	for _, name := range results {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	cmd, stdout, stderr := b.command("--platform", "all")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	if !strings.Contains(stdout.String(), want.Digest) {
		t.Errorf("without network the index is another than %s:\n%s", want.Digest, stdout)
	}
	if strings.Contains(stdout.String(), `"cached": true`) {
		t.Error("something came from the cache: the test tested less than it means to")
	}
}
