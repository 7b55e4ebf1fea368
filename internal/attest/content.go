package attest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/xavieralpha/derper/internal/ctxio"
	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// licenceDir is where the image has licence notices, below it a folder for each module.
const licenceDir = "usr/share/licenses/"

// content is what an image holds.
type content struct {
	subject Subject
	files   []*file // sorted by name
	outputs lock.PlatformOutput
}

// file is a file of an image.
type file struct {
	name         string // without a slash in front
	sha1, sha256 string // in hex
	// info is set for a program.
	info *buildinfo.BuildInfo
	// licences are those that a notice spells out, as SPDX identifiers.
	licences []string
}

// readContent reads an image that the inputs should have given.
func readContent(ctx context.Context, in lock.Inputs, img v1.Image, platform lock.Platform) (*content, error) {
	d, derr := partial.Descriptor(img)
	config, cerr := img.ConfigFile()
	name, nerr := img.ConfigName()
	layers, lerr := img.Layers()
	if err := cmp.Or(derr, cerr, nerr, lerr); err != nil {
		return nil, err
	}
	if len(config.RootFS.DiffIDs) != len(layers) {
		return nil, fmt.Errorf("has %d layers, its config names %d", len(layers), len(config.RootFS.DiffIDs))
	}
	c := &content{
		subject: Subject{platform, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}},
		outputs: lock.PlatformOutput{Platform: platform, Config: name.String(), Manifest: d.Digest.String()},
	}
	files, names, links := map[string]*file{}, plan.Layers(in), map[string]string{}
	for _, e := range in.Variant().Files {
		links[e.Path] = e.Link
	}
	for i, l := range layers {
		name := strconv.Itoa(i + 1)
		if i < len(names) {
			name = names[i]
		}
		record, err := readLayer(ctx, l, files, links)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		if want := config.RootFS.DiffIDs[i].String(); record.DiffID != want {
			return nil, fmt.Errorf("layer %s: is %s, the config has %s", name, record.DiffID, want)
		}
		record.Name = name
		c.outputs.Layers = append(c.outputs.Layers, record)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		c.files = append(c.files, f)
		if f.info != nil {
			c.outputs.Binaries = append(c.outputs.Binaries, lock.Binary{Name: path.Base(name), Digest: "sha256:" + f.sha256})
		}
	}
	slices.SortFunc(c.outputs.Binaries, func(a, b lock.Binary) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

// readLayer adds the files of a layer, which may have these symbolic links besides. What it
// reads is checked against the digests.
func readLayer(ctx context.Context, l v1.Layer, files map[string]*file, links map[string]string) (record lock.Layer, err error) {
	digest, err := l.Digest()
	if err != nil {
		return record, err
	}
	rc, err := l.Uncompressed()
	if err != nil {
		return record, err
	}
	defer rc.Close()
	sum := sha256.New()
	tee := io.TeeReader(limit.Reader(ctxio.Reader(ctx, rc), maxTar), sum)
	tr := limit.NewTar(tee)
	h, err := tr.Next()
	for ; err == nil; h, err = tr.Next() {
		switch name := strings.TrimPrefix(h.Name, "/"); {
		case h.Typeflag == tar.TypeDir, h.Typeflag == tar.TypeSymlink && h.Linkname != "" && h.Linkname == links[name] && files[name] == nil:
		case h.Typeflag != tar.TypeReg || strings.HasPrefix(path.Base(name), ".wh."):
			return record, fmt.Errorf("%s: neither a file nor a folder", name)
		default:
			if files[name], err = readFile(name, h.Size, tr); err != nil {
				return record, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		return record, err
	}
	// What comes after the archive's end counts for its digest.
	_, err = io.Copy(io.Discard, tee)
	return lock.Layer{DiffID: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Digest: digest.String()}, err
}

const (
	largest = 128 << 20 // bytes, of a program or a notice that is read
	maxTar  = 1 << 30   // bytes, of a layer
)

// readFile reads a file of some bytes, and what it says of itself.
func readFile(name string, size int64, r io.Reader) (*file, error) {
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
		if size > largest {
			return nil, fmt.Errorf("has %d bytes, more than %d", size, largest)
		}
		to = &text
		// At once, not in steps that double. More than any program has is not believed.
		text.Grow(int(min(size, 64<<20)) + bytes.MinRead)
	}
	if _, err := io.Copy(to, br); err != nil {
		return nil, err
	}
	f := &file{name: name, sha1: hex.EncodeToString(sum1.Sum(nil)), sha256: hex.EncodeToString(sum256.Sum(nil))}
	if notice {
		f.licences = identify(text.Bytes())
	}
	if program {
		if f.info, err = buildinfo.Read(bytes.NewReader(text.Bytes())); err != nil {
			return nil, fmt.Errorf("says nothing of what it is made of: %w", err)
		}
	}
	return f, nil
}
