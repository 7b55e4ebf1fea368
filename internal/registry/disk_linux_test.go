package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// TestFullDisk guards a registry whose disk, a small file system, is full from some
// request of a push on, for every one of them: the push completes or no tag moves, on
// the other registry neither, and when there is space again, running it again
// completes it.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	need.Mount(t, dir, "size=16m")
	small := registrytest.Distribution(t, registrytest.Options{Dir: filepath.Join(dir, "registry")})
	filler := filepath.Join(dir, "filler")
	release := registrytest.NewRelease(t, "v1.102.3", 2000)
	patience := Patience{Attempts: 2, Backoff: time.Millisecond, Stall: time.Minute, RetryAfter: time.Second}

	completed, gaveUp, half := 0, 0, 0
	for n := int64(1); ; n++ {
		r := newRig(t, release, fmt.Sprint("derper", n), small, registrytest.Memory(t, registrytest.Options{}))
		r.fixed, r.full = true, true
		var requests atomic.Int64
		r.proxies[0].Hook(func(registrytest.Request) {
			if requests.Add(1) == n {
				fill(t, filler)
			}
		})
		_, err := r.push(patience)
		r.proxies[0].Hook(nil)
		if requests.Load() < n {
			break
		}
		if r.judge(t, err) > 0 {
			half++
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			completed++
			continue
		}
		gaveUp++
		if !strings.Contains(err.Error(), r.proxies[0].Repository(r.repository)) {
			t.Errorf("does not name the registry that is full: %v", err)
		}
		if _, err := r.push(hasty); err != nil {
			t.Errorf("full from request %d on: with space again: %v", n, err)
		}
		r.judge(t, nil)
	}
	t.Logf("disk full from each of %d requests on: %d pushes completed, %d gave up, %d of those with tags that the error names; all completed when run again",
		completed+gaveUp, completed, gaveUp, half)
	if gaveUp < 10 {
		t.Error("the disk was hardly ever full: the test tested less than it means to")
	}
}

// fill takes what space there is.
func fill(t testing.TB, name string) {
	f, err := os.Create(name)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
		err = nil
	}
}
