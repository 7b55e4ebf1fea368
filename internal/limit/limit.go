// Package limit bounds what is read of what others made: a stream, a tar, the output of a
// program.
package limit

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// Err says that there is more than is read.
var Err = errors.New("too much")

// Reader reads at most so many bytes from r. More is an error that is [Err], so that what is
// cut off is never taken for whole.
func Reader(r io.Reader, bytes int64) io.Reader { return &reader{r, bytes, bytes} }

type reader struct {
	r         io.Reader
	left, all int64
}

func (r *reader) Read(p []byte) (int, error) {
	// One byte more than is left shows that there is more.
	if int64(len(p)) > r.left+1 {
		p = p[:r.left+1]
	}
	n, err := r.r.Read(p)
	if r.left -= int64(n); r.left < 0 {
		r.left = 0
		return 0, fmt.Errorf("%w: more than %s", Err, size(r.all))
	}
	return n, err
}

// ReadCloser is [Reader] for what is closed. More than it may have closes it, too: not everybody
// does, after an error, and a connection would go on.
func ReadCloser(r io.ReadCloser, bytes int64) io.ReadCloser {
	return &readCloser{Reader(r, bytes), r}
}

type readCloser struct {
	io.Reader
	io.Closer
}

func (r *readCloser) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, Err) {
		r.Close()
	}
	return n, err
}

// ReadAll reads all of r, which may have at most so many bytes.
func ReadAll(r io.Reader, bytes int64) ([]byte, error) { return io.ReadAll(Reader(r, bytes)) }

// size is a number of bytes as limits are written in.
func size(n int64) string {
	for _, unit := range []string{"bytes", "KiB", "MiB"} {
		if n < 1<<10 || n%(1<<10) != 0 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d GiB", n)
}

// A Buffer keeps the first bytes that are written to it, at most Max, and a line that says
// so if there were more. No write fails: a program that says too much is not stopped by it.
// It may be written to and read at the same time.
type Buffer struct {
	Max int64

	mu   sync.Mutex
	kept []byte
	more bool
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	keep := min(int64(len(p)), b.Max-int64(len(b.kept)))
	b.kept = append(b.kept, p[:keep]...)
	b.more = b.more || keep < int64(len(p))
	return len(p), nil
}

// Cut reports whether more was written than is kept.
func (b *Buffer) Cut() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.more {
		return fmt.Sprintf("%s\n[cut off after %s]\n", b.kept, size(b.Max))
	}
	return string(b.kept)
}
