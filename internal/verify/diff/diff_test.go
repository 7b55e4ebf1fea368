package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func TestJSON(t *testing.T) {
	for name, test := range map[string]struct {
		want, got string
		changes   []string
	}{
		"same":            {`{"a":1}`, `{"a":1}`, nil},
		"value":           {`{"a":{"b":1}}`, `{"a":{"b":2}}`, []string{`.a.b: image 2, rebuilt 1`}},
		"added":           {`{}`, `{"a b":true}`, []string{`["a b"]: image true, the rebuilt has none`}},
		"removed":         {`{"a":null}`, `{}`, []string{`.a: image none, the rebuilt has null`}},
		"type":            {`{"a":[]}`, `{"a":{}}`, []string{`.a: image {}, rebuilt []`}},
		"in a list":       {`[1,{"x":2}]`, `[1,{"x":3},4]`, []string{`[1].x: image 3, rebuilt 2`, `[2]: image 4, the rebuilt has none`}},
		"variable":        {`{"Env":["A=1","B=2"]}`, `{"Env":["A=1","B=3"]}`, []string{`.Env.B: image "3", rebuilt "2"`}},
		"variable first":  {`{"Env":["A=1","B=2"]}`, `{"Env":["E=0","A=1","B=2"]}`, []string{`.Env.E: image "0", the rebuilt has none`}},
		"order":           {`{"Env":["A=1","B=2"]}`, `{"Env":["B=2","A=1"]}`, []string{`.Env: image the same values in another order, rebuilt the same values`}},
		"variable twice":  {`{"Env":["A=1"]}`, `{"Env":["A=1","A=2"]}`, []string{`.Env[1]: image "A=2", the rebuilt has none`}},
		"big number":      {`{"a":9007199254740993}`, `{"a":9007199254740992}`, []string{`.a: image 9007199254740992, rebuilt 9007199254740993`}},
		"spaces":          {`{"a":1}`, `{ "a": 1 }`, []string{`.: image the same values, written in another way (order, spaces or repeated keys), rebuilt the same values`}},
		"repeated key":    {`{"a":1}`, `{"a":2,"a":1}`, []string{`.: image the same values, written in another way (order, spaces or repeated keys), rebuilt the same values`}},
		"steers a screen": {`{}`, "{\"\\u001b[2J\":\"\\u001b\"}", []string{`["\x1b[2J"]: image "\u001b", the rebuilt has none`}},
	} {
		changes, err := JSON([]byte(test.want), []byte(test.got))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var lines []string
		for _, c := range changes {
			lines = append(lines, c.String())
		}
		if got, want := strings.Join(lines, "\n"), strings.Join(test.changes, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
	for _, bad := range []string{``, `{`, `{} {}`, strings.Repeat("[", 20000)} {
		if _, err := JSON([]byte(`{}`), []byte(bad)); err == nil {
			t.Errorf("%.20s: no error", bad)
		}
	}
}

// TestReadLayer guards that a blob is hashed to its end, whatever is wrong with what
// is in it.
func TestReadLayer(t *testing.T) {
	var file bytes.Buffer
	w := tar.NewWriter(&file)
	for _, name := range []string{"a", "b"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: 5, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "hello")
	}
	w.Close()
	plain := file.Bytes()
	packed := map[string][]byte{"none": plain, "gzip (OS 255)": nil, "zstd": nil}
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	zw.Write(plain)
	zw.Close()
	packed["gzip (OS 255)"] = bytes.Clone(b.Bytes())
	b.Reset()
	sw, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	sw.Write(plain)
	sw.Close()
	packed["zstd"] = bytes.Clone(b.Bytes())

	ctx := context.Background()
	for compression, blob := range packed {
		l, err := ReadLayer(ctx, iotest.HalfReader(bytes.NewReader(blob)), new(Budget))
		if err != nil || l.Damage != "" || len(l.Entries) != 2 || l.DiffID != digest(plain) || l.Digest != digest(blob) || l.Size != int64(len(blob)) {
			t.Errorf("%s: %+v, %v", compression, l, err)
		} else if compression != "gzip (OS 255)" && l.Compression != compression {
			t.Errorf("compression is %s, want %s", l.Compression, compression)
		}
		half := blob[:len(blob)*3/4]
		if compression == "none" {
			half = blob[:515]
		}
		l, err = ReadLayer(ctx, bytes.NewReader(half), new(Budget))
		if err != nil || l.Damage == "" || l.DiffID != "" || l.Digest != digest(half) {
			t.Errorf("%s, cut off: %+v, %v", compression, l, err)
		}
	}
	// What stands behind the tar's end is part of it, and of the blob.
	long := append(bytes.Clone(plain), "behind"...)
	if l, err := ReadLayer(ctx, bytes.NewReader(long), new(Budget)); err != nil || l.DiffID != digest(long) {
		t.Errorf("bytes behind the end: %+v, %v", l, err)
	}
	broken := errors.New("broken")
	if _, err := ReadLayer(ctx, io.MultiReader(bytes.NewReader(plain[:100]), iotest.ErrReader(broken)), new(Budget)); !errors.Is(err, broken) {
		t.Errorf("error of the reader: %v", err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := ReadLayer(stopped, bytes.NewReader(plain), new(Budget)); !errors.Is(err, context.Canceled) {
		t.Errorf("error of the context: %v", err)
	}
}

func digest(data []byte) string {
	t := &tee{r: bytes.NewReader(data), hash: sha256.New()}
	io.Copy(io.Discard, t)
	return t.digest()
}

func TestText(t *testing.T) {
	for name, test := range map[string]struct{ want, got, line string }{
		"line":     {"a\nb\n", "a\nc\n", `line 2: image "c", rebuilt "b"`},
		"longer":   {"a\n", "a\nb\n", `line 2: image "b", rebuilt ""`},
		"shorter":  {"a\nb", "a", `line 2: image none, rebuilt "b"`},
		"no words": {"a", "\xff\xfe", ""},
	} {
		if got := strings.Join(Text([]byte(test.want), []byte(test.got)), "\n"); got != test.line {
			t.Errorf("%s: %s, want %s", name, got, test.line)
		}
	}
}
