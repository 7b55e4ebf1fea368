//go:build linux

package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xavieralpha/derper/internal/testing/chance"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// The test program is its own child: with this variable it is a program that uses
// the cache in the folder named, in the way named.
const childEnv = "CACHE_TEST_CHILD"

func TestMain(m *testing.M) {
	how, dir, ok := strings.Cut(os.Getenv(childEnv), " ")
	if !ok {
		os.Exit(m.Run())
	}
	if err := child(how, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(how, dir string) error {
	switch how {
	case "no-shared-locks":
		return noLocks(dir, unix.LOCK_SH)
	case "no-exclusive-locks":
		return noLocks(dir, unix.LOCK_EX)
	}
	c, err := Open(dir)
	if err != nil {
		return err
	}
	switch how {
	case "hold": // temporary files and a lock, until it is killed
		work, err := c.TempDir()
		if err != nil {
			return err
		}
		readOnly := filepath.Join(work, "module")
		if err := os.Mkdir(readOnly, 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(readOnly, "a.go"), nil, 0o444); err != nil {
			return err
		}
		if err := os.Chmod(readOnly, 0o555); err != nil {
			return err
		}
		half := make(chan error)
		go c.Write(func(w io.Writer) error {
			_, err := io.WriteString(w, "half of it")
			half <- err
			select {}
		})
		if err := <-half; err != nil {
			return err
		}
		if _, err := c.Lock(context.Background(), "key", nil); err != nil {
			return err
		}
		fmt.Println(c.Temp())
		io.Copy(io.Discard, os.Stdin)
	case "work": // results, one after the other and a line for each, until it is killed
		fmt.Println("begun")
		for i := 0; ; i++ {
			b, err := c.Add(strings.NewReader(strings.Repeat(fmt.Sprint(i), 10_000)))
			if err != nil {
				return err
			}
			r := &Result{Action: []byte("{}"), Blobs: map[string]Blob{"file": b}}
			if err := c.Put(fmt.Sprint("key", i%10), "id", r); err != nil {
				return err
			}
			fmt.Println(i)
		}
	}
	return nil
}

// startChild starts a child, which says a line when it has begun, and others then.
func startChild(t *testing.T, how, dir string) (kill func(), line func() string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+how+" "+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		cmd.Process.Kill() // SIGKILL; fails once it is gone
		cmd.Wait()
	}
	t.Cleanup(kill)
	lines := bufio.NewReader(out)
	return kill, func() string {
		t.Helper()
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(text)
	}
}

func TestTemporaryFilesOfOthers(t *testing.T) {
	dir := t.TempDir()
	kill, line := startChild(t, "hold", dir)
	temp := line()
	entries := func() int {
		list, err := os.ReadDir(temp)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return len(list)
	}
	c, _ := open(t, dir)
	if entries() != 2 {
		t.Errorf("%d temporary files of a living program, not 2", entries())
	}
	waits := errors.New("waits")
	if err := lockOr(t, c, "key", waits); !errors.Is(err, waits) {
		t.Errorf("a living program's lock: %v", err)
	}
	if _, err := c.Prune(func(string) bool { return false }); !errors.Is(err, ErrInUse) || entries() != 2 {
		t.Errorf("prune beside a living program: %v, %d temporary files", err, entries())
	}
	kill()
	if err := lockOr(t, c, "key", waits); err != nil {
		t.Errorf("a dead program's lock: %v", err)
	}
	next, _ := open(t, dir)
	if _, err := os.Stat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d temporary files of a dead program are left, %v", entries(), err)
	}
	for _, c := range []*Cache{c, next} {
		if _, err := os.Stat(c.Temp()); err != nil {
			t.Errorf("those of a living program are not: %v", err)
		}
	}
	noFiles(t, filepath.Join(dir, "blobs"))
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(next.Temp()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its own are left after Close: %v", err)
	}
}

// lockOr takes a lock and lets go of it, or gives the error when it is held.
func lockOr(t *testing.T, c *Cache, key string, held error) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	unlock, err := c.Lock(ctx, key, cancel)
	if ctx.Err() != nil {
		return held
	}
	if err == nil {
		unlock()
	}
	return err
}

// Whenever a program is killed, what is in the cache is whole.
func TestKilledAtAnyPoint(t *testing.T) {
	random := chance.New(t)
	dir := t.TempDir()
	results := 0
	for range 20 {
		kill, line := startChild(t, "work", dir)
		for range 1 + random.IntN(10) { // it has begun, and has so many results
			line()
		}
		time.Sleep(time.Duration(random.Int64N(int64(5 * time.Millisecond)))) // into the next one
		kill()
		c, warned := open(t, dir)
		c.VerifyAll = true
		for i := range 10 {
			r, err := c.Get(fmt.Sprint("key", i))
			if err != nil {
				t.Fatal(err)
			}
			if r != nil {
				results++
			}
		}
		if len(*warned) != 0 {
			t.Fatalf("damaged: %q", *warned)
		}
		blobs, err := os.ReadDir(filepath.Join(dir, "blobs"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range blobs {
			if filepath.Ext(e.Name()) == ".checked" {
				continue
			}
			if err := c.Check(Blob{Digest: "sha256:" + e.Name()}); err != nil {
				t.Errorf("blob without a result: %v", err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		noFiles(t, filepath.Join(dir, "tmp"))
	}
	if results == 0 {
		t.Error("no child got as far as a result: this test tests nothing")
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	need.Mount(t, dir, "size=1m")
	c, _ := open(t, dir)
	b := put(t, c, "key", "fits")
	big := strings.NewReader(strings.Repeat("x", 2<<20))
	if _, err := c.Add(big); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, not ENOSPC", err)
	}
	noFiles(t, c.Temp())
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "*"))
	if err != nil || len(blobs) != 2 { // the one that fits, and its check
		t.Errorf("blobs: %v, %v", blobs, err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o666); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := c.Put("key", "id", &Result{Action: []byte("{}"), Blobs: map[string]Blob{"new": b}}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("put: %v, not ENOSPC", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get("key"); err != nil || r == nil || r.Blobs["file"] != b {
		t.Errorf("the old result is gone: %v, %v", r, err)
	}
	put(t, c, "next", "fits again")
}
