package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/xavieralpha/derper/internal/lock"
)

// entries reads a layer with the standard library, which did not write it.
func entries(t *testing.T, files []File, mtime time.Time) (list []*tar.Header, content map[string]string) {
	t.Helper()
	var blob bytes.Buffer
	if _, err := WriteLayer(&blob, files, mtime); err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(&blob)
	if err != nil {
		t.Fatal(err)
	}
	if zr.Name != "" || zr.Comment != "" || zr.OS != 255 {
		t.Errorf("gzip header: %+v", zr.Header)
	}
	tr := tar.NewReader(zr)
	content = map[string]string{}
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return list, content
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, hdr)
		content[hdr.Name] = string(data)
	}
}

func TestLayer(t *testing.T) {
	long := "usr/share/licenses/" + strings.Repeat("very-long-", 30)
	files := append(sampleFiles("1")["base"], sampleFiles("1")["program"]...)
	// Neither the time's zone nor its fraction shows.
	list, content := entries(t, files, mtime.Add(time.Second/3).In(time.FixedZone("x", 3600)))
	want := []struct {
		name string
		mode int64
	}{
		{"etc/", 0o755},
		{"etc/empty", 0o644},
		{"etc/hosts", 0o644},
		{"root/", 0o700}, // as given
		{"tmp/", 0o1777},
		{"usr/", 0o755}, // made up
		{"usr/local/", 0o755},
		{"usr/local/bin/", 0o755},
		{"usr/local/bin/program", 0o755},
		{"usr/share/", 0o755},
		{"usr/share/licenses/", 0o755},
		{long + "/", 0o755},
		{long + "/LICENSE", 0o644},
	}
	var names []string
	for _, hdr := range list {
		names = append(names, hdr.Name)
	}
	if len(list) != len(want) {
		t.Fatalf("%d entries, not %d: %q", len(list), len(want), names)
	}
	for i, hdr := range list {
		if hdr.Name != want[i].name || hdr.Mode != want[i].mode {
			t.Errorf("entry %d: %s %o, not %s %o", i, hdr.Name, hdr.Mode, want[i].name, want[i].mode)
		}
		if hdr.Uid != 0 || hdr.Gid != 0 || hdr.Uname != "" || hdr.Gname != "" {
			t.Errorf("%s: owner %d:%d %q:%q", hdr.Name, hdr.Uid, hdr.Gid, hdr.Uname, hdr.Gname)
		}
		if !hdr.ModTime.Equal(mtime) || !hdr.AccessTime.IsZero() || !hdr.ChangeTime.IsZero() {
			t.Errorf("%s: times %v %v %v", hdr.Name, hdr.ModTime, hdr.AccessTime, hdr.ChangeTime)
		}
		format, records := tar.FormatUSTAR, 0
		if len(hdr.Name) > 256 {
			format, records = tar.FormatPAX, 1 // the path, and nothing else
		}
		if hdr.Format != format || len(hdr.PAXRecords) != records {
			t.Errorf("%s: %v, %v", hdr.Name, hdr.Format, hdr.PAXRecords)
		}
		isDir := strings.HasSuffix(hdr.Name, "/")
		if isDir != (hdr.Typeflag == tar.TypeDir) || !isDir != (hdr.Typeflag == tar.TypeReg) {
			t.Errorf("%s: type %q", hdr.Name, hdr.Typeflag)
		}
	}
	for name, want := range map[string]string{
		"etc/hosts": "127.0.0.1 localhost\n", "etc/empty": "", "usr/local/bin/program": "1" + noise(300_000), long + "/LICENSE": "as you like\n",
	} {
		if content[name] != want {
			t.Errorf("%s has %d bytes, others than the %d that went in", name, len(content[name]), len(want))
		}
	}
}

// A parent comes before what is in it, also where the order of bytes has another
// name between the two.
func TestParentsComeFirst(t *testing.T) {
	list, _ := entries(t, []File{Text("a/b", ""), Text("a-b", ""), Text("a.b", ""), Text("a0", "")}, mtime)
	seen := map[string]bool{".": true}
	for _, hdr := range list {
		name := strings.TrimSuffix(hdr.Name, "/")
		if !seen[filepath.Dir(name)] {
			t.Errorf("%s comes before its folder", name)
		}
		seen[name] = true
	}
}

// The bytes of a layer depend on what goes in, not on the order of the list nor on
// the pieces in which content is read.
func TestLayerBytes(t *testing.T) {
	files := append(sampleFiles("1")["base"], sampleFiles("1")["program"]...)
	write := func(files []File) ([]byte, string) {
		var b bytes.Buffer
		diffID, err := WriteLayer(&b, files, mtime)
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes(), diffID
	}
	want, wantID := write(files)
	backwards := slices.Clone(files)
	slices.Reverse(backwards)
	for name, pieces := range map[string]func(io.Reader) io.Reader{
		"as they are":   func(r io.Reader) io.Reader { return struct{ io.Reader }{r} },
		"single bytes":  iotest.OneByteReader,
		"halves":        iotest.HalfReader,
		"end with data": iotest.DataErrReader,
	} {
		list := slices.Clone(backwards)
		for i, f := range list {
			if f.Open == nil {
				continue
			}
			list[i].Open = func() (io.ReadCloser, error) {
				r, err := f.Open()
				return io.NopCloser(pieces(r)), err
			}
		}
		if got, id := write(list); !bytes.Equal(got, want) || id != wantID {
			t.Errorf("%s, backwards: other bytes, DiffID %s, not %s", name, id, wantID)
		}
	}
}

