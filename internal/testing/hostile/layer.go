package hostile

import (
	"archive/tar"
	"bytes"
	"crypto/sha512"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/klauspost/compress/gzip"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// Layers are attacks on how a layer is packed and named.
var Layers = []Attack{
	// In the tar.
	packed("padding behind the tar", func(t testing.TB, data []byte) (tar, blob []byte) {
		data = append(data, make([]byte, 1024)...)
		return data, compressed(t, best, data, nil)
	}),
	packed("bytes behind the tar's end", func(t testing.TB, data []byte) (tar, blob []byte) {
		data = append(data, "evil"...)
		return data, compressed(t, best, data, nil)
	}),
	packed("a second tar behind the first", func(t testing.TB, data []byte) (tar, blob []byte) {
		data = append(data, data...)
		return data, compressed(t, best, data, nil)
	}),
	packed("half of the tar", func(t testing.TB, data []byte) (tar, blob []byte) {
		data = data[:len(data)/2]
		return data, compressed(t, best, data, nil)
	}),
	packed("an empty tar", func(t testing.TB, data []byte) (tar, blob []byte) { return nil, compressed(t, best, nil, nil) }),
	packed("no tar", func(t testing.TB, _ []byte) (tar, blob []byte) {
		data := bytes.Repeat([]byte("evil"), 400)
		return data, compressed(t, best, data, nil)
	}),
	sparse("old GNU"), sparse("PAX 0.0"), sparse("PAX 0.1"), sparse("PAX 1.0"),
	packed("a file that is said to have 8 EB", func(t testing.TB, _ []byte) (_, blob []byte) {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		check(t, tw.WriteHeader(&tar.Header{Name: Derper, Mode: 0o755, Size: 1 << 62}))
		return b.Bytes(), compressed(t, best, b.Bytes(), nil)
	}),
	// In the compression.
	packed("another level of compression", func(t testing.TB, data []byte) (tar, blob []byte) {
		return data, compressed(t, gzip.BestSpeed, data, nil)
	}),
	packed("a file name in the gzip header", func(t testing.TB, data []byte) (tar, blob []byte) {
		return data, compressed(t, best, data, func(h *gzip.Header) { h.Name = "evil" })
	}),
	packed("a comment in the gzip header", func(t testing.TB, data []byte) (tar, blob []byte) {
		return data, compressed(t, best, data, func(h *gzip.Header) { h.Comment = "\x1b[2Jevil" })
	}),
	packed("a time in the gzip header", func(t testing.TB, data []byte) (tar, blob []byte) {
		return data, compressed(t, best, data, func(h *gzip.Header) { h.ModTime = time.Unix(1e9, 0) })
	}),
	blob("bytes behind the gzip stream", func(_ testing.TB, b []byte) []byte { return append(b, "evil"...) }),
	blob("zeros behind the gzip stream", func(_ testing.TB, b []byte) []byte { return append(b, make([]byte, 512)...) }),
	blob("a second gzip member, empty", func(t testing.TB, b []byte) []byte { return append(b, compressed(t, best, nil, nil)...) }),
	packed("a second gzip member with a file", func(t testing.TB, data []byte) (_, blob []byte) {
		evil := Tar(t, []Part{{tar.Header{Name: "evil", Mode: 0o755}, []byte("evil")}})
		return append(data, evil...), append(compressed(t, best, data, nil), compressed(t, best, evil, nil)...)
	}),
	blob("a wrong checksum in the gzip stream", func(_ testing.TB, b []byte) []byte {
		b[len(b)-8] ^= 1
		return b
	}),
	blob("half of the gzip stream", func(_ testing.TB, b []byte) []byte { return b[:len(b)/2] }),
	packed("an uncompressed layer", func(_ testing.TB, data []byte) (tar, blob []byte) { return data, data }),
	packed("a layer of 1 GB of zeros", func(t testing.TB, _ []byte) (_, blob []byte) {
		return nil, bomb(t, 1<<30)
	}),
	// Among the layers.
	{Name: "an added layer", Make: func(t testing.TB, g *Good) *Content {
		evil := Pack(t, "evil", best, Tar(t, []Part{{tar.Header{Name: "entrypoint", Mode: 0o755}, []byte("evil")}}))
		img, err := mutate.AppendLayers(g.Images[0], evil)
		check(t, err)
		return g.With(t, img)
	}},
	layers("a layer left out", func(list []*image.Layer) []*image.Layer { return list[1:] }),
	layers("a layer twice", func(list []*image.Layer) []*image.Layer { return append(list, list[0]) }),
	layers("layers in another order", func(list []*image.Layer) []*image.Layer {
		list[0], list[1] = list[1], list[0]
		return list
	}),
	layers("200 layers", func(list []*image.Layer) []*image.Layer {
		for len(list) < 200 {
			list = append(list, list[0])
		}
		return list
	}),
	layers("no layers", func([]*image.Layer) []*image.Layer { return nil }),
	// In what names it.
	named("a layer that is called larger than it is", func(d *v1.Descriptor) { d.Size += 1 }),
	named("a layer that is called smaller than it is", func(d *v1.Descriptor) { d.Size -= 1 }),
	named("a layer that is said to have no bytes", func(d *v1.Descriptor) { d.Size = 0 }),
	named("a layer that is said to have -1 bytes", func(d *v1.Descriptor) { d.Size = -1 }),
	named("a layer that is said to have 2^32 bytes more", func(d *v1.Descriptor) { d.Size += 1 << 32 }),
	{Name: "a layer named by SHA-512", Make: func(t testing.TB, g *Good) *Content {
		c := g.Content.Clone()
		data := c.Blobs[c.First(t).Layers[2].Digest.String()]
		digest := fmt.Sprintf("sha512:%x", sha512.Sum512(data))
		c.Blobs[digest] = data
		return c.Parsed(t, func(m *v1.Manifest) { m.Layers[2].Digest = hash(digest) })
	}},
	named("a layer named by MD5", func(d *v1.Descriptor) { d.Digest = hash("md5:" + strings.Repeat("0", 32)) }),
	named("a layer whose digest is a path", func(d *v1.Descriptor) { d.Digest = hash("sha256:../../../etc/passwd") }),
	named("a foreign layer", func(d *v1.Descriptor) {
		d.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		d.URLs = []string{"http://192.0.2.1/evil"}
	}),
	named("Docker's foreign layer", func(d *v1.Descriptor) {
		d.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	}),
	named("a layer of Docker's type", func(d *v1.Descriptor) { d.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip" }),
	named("a layer that is called uncompressed", func(d *v1.Descriptor) { d.MediaType = "application/vnd.oci.image.layer.v1.tar" }),
	named("a layer that is called zstd", func(d *v1.Descriptor) { d.MediaType = "application/vnd.oci.image.layer.v1.tar+zstd" }),
	named("a layer of an unknown type", func(d *v1.Descriptor) { d.MediaType = "application/x-evil" }),
	named("another place for a layer", func(d *v1.Descriptor) { d.URLs = []string{"http://192.0.2.1/evil"} }),
	named("an annotation of a layer", func(d *v1.Descriptor) { d.Annotations = map[string]string{"evil": "yes"} }),
	named("other content in a layer's descriptor", func(d *v1.Descriptor) { d.Data = []byte("evil") }),
	named("a platform of a layer", func(d *v1.Descriptor) { d.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"} }),
	{Name: "a layer that another image has in its place", Make: func(t testing.TB, g *Good) *Content {
		other, err := g.Images[1].Manifest()
		check(t, err)
		return g.Content.Clone().Parsed(t, func(m *v1.Manifest) { m.Layers[2] = other.Layers[2] })
	}},
}

// packed is an attack with derper's layer packed in another way: its tar and its blob.
func packed(name string, pack func(t testing.TB, data []byte) (tar, blob []byte)) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, g.Layer(t, "derper", func(l *image.Layer) *image.Layer {
			r, err := l.Uncompressed()
			data, blob := pack(t, read(t, r, err))
			return Blob(l.Name, data, blob)
		}))
	}}
}

// sparse is an attack with a file that is a hole of 4 EiB, in one of the forms of such files.
func sparse(form string) Attack {
	return packed("a sparse file of 4 EiB, "+form, func(t testing.TB, _ []byte) (tar, blob []byte) {
		data := tartest.Sparse(Derper)[form]
		return data, compressed(t, best, data, nil)
	})
}

// blob is an attack with other bytes for the same tar.
func blob(name string, change func(testing.TB, []byte) []byte) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, g.Layer(t, "derper", func(l *image.Layer) *image.Layer {
			r, err := l.Open()
			data := change(t, read(t, r, err))
			changed := &image.Layer{Layer: l.Layer, Open: reader(data)}
			changed.Bytes = int64(len(data))
			return changed
		}))
	}}
}

func layers(name string, change func([]*image.Layer) []*image.Layer) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content { return g.With(t, g.Image(t, change(g.Layers(t)))) }}
}

// named is an attack with another descriptor of derper's layer.
func named(name string, change func(*v1.Descriptor)) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		return g.Content.Clone().Parsed(t, func(m *v1.Manifest) { change(&m.Layers[2]) })
	}}
}

// bomb is a gzip stream of n zeros.
func bomb(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for ; n > 0; n -= len(zeros) {
		_, err := zw.Write(zeros)
		check(t, err)
	}
	check(t, zw.Close())
	return b.Bytes()
}
