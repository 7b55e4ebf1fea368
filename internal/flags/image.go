package flags

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/ctxio"
	"github.com/xavieralpha/derper/internal/limit"
)

// ErrNone is of an image that does not say which flags its derper has: one of before images
// did.
var ErrNone = errors.New("it has no " + setting.File)

// What is read of an image, in bytes.
const (
	maxFile  = 1 << 20
	maxLayer = 1 << 30
)

// Of are the flags of the derper in an image, as its [setting.File] says.
func Of(ctx context.Context, img v1.Image) (setting.Release, error) {
	layers, err := img.Layers()
	if err != nil {
		return setting.Release{}, err
	}
	for _, l := range slices.Backward(layers) {
		data, err := fileIn(ctx, l, strings.TrimPrefix(setting.File, "/"))
		switch {
		case err != nil:
			return setting.Release{}, err
		case data != nil:
			return setting.ParseRelease(data)
		}
	}
	return setting.Release{}, ErrNone
}

// fileIn is a file of a layer, nil if it has none of that name.
func fileIn(ctx context.Context, l v1.Layer, name string) ([]byte, error) {
	rc, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	tr := limit.NewTar(limit.Reader(ctxio.Reader(ctx, rc), maxLayer))
	for {
		h, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, err
		case strings.TrimPrefix(h.Name, "/") != name || h.Typeflag != tar.TypeReg:
		case h.Size > maxFile:
			return nil, fmt.Errorf("%s has %d bytes, and %d are read", name, h.Size, maxFile)
		default:
			return io.ReadAll(tr)
		}
	}
}
