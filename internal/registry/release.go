package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

// Errors of OpenIndex and Read.
var (
	// ErrNoLayout says that there is no OCI layout in a folder.
	ErrNoLayout = errors.New("is not an OCI layout")
	// ErrIncomplete says that something of the release is missing.
	ErrIncomplete = errors.New("is incomplete")
)

// Content is the multi-arch image of a release, which may be pushed: all of it, or only
// its name.
type Content struct {
	// Version is the image's, as 1.102.3-r1, Variant the name of its variant, if that is
	// known.
	Version, Variant string
	// Digest is the index's.
	Digest v1.Hash
	// Tags are those that it is to have.
	Tags []Tag

	content
}

// ByDigest is the image of a version without what is in it: enough for [Client.Move], and
// for a dry run, which asks where it is.
func ByDigest(version string, digest v1.Hash, tags ...Tag) *Content {
	named := []*manifest{{digest: digest, mediaType: types.OCIImageIndex}}
	return &Content{Version: strings.TrimPrefix(version, "v"), Digest: digest, Tags: tags, content: content{manifests: named}}
}

// OpenIndex opens the index in the OCI layout in the folder dir. The error is ErrNoLayout if
// there is none.
func OpenIndex(ctx context.Context, dir string) (v1.ImageIndex, error) {
	opened, err := image.Open(dir)
	if errors.Is(err, image.ErrNotFound) {
		return nil, fmt.Errorf("layout %s: %w: %w", dir, ErrNoLayout, err)
	}
	var index v1.ImageIndex
	if err == nil {
		index, err = opened.Index(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("layout %s: %w", dir, err)
	}
	return index, nil
}

// Read reads an image from the OCI layout in the folder dir, without tags. It must be what
// the lock records of the variant that it says it is of, whole: nothing is published that is
// not on record, and nobody can rebuild what is not.
//
// The error is ErrNoLayout, [image.ErrForeign] or ErrIncomplete, [lock.ErrNoOutputs], or a
// [lock.Difference]. Blobs are looked at by size; their content is checked while it
// is uploaded.
func Read(dir string, l *lock.Lock) (_ *Content, err error) {
	defer func() {
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNoLayout) {
			err = fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
		if err != nil {
			err = fmt.Errorf("layout %s: %w", dir, err)
		}
	}()
	ctx := context.Background() // files ask for none
	opened, err := image.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoLayout, err)
	}
	index, err := opened.Index(ctx)
	if errors.Is(err, image.ErrNotFound) {
		err = fmt.Errorf("%w: %w", image.ErrForeign, err)
	}
	if err != nil {
		return nil, err
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", digest, err)
	}
	if list.Annotations[image.LabelGo] == "" {
		return nil, image.ErrForeign
	}
	if l, err = image.Claimed(l, list); err != nil {
		return nil, err
	}
	if l.Output() == nil {
		return nil, lock.ErrNoOutputs
	}
	if err := compare(list, digest, l); err != nil {
		return nil, err
	}
	c := &Content{Version: l.Inputs.Version(), Variant: l.Inputs.Variant().Name, Digest: digest, content: content{store: opened}}
	if err := c.add(ctx, v1.Descriptor{Digest: digest}); err != nil {
		return nil, err
	}
	for _, b := range c.blobs {
		size, err := opened.Size(b.digest)
		if err != nil {
			return nil, err
		}
		if size != b.size {
			return nil, fmt.Errorf("blob %s: %w: it has %d bytes, not %d", b.digest, image.ErrCorrupt, size, b.size)
		}
	}
	return c, nil
}

// compare compares an index with what the lock records.
func compare(list *v1.IndexManifest, digest v1.Hash, l *lock.Lock) error {
	if want, got := l.Inputs.Version(), list.Annotations[image.LabelVersion]; got != want {
		return &lock.Difference{What: "version", Locked: want, Built: got}
	}
	built := map[lock.Platform]string{}
	for _, d := range list.Manifests {
		if p := d.Platform; p != nil {
			built[image.PlatformOf(*p)] = d.Digest.String()
		}
	}
	var lacks []string
	for _, p := range l.Inputs.Platforms {
		if built[p] == "" {
			lacks = append(lacks, string(p))
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("%w: it lacks %s", ErrIncomplete, strings.Join(lacks, ", "))
	}
	for _, p := range l.Output().Platforms {
		if got := built[p.Platform]; got != p.Manifest {
			return &lock.Difference{What: string(p.Platform) + ": manifest", Locked: p.Manifest, Built: got}
		}
	}
	if got := digest.String(); got != l.Output().Index {
		return &lock.Difference{What: "index", Locked: l.Output().Index, Built: got}
	}
	return nil
}
