package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// emptyConfig is the media type of a config that says nothing, of an artifact whose
// type stands elsewhere. Source: OCI image specification, v1.1, manifest.
const emptyConfig = "application/vnd.oci.empty.v1+json"

// largest is the largest layer of an artifact that Fetch takes, in bytes.
const largest = 64 << 20

// Write pushes an image, or an artifact in an image's form, by digest, and reads it
// back. What is there already is not sent again. No tag moves.
func (r *Repository) Write(ctx context.Context, img v1.Image) (v1.Hash, error) {
	digest, err := img.Digest()
	if err != nil {
		return digest, fmt.Errorf("%s: %w", r, err)
	}
	var c content
	if err := c.addImage(img, digest); err != nil {
		return digest, fmt.Errorf("%s: %w", r, err)
	}
	lacks, err := r.missing(ctx, &c)
	if err == nil {
		err = r.upload(ctx, &c, lacks, nil, func(int64) {})
	}
	return digest, r.client.failed(r, "push "+digest.String(), err)
}

// Attach pushes an artifact with a subject, and sees to it that the subject's list of
// referrers has it: the registry keeps that list where it has the referrers API, and
// this does where not, in the index under the tag sha256-<hex>. Which of them it is
// shows at run time. Attaching the same artifact again changes nothing.
//
// The index under the tag is read, extended and written back. Nothing in the protocol
// keeps two programs from doing so at once, and one of them may undo what the other
// did: attach to one subject from one program at a time.
func (r *Repository) Attach(ctx context.Context, artifact v1.Image) (v1.Hash, error) {
	m, err := artifact.Manifest()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("%s: %w", r, err)
	}
	if m.Subject == nil {
		return v1.Hash{}, fmt.Errorf("%s: attach: the artifact has no subject", r)
	}
	r.attach.Lock()
	defer r.attach.Unlock()
	digest, err := r.Write(ctx, artifact)
	if err != nil {
		return digest, err
	}
	var c content
	if err := c.add(artifact, digest); err != nil {
		return digest, fmt.Errorf("%s: %w", r, err)
	}
	err = r.client.again(ctx, func() error {
		listed, err := r.lists(ctx, m.Subject.Digest, digest)
		if err != nil || listed {
			return err
		}
		// A run that was killed may have left it off the list: putting the manifest
		// again is what brings it on.
		if err := remote.Put(r.Digest(digest), c.manifests[0], r.Options(ctx)...); err != nil {
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
	index, err := remote.Referrers(r.Digest(subject), r.Options(ctx)...)
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	return list.Manifests, nil
}

// Referrers lists what refers to a digest, sorted by digest: attestations,
// signatures. With an artifact type, only those of that type; empty for all.
func (r *Repository) Referrers(ctx context.Context, subject v1.Hash, artifactType string) ([]v1.Descriptor, error) {
	var list []v1.Descriptor
	err := r.client.again(ctx, func() (err error) {
		list, err = r.referrers(ctx, subject)
		return err
	})
	if err != nil {
		return nil, r.client.failed(r, "referrers of "+subject.String(), err)
	}
	for i, d := range list {
		// Some registries give the config's type, which is not it.
		if d.ArtifactType != "" && d.ArtifactType != emptyConfig {
			continue
		}
		a, err := r.manifestOf(ctx, d.Digest)
		if err != nil {
			return nil, r.client.failed(r, "referrer "+d.Digest.String(), err)
		}
		if list[i].ArtifactType = a.ArtifactType; a.ArtifactType == "" {
			list[i].ArtifactType = string(a.Config.MediaType)
		}
	}
	list = slices.DeleteFunc(list, func(d v1.Descriptor) bool { return artifactType != "" && d.ArtifactType != artifactType })
	slices.SortFunc(list, func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return list, nil
}

func (r *Repository) manifestOf(ctx context.Context, h v1.Hash) (*v1.Manifest, error) {
	m, err := r.get(ctx, h)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("the registry does not have it")
	}
	return v1.ParseManifest(strings.NewReader(string(m.raw)))
}

// An Artifact is a manifest and its layers, in memory.
type Artifact struct {
	Manifest *v1.Manifest
	Layers   [][]byte
}

// Fetch reads an artifact by digest, with layers of up to 64 MiB. All of it has been
// checked against its digests.
func (r *Repository) Fetch(ctx context.Context, h v1.Hash) (*Artifact, error) {
	m, err := r.manifestOf(ctx, h)
	if err != nil {
		return nil, r.client.failed(r, "fetch "+h.String(), err)
	}
	a := &Artifact{Manifest: m}
	for _, d := range m.Layers {
		if d.Size > largest {
			return nil, fmt.Errorf("%s: fetch %s: layer %s has %d bytes, more than %d", r, h, d.Digest, d.Size, largest)
		}
		var data []byte
		err := r.client.again(ctx, func() (err error) {
			data, err = r.blob(ctx, d)
			return err
		})
		if err != nil {
			return nil, r.client.failed(r, "fetch "+d.Digest.String(), err)
		}
		a.Layers = append(a.Layers, data)
	}
	return a, nil
}

func (r *Repository) blob(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	l, err := remote.Layer(r.Digest(d.Digest), r.Options(ctx)...)
	if err != nil {
		return nil, err
	}
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, d.Size+1))
	if err == nil && int64(len(data)) != d.Size {
		err = fmt.Errorf("has another size than %d bytes", d.Size)
	}
	return data, err
}
