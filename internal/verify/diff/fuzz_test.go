package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"unicode"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/testing/elftest"
	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// FuzzReadLayer guards against blobs that are made to harm: the digest is that of all bytes,
// and what is read of a tar without damage is not more than it has. The blob is as it is
// given, or, by its first argument, a tar of which the checksums are put right, as it is or
// packed with gzip or zstd.
func FuzzReadLayer(f *testing.F) {
	const raw, plain, gzipped, zstandard = 0, 1, 2, 3
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range []tar.Header{
		{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/derper", Size: 20, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
		{Name: "usr/.wh.link", Typeflag: tar.TypeSymlink, Linkname: "derper"},
		{Name: "usr/" + strings.Repeat("n", 200), Typeflag: tar.TypeLink, Linkname: "usr/derper"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00")
		}
	}
	w.Close()
	for packing := range 4 {
		f.Add(byte(packing), layer.Bytes())
	}
	f.Add(byte(raw), []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	f.Add(byte(raw), []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0})
	f.Add(byte(raw), make([]byte, 1024))
	zw, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		f.Fatal(err)
	}
	sw, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, packing byte, content []byte) {
		content = bytes.Clone(content)
		packing %= 4
		if packing != raw {
			tartest.Mend(content)
		}
		blob := content
		switch packing {
		case gzipped:
			var b bytes.Buffer
			zw.Reset(&b)
			zw.Write(content)
			zw.Close()
			blob = b.Bytes()
		case zstandard:
			blob = sw.EncodeAll(content, nil)
		}
		l, err := ReadLayer(context.Background(), bytes.NewReader(blob), new(Budget))
		if err != nil {
			t.Fatal(err)
		}
		if l.Digest != digest(blob) || l.Size != int64(len(blob)) {
			t.Errorf("digest is %s of %d bytes", l.Digest, l.Size)
		}
		if l.Damage != "" {
			if l.DiffID != "" {
				t.Error("both damaged and read")
			}
			if strings.ContainsFunc(l.Damage, unicode.IsControl) {
				t.Errorf("steers a terminal: %q", l.Damage)
			}
			return
		}
		if packing != raw && l.DiffID != digest(content) {
			t.Errorf("the tar has digest %s", l.DiffID)
		}
		var files int64
		for _, e := range l.Entries {
			if e.Typeflag == tar.TypeReg {
				files += e.Size
			}
			if (e.Digest != "") != (e.Typeflag == tar.TypeReg) {
				t.Errorf("%q of type %c has digest %q", e.Name, e.Typeflag, e.Digest)
			}
		}
		if packing != raw && (files > int64(len(content)) || len(l.Entries) > len(content)/512) {
			t.Errorf("%d files of %d bytes in a tar of %d bytes", len(l.Entries), files, len(content))
		}
	})
}

// FuzzPrograms guards against programs that are made to harm whoever takes them apart, and
// against a difference of which nothing is said, or in words that steer a terminal. The
// program is as it is given or, if it is empty, one with that table of functions and that
// build information.
func FuzzPrograms(f *testing.F) {
	want := elftest.Small(elftest.SmallTable, elftest.SmallInfo)
	f.Add(want, []byte{}, []byte{})
	f.Add([]byte{}, elftest.SmallTable, bytes.Replace(elftest.SmallInfo, []byte("-s -w"), []byte("-w"), 1))
	f.Add([]byte{}, bytes.Replace(elftest.SmallTable, []byte("runtime"), []byte("\x1b[2Jxxx"), 1), elftest.SmallInfo)
	// 2^31 functions: in the order of the file, and in another than the file's.
	huge := bytes.Clone(elftest.SmallTable)
	copy(huge[8:], []byte{0, 0, 0, 0x80})
	f.Add([]byte{}, huge, elftest.SmallInfo)
	huge = bytes.Clone(elftest.SmallTable)
	copy(huge, []byte{0xff, 0xff, 0xff, 0xf1, 0, 0, 1, 8, 0, 0, 0, 0, 0x80, 0, 0, 0})
	f.Add([]byte{}, huge, elftest.SmallInfo)
	f.Fuzz(func(t *testing.T, got, table, info []byte) {
		if len(got) == 0 {
			got = elftest.Small(table, info)
		}
		if bytes.Equal(got, want) {
			return
		}
		summary, details, err := compare(want, got)
		if err != nil {
			t.Fatal(err)
		}
		if summary == "" {
			t.Errorf("does not say how they differ: %q", details)
		}
		if len(details) > 100 {
			t.Errorf("%d details", len(details))
		}
		for _, line := range append(details, summary) {
			if strings.ContainsFunc(line, unicode.IsControl) {
				t.Errorf("steers a terminal: %q", line)
			}
		}
	})
}

// TestSmallProgram guards that what FuzzPrograms begins with is a program for the parsers,
// or it would fuzz their first line only.
func TestSmallProgram(t *testing.T) {
	small := elftest.Small(elftest.SmallTable, elftest.SmallInfo)
	p, err := gobinary.Parse(small)
	if err != nil {
		t.Fatal(err)
	}
	functions, err := gobinary.Functions(p.Sections())
	if err != nil || len(functions) != 2 || functions["main.main"].Size != 16 || functions["runtime.main"].Size != 16 {
		t.Errorf("functions are %v, %v", functions, err)
	}
	if p.Info.Path != "tailscale.com/cmd/derper" || p.Info.GoVersion != "go1.26.8" || len(p.Info.Settings) != 1 || len(p.Info.Deps) != 1 {
		t.Errorf("build information is %+v", p.Info)
	}
	small[bytes.Index(small, []byte("\xcc\xcc"))+16]++
	summary, _, err := compare(elftest.Small(elftest.SmallTable, elftest.SmallInfo), small)
	if err != nil || !strings.Contains(summary, "function main.main: other code, 1 byte") {
		t.Errorf("%q, %v", summary, err)
	}
}
