package verify

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/testing/elftest"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// TestHostile guards against an image that ends this program, takes all of its memory or
// time, or is not said to differ because why it does cannot be said.
func TestHostile(t *testing.T) {
	f := newFixture(t, "linux/amd64")
	image1 := func(t *testing.T, img v1.Image) *Subject { return f.verify(t, f.layout(t, f.platforms, f.with(img))) }
	program := func(change func([]byte) []byte) v1.Image {
		return f.edit(t, "derper", hostile.Replace(derperFile, change))
	}
	layer := func(data []byte) v1.Image {
		layers := f.good.Layers(t)
		layers[2] = hostile.Pack(t, "derper", gzip.BestCompression, data)
		return f.good.Image(t, layers)
	}
	t.Run("2^31 functions", func(t *testing.T) {
		s := image1(t, program(func(b []byte) []byte { return elftest.Functions(t, b, 1<<31) }))
		wantFirst(t, s, LevelBinary, derperFile, "no table of functions in the image's program")
		wantOnly(t, s)
	})
	t.Run("more memory than there is", func(t *testing.T) {
		var said bytes.Buffer
		v := f.verifier(t)
		v.Display = progress.Quiet(&said)
		s := f.run(t, v, f.layout(t, f.platforms, f.with(program(func(b []byte) []byte { return elftest.Names(t, b) }))))
		wantFirst(t, s, LevelBinary, derperFile, "how they differ cannot be said: it took more than 512 MiB of memory")
		wantOnly(t, s)
		if !strings.Contains(said.String(), ": FAIL linux/amd64 "+derperFile) {
			t.Errorf("FAIL is not said before the program is taken apart: %q", &said)
		}
	})
	t.Run("more than is compared", func(t *testing.T) {
		s := image1(t, program(func(b []byte) []byte { return append(b, make([]byte, 64<<20)...) }))
		wantFirst(t, s, LevelBinary, derperFile, "more than is compared")
		wantOnly(t, s)
	})
	for form, data := range tartest.Sparse(derperFile) {
		t.Run("a sparse file, "+form, func(t *testing.T) {
			s := image1(t, layer(data))
			wantFirst(t, s, LevelEntry, "layer derper", "cannot be unpacked: tar: ", "is a sparse file")
		})
	}
	t.Run("documents without an end", func(t *testing.T) {
		big := imagetest.Config(t, f.images[0], func(c *image.ConfigFile) {
			c.Config.Labels["big"] = strings.Repeat("a", image.MaxManifest-100<<10)
		})
		platforms, images := f.platforms, []v1.Image{big}
		for len(images) < 10 {
			platforms, images = append(slices.Clone(platforms), "linux/arm64"), append(images, big)
		}
		s := f.verify(t, f.layout(t, platforms, images))
		wantError(t, s, image.ErrForeign, "its documents have more than 8 MiB")
	})
	t.Run("a registry that is never done", func(t *testing.T) {
		patience := maxReading
		defer func() { maxReading = patience }()
		maxReading = time.Nanosecond
		wantError(t, f.verify(t, f.layoutOf(t, f.index)), nil, "it took longer than 1ns to read it")
	})
	t.Run("a layer of 4 EiB by its manifest", func(t *testing.T) {
		img := imagetest.Edit(t, f.images[0], func(_ *image.ConfigFile, m *v1.Manifest) { m.Layers[1].Size = 1 << 62 })
		wantError(t, image1(t, img), image.ErrForeign, "has 4611686018427387904 bytes, and a layer may have 1024 MiB")
	})
	t.Run("an index that cannot be put into words", func(t *testing.T) {
		if note, details, err := indexesDiffer([]byte(`{"manifests":[]}`), []byte(`{}`), nil, nil); err == nil {
			t.Errorf("%q, %q", note, details)
		}
	})
}

// TestSay guards against a report whose verdict is lost because a part of it cannot be
// written.
func TestSay(t *testing.T) {
	s := &Subject{Verdict: Differs, Index: []Check{{Level: "no such level", Result: Fail, Note: "other"}}}
	s.explain()
	if s.Verdict != Differs || len(s.Explanations) != 1 || !strings.HasPrefix(s.Explanations[0].Text, "This cannot be put into words: ") {
		t.Errorf("%+v", s)
	}
}
