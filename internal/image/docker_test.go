package image

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// archive fails the test unless the named file is a docker archive of the image.
func archive(t *testing.T, file, ref string, want v1.Image) {
	t.Helper()
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	got, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := want.ConfigName(); err != nil || got != want {
		t.Errorf("config is %s, not %s, %v", got, want, err)
	}
	m, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != 1 || len(m[0].RepoTags) != 1 || m[0].RepoTags[0] != ref {
		t.Errorf("manifest.json: %+v, not of %s", m, ref)
	}
}

// damagedImage is an image whose second layer cannot be read.
func damagedImage(t *testing.T, err error) v1.Image {
	t.Helper()
	layers, _, _ := sampleImages(t, "1")
	layers[1].Open = func() (io.ReadCloser, error) { return nil, err }
	images, _ := assemble(t, inputs(), layers)
	return images[0]
}

func TestTarball(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "image.tar")
	_, images, _ := sampleImages(t, "1")
	if err := WriteTarball(file, "derper:1.102.3", images[0]); err != nil {
		t.Fatal(err)
	}
	archive(t, file, "derper:1.102.3", images[0])
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteTarball(file, "derper:1.102.3", images[0]); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(file); err != nil || string(second) != string(first) {
		t.Errorf("the same image gives another archive, %v", err)
	}
	// One that cannot be written leaves the old one, and nothing beside it.
	damaged := errors.New("damaged")
	if err := WriteTarball(file, "derper:1.102.3", damagedImage(t, damaged)); !errors.Is(err, damaged) || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
	if err := WriteTarball(file, "Not A Name", images[0]); err == nil {
		t.Error("written under a bad name")
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(first) {
		t.Errorf("the old archive is gone, %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := WriteTarball(filepath.Join(dir, "no", "image.tar"), "derper:1", images[0]); err == nil {
		t.Error("written to a folder that is not there")
	}
}

func TestLoadDocker(t *testing.T) {
	dir := t.TempDir()
	docker := func(script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	_, images, _ := sampleImages(t, "1")
	const ref = "derper:1.102.3"
	if err := LoadDocker(t.Context(), ref, images[0]); !errors.Is(err, ErrNoDocker) {
		t.Errorf("without docker: %v, not ErrNoDocker", err)
	}

	got := filepath.Join(dir, "got.tar")
	docker(`[ "$*" = "load --quiet" ] || exit 9; /bin/cat >` + got)
	if err := LoadDocker(t.Context(), ref, images[0]); err != nil {
		t.Fatal(err)
	}
	archive(t, got, ref, images[0])

	// Docker may fail before it has read anything; what it says is passed on.
	docker(`echo "Cannot connect to the Docker daemon" >&2; exit 1`)
	if err := LoadDocker(t.Context(), ref, images[0]); err == nil || !strings.Contains(err.Error(), "Cannot connect to the Docker daemon") {
		t.Errorf("%v", err)
	}

	// When we fail, that is what is said, and not docker's view of it.
	damaged := errors.New("damaged")
	for name, script := range map[string]string{
		"docker minds":  `/bin/cat >/dev/null; echo "unexpected EOF" >&2; exit 1`,
		"docker is mum": `/bin/cat >/dev/null`,
	} {
		docker(script)
		if err := LoadDocker(t.Context(), ref, damagedImage(t, damaged)); !errors.Is(err, damaged) {
			t.Errorf("%s: %v, not what was wrong", name, err)
		}
	}
}
