package ctxio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var b bytes.Buffer
	r, w := Reader(ctx, strings.NewReader("0123456789")), Writer(ctx, &b)
	if n, err := io.CopyN(w, r, 4); n != 4 || err != nil || b.String() != "0123" {
		t.Fatalf("%d, %v: %q", n, err, &b)
	}
	cancel()
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("read: %d, %v", n, err)
	}
	if n, err := w.Write([]byte("x")); n != 0 || !errors.Is(err, context.Canceled) || b.Len() != 4 {
		t.Errorf("written: %d, %v", n, err)
	}
}
