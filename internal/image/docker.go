package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/limit"
)

// WriteTarball writes an image as a docker archive to the named file, whole or not
// at all.
func WriteTarball(file, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("tarball: %w", err)
	}
	write := func(w io.Writer) error { return tarball.Write(tag, img, w) }
	if err := atomicfile.WriteFrom(file, filepath.Dir(file), write); err != nil {
		return fmt.Errorf("tarball %s: %w", file, err)
	}
	return nil
}

// ErrNoDocker says that there is no docker command.
var ErrNoDocker = errors.New("no docker command found")

// LoadDocker loads an image into Docker as ref, through the docker command and in
// the form that Docker 20.10 and later read.
func LoadDocker(ctx context.Context, ref string, img v1.Image) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("docker load: %w", err)
		}
	}()
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		return ErrNoDocker
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := tarball.Write(tag, img, w)
		w.CloseWithError(err)
		written <- err
	}()
	cmd := exec.CommandContext(ctx, docker, "load", "--quiet")
	cmd.Stdin = r
	cmd.WaitDelay = 5 * time.Second
	said := &limit.Buffer{Max: 64 << 10}
	cmd.Stdout, cmd.Stderr = said, said
	err = cmd.Run()
	r.Close() // in case docker did not read it to its end
	switch werr := <-written; {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case werr != nil && !errors.Is(werr, io.ErrClosedPipe):
		return werr // the cause, whatever docker says of it
	case err != nil:
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}
