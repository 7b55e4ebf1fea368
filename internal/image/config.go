package image

import (
	"encoding/json"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/lock"
)

// A ConfigFile is the config of an image, with all that Docker knows of a health check.
// The type of go-containerregistry lacks a field of it: whoever reads an image's config
// into that type and writes it again loses the field, so this program never does.
type ConfigFile struct {
	v1.ConfigFile
	Config Config `json:"config"`
}

// Config is how a container of an image starts.
type Config struct {
	v1.Config
	Healthcheck *Healthcheck `json:"Healthcheck,omitempty"`
}

// Healthcheck is how a container is checked, with its keys in Docker's order. Durations
// are in nanoseconds.
// Source: HealthcheckConfig in
// https://github.com/moby/docker-image-spec/blob/v1.3.1/specs-go/v1/image.go.
type Healthcheck struct {
	Test        []string      `json:",omitempty"`
	Interval    time.Duration `json:",omitempty"`
	Timeout     time.Duration `json:",omitempty"`
	StartPeriod time.Duration `json:",omitempty"` // failures in it do not count
	// StartInterval is the interval in the start period. Docker has it since version 25;
	// older ones do not read it.
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// config is how a container of the image starts. Working folder and ports are those of the
// image that this one replaces, so that volumes and settings made for it keep working. The
// environment has no defaults: they are the program's, since a container that is made anew
// from another image may keep the environment of the old one.
func config(in lock.Inputs) Config {
	return Config{
		Config: v1.Config{
			Env:        []string{"PATH=/usr/local/bin"},
			Entrypoint: []string{"/entrypoint"},
			User:       in.Variant().User,
			WorkingDir: "/root",
			ExposedPorts: map[string]struct{}{
				"80/tcp":   {},
				"443/tcp":  {},
				"3478/udp": {},
			},
			Labels: Annotations(in),
		},
		Healthcheck: &Healthcheck{
			Test:          []string{"CMD", "/entrypoint", "healthcheck"},
			Interval:      30 * time.Second,
			Timeout:       5 * time.Second,
			StartPeriod:   30 * time.Second, // in which a tailscaled joins its tailnet
			StartInterval: time.Second,
			Retries:       3,
		},
	}
}

// LayerHistory is what precedes a layer's name in the history of an image.
const LayerHistory = "derper build: layer "

// New makes an image of layers, lowest first.
func New(in lock.Inputs, platform lock.Platform, layers []*Layer) (v1.Image, error) {
	created := v1.Time{Time: in.Tailscale.Time}
	file := ConfigFile{
		ConfigFile: v1.ConfigFile{
			OS: platform.OS(), Architecture: platform.Arch(), Variant: platform.Variant(),
			Created: created,
			RootFS:  v1.RootFS{Type: "layers"},
		},
		Config: config(in),
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: Annotations(in)}
	for _, l := range layers {
		diffID, err := l.DiffID()
		if err != nil {
			return nil, fmt.Errorf("image %s: layer %s: %w", platform, l.Name, err)
		}
		d, err := partial.Descriptor(l)
		if err != nil {
			return nil, fmt.Errorf("image %s: layer %s: %w", platform, l.Name, err)
		}
		manifest.Layers = append(manifest.Layers, *d)
		file.RootFS.DiffIDs = append(file.RootFS.DiffIDs, diffID)
		file.History = append(file.History, v1.History{Created: created, CreatedBy: LayerHistory + l.Name})
	}
	i := &made{layers: layers}
	var err error
	if i.config, err = json.Marshal(file); err != nil {
		return nil, fmt.Errorf("image %s: %w", platform, err)
	}
	d := &manifest.Config
	d.MediaType, d.Size = types.OCIConfigJSON, int64(len(i.config))
	if d.Digest, err = i.ConfigName(); err != nil {
		return nil, fmt.Errorf("image %s: %w", platform, err)
	}
	if i.manifest, err = json.Marshal(manifest); err != nil {
		return nil, fmt.Errorf("image %s: %w", platform, err)
	}
	return i, nil
}

// made is an image whose documents have been written: they are what every method tells of.
type made struct {
	config, manifest []byte
	layers           []*Layer
}

func (i *made) MediaType() (types.MediaType, error)       { return types.OCIManifestSchema1, nil }
func (i *made) RawConfigFile() ([]byte, error)            { return i.config, nil }
func (i *made) ConfigFile() (*v1.ConfigFile, error)       { return partial.ConfigFile(i) }
func (i *made) ConfigName() (v1.Hash, error)              { return partial.ConfigName(i) }
func (i *made) RawManifest() ([]byte, error)              { return i.manifest, nil }
func (i *made) Manifest() (*v1.Manifest, error)           { return partial.Manifest(i) }
func (i *made) Digest() (v1.Hash, error)                  { return partial.Digest(i) }
func (i *made) Size() (int64, error)                      { return partial.Size(i) }
func (i *made) LayerByDiffID(h v1.Hash) (v1.Layer, error) { return i.layer(h, (*Layer).DiffID) }

func (i *made) Layers() (list []v1.Layer, err error) {
	for _, l := range i.layers {
		list = append(list, l)
	}
	return list, nil
}

// LayerByDigest opens the config, too, as a v1.Image does.
func (i *made) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if config, err := i.ConfigName(); err != nil {
		return nil, err
	} else if h == config {
		return partial.ConfigLayer(i)
	}
	return i.layer(h, (*Layer).Digest)
}

func (i *made) layer(want v1.Hash, of func(*Layer) (v1.Hash, error)) (v1.Layer, error) {
	for _, l := range i.layers {
		if h, err := of(l); err != nil || h == want {
			return l, err
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", want)
}