// A variant's own files: folders that somebody owns, and texts.
func TestEntries(t *testing.T) {
	files, err := Entries([]lock.Entry{
		{Path: "home/nonroot/", Mode: "0700", Owner: 65532}, {Path: "tmp/shared/", Mode: "01777"}, {Path: "etc/motd", Mode: "0644", Text: "hello\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	list, content := entries(t, files, mtime)
	var got []string
	for _, h := range list {
		got = append(got, fmt.Sprintf("%s %o %d:%d %q", h.Name, h.Mode, h.Uid, h.Gid, content[h.Name]))
	}
	want := []string{
		`etc/ 755 0:0 ""`, `etc/motd 644 0:0 "hello\n"`, `home/ 755 0:0 ""`, `home/nonroot/ 700 65532:65532 ""`, `tmp/ 1777 0:0 ""`, `tmp/shared/ 1777 0:0 ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestLayerRefuses(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name  string
		files []File
		want  string
	}{
		{"file twice", []File{Text("a", ""), Text("b", ""), Text("a", "")}, "duplicate a"},
		{"file and folder", []File{Text("a", ""), Dir("a", 0o755)}, "duplicate a"},
		{"file as a folder", []File{Text("a", ""), Text("a/b/c", "")}, "a is a file and a folder"},
		{"slash in front", []File{Text("/a", "")}, `"/a" is no path`},
		{"slash at the end", []File{Dir("a/", 0o755)}, `"a/" is no path`},
		{"out of the image", []File{Text("../a", "")}, `"../a" is no path`},
		{"detour", []File{Text("a/../b", "")}, `"a/../b" is no path`},
		{"root", []File{Dir(".", 0o755)}, `"." is no path`},
		{"no name", []File{Text("", "")}, `"" is no path`},
		{"shorter than said", []File{{Name: "a", Size: 2, Open: Text("", "1").Open}, Text("b", "")}, "missed writing 1 bytes"},
		{"longer than said", []File{{Name: "a", Size: 2, Open: Text("", "123").Open}}, "write too long"},
		{"cannot be opened", []File{{Name: "a", Open: func() (io.ReadCloser, error) { return nil, broken }}}, "a: broken"},
		{"cannot be read to its end", []File{{Name: "a", Size: 1, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("1"), iotest.ErrReader(broken))), nil
		}}}, "a: broken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if id, err := WriteLayer(io.Discard, test.files, mtime); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s, %v: does not say %q", id, err, test.want)
			}
		})
	}
	full := errors.New("full")
	if _, err := WriteLayer(failingWriter{full}, []File{Text("a", noise(1000))}, mtime); !errors.Is(err, full) {
		t.Errorf("%v, not what the writer said", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestEtc(t *testing.T) {
	list, content := entries(t, Etc(), mtime)
	modes := map[string]int64{}
	for _, hdr := range list {
		modes[hdr.Name] = hdr.Mode
	}
	// Any uid can write where programs expect to, and read the rest.
	for name, want := range map[string]int64{"tmp/": 0o1777, "root/": 0o755, "etc/passwd": 0o644, "etc/": 0o755} {
		if modes[name] != want {
			t.Errorf("%s: mode %o, not %o", name, modes[name], want)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(content["etc/passwd"]), "\n") {
		if strings.Count(line, ":") != 6 {
			t.Errorf("no line of passwd: %q", line)
		}
	}
	if !strings.HasPrefix(content["etc/passwd"], "root:x:0:0:") || !strings.Contains(content["etc/passwd"], fmt.Sprintf("\nnonroot:x:%d:", NonRoot)) {
		t.Errorf("passwd:\n%s", content["etc/passwd"])
	}
	if !strings.Contains(content["etc/nsswitch.conf"], "hosts: files dns") {
		t.Errorf("nsswitch.conf:\n%s", content["etc/nsswitch.conf"])
	}
}

func TestNotices(t *testing.T) {
	tree := t.TempDir()
	write := func(names ...string) {
		for _, name := range names {
			file := filepath.Join(tree, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("main.go", "README.md", "license.go", "LICENSEE", "sub/NOTICES.txt",
		"testdata/LICENSE", "sub/testdata/x/LICENSE", "_example/LICENSE", ".github/LICENSE")
	if files, err := Notices("example.com/m@v1.0.0", tree); err == nil || !strings.Contains(err.Error(), "example.com/m@v1.0.0") {
		t.Errorf("a tree without notices: %d files, %v", len(files), err)
	}
	if _, err := Notices("m", tree+"-not"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no tree: %v", err)
	}
	want := []string{
		"COPYING", "COPYRIGHT.md", "LICENCE", "LICENSE", "License.txt", "NOTICE", "PATENTS", "UNLICENSE",
		"sub/LICENSE-APACHE", "sub/deep/license",
	}
	write(want...)
	files, err := Notices("example.com/m@v1.0.0", tree)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		name, ok := strings.CutPrefix(f.Name, "usr/share/licenses/example.com/m@v1.0.0/")
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if !ok || err != nil || string(data) != name || f.Size != int64(len(name)) || f.Mode != 0o644 {
			t.Errorf("%s: %q, %d bytes, mode %v, %v", f.Name, data, f.Size, f.Mode, err)
		}
		got = append(got, name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%q\nnot %q", got, want)
	}
}
