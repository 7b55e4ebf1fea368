package releasetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/gofrs/flock"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// sharedPackages is a folder of packages that tests have compiled, kept for the next run.
var sharedPackages = sync.OnceValues(func() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(user, "derper-test", "go-build")
	return dir, os.MkdirAll(dir, 0o755)
})

// sharedToolchain is a folder with the toolchain of this repository's lock. A build that found
// it incomplete would fetch it again while others run it, so it is made by one test program,
// and the others wait.
var sharedToolchain = sync.OnceValues(func() (dir string, err error) {
	// A cache's toolchain is moved into place, so this is on the disk of temporary files.
	dir = filepath.Join(os.TempDir(), fmt.Sprintf("derper-test-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Its name is known to everybody, and programs in it are run.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if of, ok := info.Sys().(*syscall.Stat_t); !ok || int(of.Uid) != os.Getuid() || !info.IsDir() || info.Mode()&0o022 != 0 {
		return "", fmt.Errorf("%s is another user's, or others may write to it: remove it, or set TMPDIR", dir)
	}
	name, err := lockFile()
	if err != nil {
		return "", err
	}
	l, err := lock.Read(name)
	if err != nil {
		return "", err
	}
	alone := flock.New(filepath.Join(dir, "lock"))
	if err := alone.Lock(); err != nil {
		return "", err
	}
	defer alone.Close()
	dir = filepath.Join(dir, "cache")
	c, err := cache.Open(dir)
	if err != nil {
		return "", err
	}
	defer c.Close()
	client := &modproxy.Client{Proxies: proxies, Dir: filepath.Join(dir, "sumdb"), Temp: c.Temp()}
	_, err = toolchain.Install(context.Background(), client, l.Inputs.Go, runtime.GOOS+"/"+runtime.GOARCH, dir, nil, func(string, ...any) {})
	return filepath.Join(dir, "toolchain"), err
})

// What tests may change: the folder that they run in, and where modules come from.
var (
	started, _ = os.Getwd()
	proxies    = os.Getenv("GOPROXY")
)

// lockFile is the lock of the checkout.
func lockFile() (string, error) {
	for dir := started; ; dir = filepath.Dir(dir) {
		name := filepath.Join(dir, lock.File)
		if _, err := os.Stat(name); err == nil || dir == filepath.Dir(dir) {
			return name, err
		}
	}
}
