package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/limit"
)

// Limits of what refers to a digest, all of which is read into memory. A signed statement has
// some 300 kB.
const (
	largest = 32 << 20 // bytes, of all that is read of the artifacts
	most    = 256      // artifacts that may refer to a digest
)

// Attach pushes an artifact with a subject, by digest, reads it back, and sees to it that
// the subject's list of referrers has it: the registry keeps that list where it has the
// referrers API, and this does where not, in the index under the tag sha256-<hex>. Which
// of them it is shows at run time. Attaching the same artifact again changes nothing, and
// no other tag moves.
//
// The index under the tag is read, extended and written back. Nothing in the protocol
// keeps two from doing so at once, and one of them may undo what the other
// did: attach to one subject from one place at a time.
func (r *Repository) Attach(ctx context.Context, artifact v1.Image) (v1.Hash, error) {
	t := &target{Repository: r, all: &content{store: single{artifact}}}
	m, err := artifact.Manifest()
	if err == nil && m.Subject == nil {
		err = errors.New("the artifact has no subject")
	}
	var digest v1.Hash
	if err == nil {
		digest, err = artifact.Digest()
	}
	if err == nil {
		err = t.all.add(ctx, v1.Descriptor{Digest: digest})
	}
	if err != nil {
		return v1.Hash{}, fmt.Errorf("%s: attach: %w", r, err)
	}
	if err = t.survey(ctx); err == nil {
		err = t.upload(ctx, func(int64) {})
	}
	if err != nil {
		return digest, r.client.failed(r, "push "+digest.String(), err)
	}
	err = r.client.again(ctx, func() error {
		listed, err := r.lists(ctx, m.Subject.Digest, digest)
		if err != nil || listed {
			return err
		}
		// A run that was killed may have left it off the list: putting the manifest
		// again is what brings it on.
		if err := remote.Put(r.digest(digest), t.all.manifests[0], r.options(ctx)...); err != nil {
			return err
		}
		if listed, err = r.lists(ctx, m.Subject.Digest, digest); err == nil && !listed {
			err = errors.New("the registry does not list it")
		}
		return err
	})
	return digest, r.client.failed(r, fmt.Sprintf("attach %s to %s", digest, m.Subject.Digest), err)
}

func (r *Repository) lists(ctx context.Context, subject, digest v1.Hash) (bool, error) {
	list, err := r.referrers(ctx, subject)
	return slices.ContainsFunc(list, func(d v1.Descriptor) bool { return d.Digest == digest }), err
}

func (r *Repository) referrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error) {
	index, err := remote.Referrers(r.digest(subject), r.options(ctx)...)
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	return list.Manifests, nil
}

// An Artifact is a manifest and its layers, in memory.
type Artifact struct {
	Digest   v1.Hash
	Manifest *v1.Manifest
	Layers   [][]byte
}

// Artifacts reads what refers to a digest, attestations and signatures, as far as it is
// wanted, sorted by digest. Those that are have up to 32 MiB together. All of it has been
// checked against its digests. The list of referrers is not asked for types: some registries
// give the config's, which is not it.
func (r *Repository) Artifacts(ctx context.Context, subject v1.Hash, wanted func(*v1.Manifest) bool) ([]*Artifact, error) {
	var list []v1.Descriptor
	err := r.client.again(ctx, func() (err error) {
		list, err = r.referrers(ctx, subject)
		return err
	})
	if err != nil {
		return nil, r.client.failed(r, "referrers of "+subject.String(), err)
	}
	slices.SortFunc(list, func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	list = slices.CompactFunc(list, func(a, b v1.Descriptor) bool { return a.Digest == b.Digest })
	if len(list) > most {
		return nil, r.client.failed(r, "referrers of "+subject.String(), fmt.Errorf("there are %d, more than %d", len(list), most))
	}
	var artifacts []*Artifact
	left := int64(largest)
	for _, d := range list {
		raw, err := r.Manifest(ctx, d.Digest)
		if err != nil {
			return nil, err
		}
		a := &Artifact{Digest: d.Digest}
		if a.Manifest, err = v1.ParseManifest(bytes.NewReader(raw)); err != nil {
			return nil, r.client.failed(r, "referrer "+d.Digest.String(), err)
		}
		if !wanted(a.Manifest) {
			continue
		}
		left -= int64(len(raw))
		for _, l := range a.Manifest.Layers {
			data, err := r.layer(ctx, l, left)
			left -= int64(len(data))
			if err != nil {
				return nil, r.client.failed(r, "layer "+l.Digest.String()+" of "+d.Digest.String(), err)
			}
			a.Layers = append(a.Layers, data)
		}
		artifacts = append(artifacts, a)
	}
	return artifacts, nil
}

// layer reads a layer whole, if it has no more bytes than are left.
func (r *Repository) layer(ctx context.Context, d v1.Descriptor, left int64) (data []byte, err error) {
	if d.Size < 0 || d.Size > left {
		return nil, fmt.Errorf("%w: it has %d bytes, and what refers to an image may have %d MiB in all", limit.Err, d.Size, largest>>20)
	}
	err = r.client.again(ctx, func() error {
		rc, err := r.blob(ctx, d.Digest)
		if err != nil {
			return err
		}
		defer rc.Close()
		if data, err = limit.ReadAll(rc, d.Size); err == nil && int64(len(data)) != d.Size {
			err = fmt.Errorf("has another size than %d bytes", d.Size)
		}
		return err
	})
	return data, err
}
