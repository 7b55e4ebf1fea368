package releasetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// Programs puts derper, tailscaled and the entrypoint into the folder dir as the
// image of the lock in root, the folder of this repository, has them for this
// machine. They come from the user's own cache, or are compiled, which takes
// minutes.
func Programs(ctx context.Context, root, dir string) error {
	l, err := lock.Read(filepath.Join(root, lock.File))
	if err != nil {
		return err
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	c, err := cache.Open(filepath.Join(user, "derper"))
	if err != nil {
		return err
	}
	defer c.Close()
	display := progress.New(io.Discard)
	defer display.Close()
	builder := &pipeline.Builder{
		Inputs:  l.Inputs,
		Cache:   c,
		Display: display,
		Modules: &modproxy.Client{Proxies: os.Getenv("GOPROXY"), Dir: filepath.Join(c.Dir(), "sumdb"), Temp: c.Temp()},
	}
	built, err := builder.Build(ctx, []lock.Platform{"linux/" + lock.Platform(runtime.GOARCH)})
	if err != nil {
		return err
	}
	for _, b := range built.Outputs.Platforms[0].Binaries {
		if err := extract(c, b, filepath.Join(dir, b.Name)); err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
	}
	return nil
}

func extract(c *cache.Cache, b lock.Binary, to string) error {
	r, err := c.Open(cache.Blob{Digest: b.Digest})
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
