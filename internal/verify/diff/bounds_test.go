package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/testing/tartest"
)

// TestSparse guards against a layer of some hundred bytes that is hashed for ever.
func TestSparse(t *testing.T) {
	for form, blob := range tartest.Sparse("usr/local/bin/derper") {
		for _, packed := range [][]byte{blob, gzipped(t, bytes.NewReader(blob))} {
			l, err := ReadLayer(t.Context(), bytes.NewReader(packed), new(Budget))
			if err != nil || !strings.Contains(l.Damage, "derper\": is a sparse file") || l.Digest != digest(packed) {
				t.Errorf("%s: %+v, %v", form, l, err)
			}
			if f, err := FileIn(io.NopCloser(bytes.NewReader(packed)), "usr/local/bin/derper", 0); !errors.Is(err, limit.ErrSparse) {
				t.Errorf("%s: %v, %v", form, f, err)
			}
		}
	}
}

// TestBudget guards against layers of which each has no more than it may, and all of them more
// than memory has room for, or anybody has time for.
func TestBudget(t *testing.T) {
	layer := func(entries int, name string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range entries {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint(name, i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for what, test := range map[string]struct {
		blob  []byte
		spent Budget // before
		limit bool   // the error is limit.Err, and nothing is said of the layer
	}{
		"entries":    {layer(2, "a"), Budget{entries: maxEntries - 1}, false},
		"one layer":  {layer(maxEntries+1, "a"), Budget{}, false},
		"names":      {layer(2, strings.Repeat("a", 1000)), Budget{headers: maxHeaders - 1500}, false},
		"zeros":      {gzipped(t, io.LimitReader(zeros{}, 10<<20)), Budget{tars: maxTar - 5<<20}, false},
		"a blob":     {layer(2, "a"), Budget{blobs: maxBlobs - 1000}, true},
		"no end":     {layer(2, "a"), Budget{blobs: maxBlobs}, true},
		"all of tar": {layer(2, "a"), Budget{tars: maxTar}, false},
	} {
		l, err := ReadLayer(t.Context(), bytes.NewReader(test.blob), &test.spent)
		switch {
		case test.limit && !errors.Is(err, limit.Err):
			t.Errorf("%s: %+v, %v", what, l, err)
		case !test.limit && (err != nil || !strings.Contains(l.Damage, limit.Err.Error()) || l.DiffID != ""):
			t.Errorf("%s: %+v, %v", what, l, err)
		}
	}
	var spent Budget
	blob := layer(3, "a")
	for range 2 {
		if l, err := ReadLayer(t.Context(), bytes.NewReader(blob), &spent); err != nil || l.Damage != "" {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if want := (Budget{6, 12, 2 * int64(len(blob)), 2 * int64(len(blob))}); spent != want {
		t.Errorf("%+v, want %+v", spent, want)
	}
	// What has no end is not read to it.
	endless := io.MultiReader(bytes.NewReader(blob), zeros{})
	if _, err := ReadLayer(context.Background(), endless, &Budget{blobs: maxBlobs - 1<<20}); !errors.Is(err, limit.Err) {
		t.Errorf("%v", err)
	}
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func gzipped(t *testing.T, r io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.Copy(w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
