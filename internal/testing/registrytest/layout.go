package registrytest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
)

// A Release is a small image as a build leaves it, for each variant: a layout and the
// lock that records it.
type Release struct {
	// Dir is the folder of the default variant's layout, LockFile the lock's file.
	Dir, LockFile string
	Lock          *lock.Lock
}

// NewRelease makes a release of a version, as v1.102.3 or v1.102.3-r1, with layers of about so many
// bytes, for the given platforms or for two. Releases of different versions share
// their lowest layer.
func NewRelease(t testing.TB, version string, bytes int, platforms ...lock.Platform) *Release {
	t.Helper()
	return newRelease(t, inputs(version, platforms), bytes)
}

// NewVariants makes a release that has other variants than the default one, too. Their
// layouts are beside its own, and have all of its layers.
func NewVariants(t testing.TB, version string, bytes int, others ...lock.Variant) *Release {
	t.Helper()
	in := inputs(version, nil)
	in.Variants = append(in.Variants, others...)
	return newRelease(t, in, bytes)
}

func newRelease(t testing.TB, in lock.Inputs, bytes int) *Release {
	t.Helper()
	dir := t.TempDir()
	r := &Release{Dir: filepath.Join(dir, "dist"), LockFile: filepath.Join(dir, lock.File)}
	r.Lock = &lock.Lock{Schema: lock.SchemaVersion, Inputs: in, Outputs: map[string]*lock.Output{}}
	for _, v := range in.Variants {
		r.Lock.Outputs[v.Name] = r.write(t, v, bytes)
	}
	if err := r.Lock.Write(r.LockFile); err != nil {
		t.Fatal(err)
	}
	return r
}

// Layout is the folder of a variant's layout.
func (r *Release) Layout(v lock.Variant) string { return r.Dir + v.Suffix }

// write writes the layout of a variant.
func (r *Release) write(t testing.TB, v lock.Variant, bytes int) *lock.Output {
	t.Helper()
	in, err := r.Lock.Inputs.Of(v.Name)
	if err != nil {
		t.Fatal(err)
	}
	out := &lock.Output{}
	var images, attestations []v1.Image
	for _, p := range in.Platforms {
		layers := []*image.Layer{
			layer(t, "base", "", bytes),
			layer(t, "derper", in.Version()+string(p), bytes),
		}
		if v.Files != nil {
			layers = append(layers, layer(t, "files", v.Name, 100))
		}
		img, err := image.New(in, p, layers)
		if err != nil {
			t.Fatal(err)
		}
		attestation := attesttest.Attestation(t, in, p, img)
		images, attestations = append(images, img), append(attestations, attestation)
		out.Platforms = append(out.Platforms, output(t, p, img, attestation, layers))
	}
	index, err := image.Index(in, in.Platforms, images, attestations...)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	out.Index = digest.String()
	if _, err := image.WriteLayout(r.Layout(v), in.Tailscale.Short()+v.Suffix, index, false); err != nil {
		t.Fatal(err)
	}
	return out
}

func inputs(version string, platforms []lock.Platform) lock.Inputs {
	if len(platforms) == 0 {
		platforms = []lock.Platform{"linux/amd64", "linux/arm64"}
	}
	sum := sha256.Sum256([]byte(version))
	h1 := "h1:" + base64.StdEncoding.EncodeToString(sum[:])
	v, err := lock.ParseImageVersion(version)
	if err != nil {
		panic(err)
	}
	in, _ := lock.Defaults().Of(lock.Default)
	in.Revision = v.Revision
	in.Tailscale = lock.Tailscale{Version: v.Tailscale, Commit: hex.EncodeToString(sum[:20]), Time: time.Unix(1_700_000_000, 0).UTC(), Sum: h1}
	in.Go = lock.Go{Version: "go1.26.0", Sums: map[string]string{}}
	in.Roots = lock.Module{Version: "v0.0.0-20261030153154-30a33513ff6d", Sum: h1}
	in.Platforms = platforms
	for _, host := range lock.Hosts {
		in.Go.Sums[host] = h1
	}
	return in
}

// layer makes a layer that does not compress; the same seed gives the same layer.
func layer(t testing.TB, name, seed string, size int) *image.Layer {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8(sha256.Sum256([]byte(name + seed))).Read(data)
	var b bytes.Buffer
	diffID, err := image.WriteLayer(&b, []image.File{image.Text("usr/"+name, string(data))}, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return &image.Layer{
		Layer: lock.Layer{Name: name, DiffID: diffID, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b.Bytes())), Bytes: int64(b.Len())},
		Open:  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
	}
}

func output(t testing.TB, p lock.Platform, img, attestation v1.Image, layers []*image.Layer) lock.PlatformOutput {
	t.Helper()
	out := lock.PlatformOutput{Platform: p, Binaries: []lock.Binary{}}
	for _, l := range layers {
		out.Layers = append(out.Layers, l.Layer)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	attested, err := attestation.Digest()
	if err != nil {
		t.Fatal(err)
	}
	out.Config, out.Manifest, out.Attestation = config.String(), manifest.String(), attested.String()
	return out
}
