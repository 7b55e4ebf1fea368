package size

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/elftest"
)

func TestMain(m *testing.M) {
	gobinary.Init()
	os.Exit(m.Run())
}

// layout is one with an image of a layer of text, and one with these programs.
func layout(t *testing.T, programs map[string][]byte) string {
	t.Helper()
	in, _ := lock.Defaults().Of(lock.Default)
	in.Tailscale = lock.Tailscale{Version: "v1.102.3", Commit: strings.Repeat("0", 40), Time: time.Unix(1e9, 0).UTC()}
	in.Platforms = []lock.Platform{"linux/amd64"}
	layer := func(name string, files ...image.File) *image.Layer {
		var b bytes.Buffer
		diffID, err := image.WriteLayer(&b, files, in.Tailscale.Time)
		if err != nil {
			t.Fatal(err)
		}
		return &image.Layer{
			Layer: lock.Layer{Name: name, DiffID: diffID, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b.Bytes())), Bytes: int64(b.Len())},
			Open:  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		}
	}
	var files []image.File
	for name, content := range programs {
		f := image.Text("usr/local/bin/"+name, string(content))
		f.Mode = 0o755
		files = append(files, f)
	}
	img, err := image.New(in, in.Platforms[0], []*image.Layer{layer("base", image.Text("etc/a", "0123456789")), layer("derper", files...)})
	if err != nil {
		t.Fatal(err)
	}
	index, err := image.Index(in, in.Platforms, []v1.Image{img})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "dist")
	if _, err := image.WriteLayout(dir, "1.102.3", index, false); err != nil {
		t.Fatal(err)
	}
	return dir
}

var small = elftest.Small(elftest.SmallTable, elftest.SmallInfo)

func read(t *testing.T, source string) *Image {
	t.Helper()
	i, err := Read(t.Context(), source, nil, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestRead(t *testing.T) {
	i := read(t, layout(t, map[string][]byte{"derper": small}))
	if len(i.Layers) != 2 || i.Layer("base").OnDisk != 10 || i.Layer("derper").OnDisk != int64(len(small)) || i.Layer("none") != (Layer{}) {
		t.Errorf("layers are %+v", i.Layers)
	}
	if i.OnDisk != int64(len(small))+10 || i.Bytes != i.Layers[0].Bytes+i.Layers[1].Bytes || i.Layers[0].Bytes == 0 {
		t.Errorf("%d bytes, %d on disk", i.Bytes, i.OnDisk)
	}
	alone := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(alone, small, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]*Image{"in an image": i, "alone": read(t, alone)} {
		r := New(i, nil, Options{})
		if len(r.Programs) != 1 || r.Programs[0].Name != "derper" || r.Programs[0].Bytes != int64(len(small)) {
			t.Errorf("%s: %+v", name, r.Programs)
		}
	}
}

// TestReadRefuses guards against a program that cannot be weighed and is left out, and
// against an error that does not say which.
func TestReadRefuses(t *testing.T) {
	table := bytes.Clone(elftest.SmallTable)
	copy(table[8:], []byte{0, 0, 0, 0x80})
	for name, test := range map[string]struct {
		program []byte
		want    string
	}{
		"no program of Go": {append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...), "not a program that Go compiled"},
		"2^31 functions":   {elftest.Small(table, elftest.SmallInfo), "says that it has 2147483648 functions"},
	} {
		_, err := Read(t.Context(), layout(t, map[string][]byte{"derper": test.program}), nil, "linux/amd64")
		if err == nil || !strings.Contains(err.Error(), "layer derper: usr/local/bin/derper: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNew(t *testing.T) {
	weight := func(name string, parts ...gobinary.Component) *gobinary.Weight {
		w := &gobinary.Weight{Name: name, Parts: parts}
		for _, p := range parts {
			w.Bytes += p.Bytes
		}
		return w
	}
	part := func(name, module string, n int64) gobinary.Component {
		return gobinary.Component{Name: name, Module: module, Bytes: n}
	}
	before := &Image{Layers: make([]Layer, 1), programs: []*gobinary.Weight{
		weight("derper", part("a/x", "a", 10), part("a/y", "a", 20), part("b", "b", 5), part(".rodata", "", 7)), weight("gone", part("c", "c", 3))}}
	now := &Image{Layers: make([]Layer, 1), programs: []*gobinary.Weight{
		weight("derper", part("a/x", "a", 14), part("a/y", "a", 18), part("d", "d", 9), part(".rodata", "", 7)), weight("new", part("c", "c", 4))}}
	show := func(r *Report) string {
		var b strings.Builder
		for _, p := range r.Programs {
			fmt.Fprintf(&b, "%s %d→%d:", p.Name, p.Before, p.Bytes)
			for _, c := range p.Parts {
				fmt.Fprintf(&b, " %s %d→%d", c.Name, c.Before, c.Bytes)
			}
			fmt.Fprintf(&b, " +%d; ", p.More)
		}
		return b.String()
	}
	for _, test := range []struct {
		against *Image
		options Options
		want    string
	}{
		{before, Options{}, "derper 42→48: d 0→9 a/x 10→14 a/y 20→18 b 5→0 +0; new 0→4: c 0→4 +0; gone 3→0: c 3→0 +0; "},
		{before, Options{Modules: true, Top: 2}, "derper 42→48: d 0→9 a 30→32 +1; new 0→4: c 0→4 +0; gone 3→0: c 3→0 +0; "},
		{nil, Options{Top: 1}, "derper 0→48: a/y 0→18 +3; new 0→4: c 0→4 +0; "},
	} {
		if got := show(New(now, test.against, test.options)); got != test.want {
			t.Errorf("%+v:\n%s\nnot\n%s", test.options, got, test.want)
		}
	}
	// One program is beside the one of its name.
	alone := &Image{programs: now.programs[:1]}
	if r := New(alone, before, Options{}); len(r.Programs) != 1 || r.Programs[0].Before != 42 {
		t.Errorf("a program alone: %s", show(r))
	}
}
