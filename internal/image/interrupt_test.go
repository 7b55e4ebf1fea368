//go:build linux

package image

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/chance"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// A layer that cannot be read ends the run, and leaves the old layout.
func TestLayerThatFails(t *testing.T) {
	damaged := errors.New("damaged")
	for i := range 2 {
		dir := t.TempDir()
		write(t, dir, "1", false)
		layers, _, _ := sampleImages(t, "2")
		layers[0] = layer(t, "base", []File{Text("another", "base")}) // so that both are new
		layers[i].Open = func() (io.ReadCloser, error) { return nil, damaged }
		_, index := assemble(t, inputs(), layers)
		if written, err := WriteLayout(dir, "2", index, false); written || !errors.Is(err, damaged) {
			t.Errorf("layer %d: %v, %v", i, written, err)
		}
		readable(t, dir, "1")
		for name := range contents(t, dir) {
			if strings.HasPrefix(name, temporary) {
				t.Errorf("left: %s", name)
			}
		}
		if !write(t, dir, "2", false) {
			t.Error("the next run wrote nothing")
		}
		readable(t, dir, "2")
		has(t, dir, names(t, "2"))
	}
}

// The disk fills up at each step, one after the other: a disk that has room for so
// many files more. At each, the old layout is there, and the next run goes on.
func TestFullDisk(t *testing.T) {
	for _, old := range []string{"", "1"} {
		t.Run("after "+old, func(t *testing.T) {
			steps := 0
			for ; ; steps++ {
				disk := t.TempDir()
				need.Mount(t, disk, "")
				if fillAtStep(t, disk, old, uint64(steps)) || t.Failed() {
					break
				}
			}
			if steps < 4 {
				t.Errorf("only %d steps: this test tests little", steps)
			}
		})
	}
}

// fillAtStep writes version 2 over old on a disk with room for so many files, and
// reports whether it fits.
func fillAtStep(t *testing.T, disk, old string, room uint64) (fits bool) {
	t.Helper()
	dir := filepath.Join(disk, "dist")
	if old != "" {
		write(t, dir, old, false)
	}
	files := func(limit uint64) {
		t.Helper()
		need.Remount(t, disk, fmt.Sprintf("nr_inodes=%d", limit))
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	files(st.Files - st.Ffree + room)
	_, _, index := sampleImages(t, "2")
	_, err := WriteLayout(dir, "2", index, false)
	if err != nil {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("room for %d: %v, not ENOSPC", room, err)
		}
		if old != "" {
			readable(t, dir, old)
		}
	}
	files(st.Files)
	write(t, dir, "2", false)
	readable(t, dir, "2")
	has(t, dir, names(t, "2"))
	return err == nil
}

// The test program is its own child: with this variable it writes layouts to the folder
// named, one version after the other and a line for each, until it is killed.
const childEnv = "IMAGE_TEST_CHILD"

func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	var writers []func() (bool, error)
	for _, version := range []string{"1", "2"} {
		_, _, index := sampleImages(program{}, version)
		writers = append(writers, func() (bool, error) { return WriteLayout(dir, version, index, false) })
	}
	fmt.Println("begun")
	for i := 0; ; i++ {
		if _, err := writers[i%2](); err != nil {
			program{}.Fatal(err)
		}
		fmt.Println(i)
	}
}

// A program ends when a test would.
type program struct{ testing.TB }

func (program) Helper() {}

func (program) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}

func (p program) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }
func (p program) Error(args ...any)                 { p.Fatal(args...) }
func (p program) Errorf(format string, args ...any) { p.Fatalf(format, args...) }

// Whenever a program is killed, there is one of the two layouts, or none yet; and
// the next run makes it the one it should be.
func TestKilledAtAnyPoint(t *testing.T) {
	random := chance.New(t)
	dir := filepath.Join(t.TempDir(), "dist")
	for i := range 20 {
		if i%5 == 0 { // also while it writes the first
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for n := 1 + random.IntN(3); n > 0 && err == nil; n-- { // it has begun, and has written so many
			_, err = lines.ReadString('\n')
		}
		// A moment of the next one; then SIGKILL.
		time.Sleep(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil || said.Len() > 0 {
			t.Fatalf("child: %v\n%s", err, said.String())
		}
		if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
			readable(t, dir, "1", "2")
		}
		write(t, dir, "1", false)
		readable(t, dir, "1")
		has(t, dir, names(t, "1"))
	}
}
