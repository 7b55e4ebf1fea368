package releasetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// Programs puts derper with its list of flags, tailscaled and the entrypoint into the folder dir as the
// image of the lock in root, the folder of this repository, has them for this
// machine. They come from the user's own cache, or are compiled, which takes
// minutes. Features are those of tailscaled that the one in the image leaves out,
// and this one has.
func Programs(ctx context.Context, root, dir string, features ...string) error {
	c, built, err := realBuild(ctx, root, features...)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, b := range built.Output.Platforms[0].Binaries {
		if err := extract(c, b, filepath.Join(dir, b.Name)); err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
	}
	list, err := flags.Of(ctx, built.Images[0])
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, filepath.Base(setting.File)), list.Bytes(), 0o644)
}

// Image is the image of the lock in root for this machine, from the user's own
// cache, which stays open until close is called.
func Image(ctx context.Context, root string) (img v1.Image, close func(), err error) {
	c, built, err := realBuild(ctx, root)
	if err != nil {
		return nil, nil, err
	}
	return built.Images[0], func() { c.Close() }, nil
}

func realBuild(ctx context.Context, root string, features ...string) (*cache.Cache, *pipeline.Build, error) {
	l, err := lock.Read(filepath.Join(root, lock.File))
	if err != nil {
		return nil, nil, err
	}
	for i := range l.Inputs.Programs {
		p := &l.Inputs.Programs[i]
		p.Tags = slices.DeleteFunc(p.Tags, func(tag string) bool { return slices.Contains(features, strings.TrimPrefix(tag, "ts_omit_")) })
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, nil, err
	}
	c, err := cache.Open(filepath.Join(user, "derper"))
	if err != nil {
		return nil, nil, err
	}
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
		c.Close()
		return nil, nil, err
	}
	return c, built, nil
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
