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
	r := Reader(ctx, strings.NewReader("0123456789"))
	if n, err := io.CopyN(&b, r, 4); n != 4 || err != nil || b.String() != "0123" {
		t.Fatalf("%d, %v: %q", n, err, &b)
	}
	cancel()
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("read: %d, %v", n, err)
	}
}
