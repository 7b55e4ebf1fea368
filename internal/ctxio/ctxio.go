// Package ctxio ends long reads and writes when they are no longer wanted.
package ctxio

import (
	"context"
	"io"
)

// Reader reads from r until ctx ends.
func Reader(ctx context.Context, r io.Reader) io.Reader { return step(unless(ctx, r.Read)) }

// Writer writes to w until ctx ends.
func Writer(ctx context.Context, w io.Writer) io.Writer { return step(unless(ctx, w.Write)) }

// step is one read or write.
type step func(p []byte) (int, error)

func unless(ctx context.Context, do step) step {
	return func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return do(p)
	}
}

func (s step) Read(p []byte) (int, error)  { return s(p) }
func (s step) Write(p []byte) (int, error) { return s(p) }
