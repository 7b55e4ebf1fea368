// Package imagetest changes images, for tests.
package imagetest

import (
	"encoding/json"
	"errors"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/xavieralpha/derper/internal/image"
)

// Edit is an image with another config or another manifest, and otherwise the same. Unlike
// package mutate it keeps what go-containerregistry's types do not have. The manifest names
// the new config by itself.
func Edit(t testing.TB, img v1.Image, change func(*image.ConfigFile, *v1.Manifest)) v1.Image {
	t.Helper()
	config, cerr := img.RawConfigFile()
	manifest, merr := img.Manifest()
	var file image.ConfigFile
	if err := errors.Join(cerr, merr, json.Unmarshal(config, &file)); err != nil {
		t.Fatal(err)
	}
	m := manifest.DeepCopy()
	change(&file, m)
	e := &edited{Image: img, config: marshal(t, file)}
	var err error
	if m.Config.Digest, err = e.ConfigName(); err != nil {
		t.Fatal(err)
	}
	m.Config.Size = int64(len(e.config))
	e.manifest = marshal(t, m)
	return e
}

// Annotate is an image whose manifest has another annotation.
func Annotate(t testing.TB, img v1.Image, name, value string) v1.Image {
	t.Helper()
	return Edit(t, img, func(_ *image.ConfigFile, m *v1.Manifest) { m.Annotations[name] = value })
}

// Config is an image with another config.
func Config(t testing.TB, img v1.Image, change func(*image.ConfigFile)) v1.Image {
	t.Helper()
	return Edit(t, img, func(c *image.ConfigFile, _ *v1.Manifest) { change(c) })
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// edited is an image with other documents: its layers are those of another.
type edited struct {
	v1.Image
	config, manifest []byte
}

func (e *edited) RawConfigFile() ([]byte, error)      { return e.config, nil }
func (e *edited) ConfigFile() (*v1.ConfigFile, error) { return partial.ConfigFile(e) }
func (e *edited) ConfigName() (v1.Hash, error)        { return partial.ConfigName(e) }
func (e *edited) RawManifest() ([]byte, error)        { return e.manifest, nil }
func (e *edited) Manifest() (*v1.Manifest, error)     { return partial.Manifest(e) }
func (e *edited) Digest() (v1.Hash, error)            { return partial.Digest(e) }
func (e *edited) Size() (int64, error)                { return partial.Size(e) }

func (e *edited) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if name, err := e.ConfigName(); err == nil && h == name {
		return partial.ConfigLayer(e)
	}
	return e.Image.LayerByDigest(h)
}
