package limit_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// TestReader guards against what is cut off and taken for whole, and against a bound that
// refuses what has just the size that it may have.
func TestReader(t *testing.T) {
	for name, r := range map[string]func() io.Reader{
		"at once":      func() io.Reader { return strings.NewReader("0123456789") },
		"byte by byte": func() io.Reader { return iotest.OneByteReader(strings.NewReader("0123456789")) },
	} {
		for _, bytes := range []int64{10, 11, 1 << 62} {
			if data, err := limit.ReadAll(r(), bytes); err != nil || string(data) != "0123456789" {
				t.Errorf("%s: at most %d: %q, %v", name, bytes, data, err)
			}
		}
		for _, bytes := range []int64{0, 1, 9} {
			data, err := limit.ReadAll(r(), bytes)
			if !errors.Is(err, limit.Err) || int64(len(data)) > bytes {
				t.Errorf("%s: at most %d: %q, %v", name, bytes, data, err)
			}
		}
	}
	if _, err := limit.ReadAll(zeros{}, 3<<20); err == nil || err.Error() != "too much: more than 3 MiB" {
		t.Errorf("%v", err)
	}
}

// TestReadCloser guards against a connection that stays open because somebody does not close it
// after an error.
func TestReadCloser(t *testing.T) {
	closed := false
	r := limit.ReadCloser(closing{strings.NewReader("0123456789"), &closed}, 9)
	if data, err := io.ReadAll(r); !errors.Is(err, limit.Err) || !closed {
		t.Errorf("%q, %v, closed: %v", data, err, closed)
	}
}

type closing struct {
	io.Reader
	closed *bool
}

func (c closing) Close() error { *c.closed = true; return nil }

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestBuffer guards against a program that fills this one's memory with what it says, and
// against one that is stopped because it says much.
func TestBuffer(t *testing.T) {
	b := &limit.Buffer{Max: 8}
	for _, s := range []string{"abcd", "efgh"} {
		if n, err := io.WriteString(b, s); n != 4 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if b.Cut() || b.String() != "abcdefgh" {
		t.Errorf("%v, %q", b.Cut(), b)
	}
	if n, err := io.CopyN(b, zeros{}, 1<<20); n != 1<<20 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if !b.Cut() || b.String() != "abcdefgh\n[cut off after 8 bytes]\n" {
		t.Errorf("%v, %q", b.Cut(), b)
	}
}

// TestSparse guards against the tar of some hundred bytes with a file of 4 EiB, in each form
// that there is, which is read for ever.
func TestSparse(t *testing.T) {
	forms := tartest.Sparse("usr/bin/derper")
	if len(forms) != 4 {
		t.Errorf("%d forms", len(forms))
	}
	for form, data := range forms {
		// That the standard library takes it for such a file shows that the test has one.
		tr := tar.NewReader(bytes.NewReader(data))
		if h, err := tr.Next(); err != nil || h.Size != tartest.Size || h.Name != "usr/bin/derper" {
			t.Fatalf("%s: %+v, %v", form, h, err)
		}
		if n, err := io.CopyN(io.Discard, tr, 1<<20); n != 1<<20 || err != nil {
			t.Errorf("%s: %d, %v", form, n, err)
		}
		if h, err := limit.NewTar(bytes.NewReader(data)).Next(); !errors.Is(err, limit.ErrSparse) || !strings.Contains(err.Error(), "derper") {
			t.Errorf("%s: %+v, %v", form, h, err)
		}
	}
}
