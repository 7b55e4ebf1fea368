package attest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// licenceDir is where the image has licence notices, below it a folder for each module.
const licenceDir = "usr/share/licenses/"

// An Inventory is what the layers of an image hold: all that is stated about it, and
// that its config and its lock do not say.
type Inventory struct {
	Files []*File `json:"files"` // sorted by name
}

// A File is a file of an image.
type File struct {
	Name   string `json:"name"` // without a slash in front
	SHA1   string `json:"sha1"` // in hex
	SHA256 string `json:"sha256"`
	// Info is set for a program.
	Info *buildinfo.BuildInfo `json:"info,omitempty"`
	// Licences are those that a notice spells out, as SPDX identifiers.
	Licences []string `json:"licences,omitempty"`
}

// content is an image of an index with what it holds.
type content struct {
	subject Subject
	Inventory
	outputs lock.PlatformOutput
}

// readContent reads an image of an index.
func readContent(ctx context.Context, index v1.ImageIndex, s Subject) (_ *content, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("attest: %s %s: %w", s.Platform, s.Descriptor.Digest, err)
		}
	}()
	img, err := index.Image(s.Descriptor.Digest)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if len(layers) != len(plan.Layers) {
		return nil, fmt.Errorf("has %d layers, not %d", len(layers), len(plan.Layers))
	}
	c := &content{subject: s, outputs: lock.PlatformOutput{Platform: s.Platform, Manifest: s.Descriptor.Digest.String()}}
	name, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	c.outputs.Config = name.String()
	if c.Inventory, c.outputs.Layers, err = take(ctx, layers); err != nil {
		return nil, err
	}
	for i := range c.outputs.Layers {
		l := &c.outputs.Layers[i]
		l.Name = plan.Layers[i]
		if want := config.RootFS.DiffIDs[i].String(); l.DiffID != want {
			return nil, fmt.Errorf("layer %s: is %s, the config has %s", l.Name, l.DiffID, want)
		}
	}
	for _, f := range c.Files {
		if f.Info != nil {
			c.outputs.Binaries = append(c.outputs.Binaries, lock.Binary{Name: path.Base(f.Name), Digest: "sha256:" + f.SHA256})
		}
	}
	slices.SortFunc(c.outputs.Binaries, func(a, b lock.Binary) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

// TakeInventory reads the layers of an image, lowest first.
func TakeInventory(ctx context.Context, layers []v1.Layer) (Inventory, error) {
	inventory, _, err := take(ctx, layers)
	return inventory, err
}

// Taker is the digest of the inventory of a sample: of two programs that would list the
// same layers in another way, each has its own.
func Taker() (string, error) {
	var blob bytes.Buffer
	notice := image.Text(licenceDir+"sample/LICENSE", string(derper.Licence))
	diffID, err := image.WriteLayer(&blob, []image.File{notice, image.Text("etc/sample", "sample")}, time.Unix(1<<30, 0))
	if err != nil {
		return "", err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(blob.Bytes()))
	if err != nil {
		return "", err
	}
	sample := &image.Layer{Name: "sample", Tar: diffID, Blob: digest.String(), BlobSize: int64(blob.Len()), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(blob.Bytes())), nil
	}}
	inventory, err := TakeInventory(context.Background(), []v1.Layer{sample})
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(inventory)
	if err != nil {
		return "", err
	}
	sum, _, err := v1.SHA256(bytes.NewReader(data))
	return sum.String(), err
}

// take takes the inventory, and what a lock records of the layers but their names.
func take(ctx context.Context, layers []v1.Layer) (Inventory, []lock.Layer, error) {
	files := map[string]*File{}
	var records []lock.Layer
	for i, l := range layers {
		record, err := readLayer(ctx, l, files)
		if err != nil {
			return Inventory{}, nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		records = append(records, record)
	}
	var inventory Inventory
	for _, name := range slices.Sorted(maps.Keys(files)) {
		inventory.Files = append(inventory.Files, files[name])
	}
	return inventory, records, nil
}

// readLayer adds the files of a layer. What it reads is checked against the digests.
func readLayer(ctx context.Context, l v1.Layer, files map[string]*File) (lock.Layer, error) {
	digest, err := l.Digest()
	if err != nil {
		return lock.Layer{}, err
	}
	rc, err := l.Uncompressed()
	if err != nil {
		return lock.Layer{}, err
	}
	defer rc.Close()
	sum := sha256.New()
	tee := io.TeeReader(&stopReader{ctx, rc}, sum)
	for tr := tar.NewReader(tee); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return lock.Layer{}, err
		}
		switch name := strings.TrimPrefix(h.Name, "/"); {
		case h.Typeflag == tar.TypeDir:
		case h.Typeflag != tar.TypeReg || strings.HasPrefix(path.Base(name), ".wh."):
			return lock.Layer{}, fmt.Errorf("%s: neither a file nor a folder", name)
		default:
			if files[name], err = readFile(name, tr); err != nil {
				return lock.Layer{}, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	// What comes after the archive's end counts for its digest.
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return lock.Layer{}, err
	}
	return lock.Layer{DiffID: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Digest: digest.String()}, nil
}

// readFile reads a file, and what it says of itself.
func readFile(name string, r io.Reader) (*File, error) {
	sum1, sum256 := sha1.New(), sha256.New()
	br := bufio.NewReader(io.TeeReader(r, io.MultiWriter(sum1, sum256)))
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	program, notice := string(magic) == "\x7fELF", strings.HasPrefix(name, licenceDir)
	var text bytes.Buffer
	to := io.Discard
	if program || notice {
		to = &text
	}
	if _, err := io.Copy(to, br); err != nil {
		return nil, err
	}
	f := &File{Name: name, SHA1: hex.EncodeToString(sum1.Sum(nil)), SHA256: hex.EncodeToString(sum256.Sum(nil))}
	if notice {
		f.Licences = identify(text.Bytes())
	}
	if program {
		if f.Info, err = buildinfo.Read(bytes.NewReader(text.Bytes())); err != nil {
			return nil, fmt.Errorf("says nothing of what it is made of: %w", err)
		}
	}
	return f, nil
}

// stopReader ends a long read when it is no longer wanted.
type stopReader struct {
	ctx context.Context
	r   io.Reader
}

func (s *stopReader) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// check refuses programs that were not compiled from what the lock names.
func (c *content) check(in lock.Inputs) error {
	for _, f := range c.Files {
		if f.Info == nil {
			continue
		}
		if f.Info.GoVersion != in.Go.Version {
			return fmt.Errorf("%s is compiled with %s, the lock has %s", f.Name, f.Info.GoVersion, in.Go.Version)
		}
		if m := f.Info.Main; m.Path == lock.TailscaleModule && (m.Version != in.Tailscale.Version || m.Sum != in.Tailscale.Sum) {
			return fmt.Errorf("%s is compiled from %s %s, the lock has %s %s", f.Name, m.Version, m.Sum, in.Tailscale.Version, in.Tailscale.Sum)
		}
	}
	return nil
}
