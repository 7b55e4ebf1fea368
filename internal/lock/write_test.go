//go:build linux

package lock

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/need"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, File)
	for range 2 { // a new file, and one that is there
		if err := sample().Write(name); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sampleBytes(t)) {
		t.Errorf("another lock was written:\n%s", got)
	}
	only(t, dir)
}

// A lock that could not be read again is not written.
func TestWriteRefusesBadLock(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, File)
	if err := sample().Write(name); err != nil {
		t.Fatal(err)
	}
	bad := sample()
	bad.Output().Platforms[0].Manifest = ""
	if err := bad.Write(name); err == nil {
		t.Error("written")
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, sampleBytes(t)) {
		t.Errorf("the old lock is gone: %v\n%s", err, got)
	}
	only(t, dir)
}

func TestWriteOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	need.Mount(t, dir, "size=64k")
	name := filepath.Join(dir, File)
	if err := sample().Write(name); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o666); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	changed := sample()
	changed.Inputs.Revision = 2
	if err := changed.Write(name); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, not ENOSPC", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, sampleBytes(t)) {
		t.Errorf("the old lock is gone: %v\n%s", err, got)
	}
	only(t, dir)
}

// only fails the test when the folder has anything but the lock.
func only(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != File {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}
