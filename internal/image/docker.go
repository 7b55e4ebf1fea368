package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// WriteTarball writes an image as a docker archive to the named file, whole or not
// at all.
func WriteTarball(file, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("tarball: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp")
	if err != nil {
		return fmt.Errorf("tarball: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails once renamed
	err = tarball.Write(tag, img, tmp)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("tarball %s: %w", file, err)
	}
	return nil
}

// ErrNoDocker says that there is no docker command.
var ErrNoDocker = errors.New("no docker command found")

// LoadDocker loads an image into Docker as ref, through the docker command and in
// the form that Docker 20.10 and later read.
func LoadDocker(ctx context.Context, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("docker load: %w", err)
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		return fmt.Errorf("docker load: %w", ErrNoDocker)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := tarball.Write(tag, img, w)
		w.CloseWithError(err)
		written <- err
	}()
	cmd := exec.CommandContext(ctx, docker, "load", "--quiet")
	cmd.Stdin = r
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	r.Close() // in case docker did not read it to its end
	if werr := <-written; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		return fmt.Errorf("docker load: %w", werr) // the cause, whatever docker says of it
	}
	if err != nil {
		return fmt.Errorf("docker load: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
