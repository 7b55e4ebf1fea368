package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrCorrupt is in the error of a blob that is not what its digest names. The blob is
// dropped then, so that it is rebuilt.
var ErrCorrupt = errors.New("corrupt")

// Path is where a blob's file is. Whoever reads it unchecked must check what it
// read.
func (c *Cache) Path(b Blob) string {
	return filepath.Join(c.dir, "blobs", strings.TrimPrefix(b.Digest, "sha256:"))
}

// Write makes a blob of what content writes.
func (c *Cache) Write(content func(io.Writer) error) (b Blob, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cache: %w", err)
		}
	}()
	f, err := os.CreateTemp(c.Temp(), "blob-")
	if err != nil {
		return b, err
	}
	defer os.Remove(f.Name()) // fails once renamed
	hash := sha256.New()
	err = content(io.MultiWriter(f, hash))
	info, serr := f.Stat()
	if err := errors.Join(err, serr, f.Chmod(0o444), f.Sync(), f.Close()); err != nil {
		return b, err
	}
	b = Blob{Digest: fmt.Sprintf("sha256:%x", hash.Sum(nil)), Size: info.Size()}
	if err := os.Rename(f.Name(), c.Path(b)); err != nil {
		return b, err
	}
	return b, c.recordCheck(b)
}

// Add makes a blob of what r gives.
func (c *Cache) Add(r io.Reader) (Blob, error) {
	return c.Write(func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// AddFile makes a blob of the named file.
func (c *Cache) AddFile(name string) (Blob, error) {
	f, err := os.Open(name)
	if err != nil {
		return Blob{}, fmt.Errorf("cache: %w", err)
	}
	defer f.Close()
	return c.Add(f)
}

// Open opens a blob for reading. The last Read fails with [ErrCorrupt] when the
// content is not the blob's.
func (c *Cache) Open(b Blob) (io.ReadCloser, error) {
	f, err := os.Open(c.Path(b))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", b.Digest, err)
	}
	return &reader{f, c, b, sha256.New()}, nil
}

// Opener opens a blob as often as it is called.
func (c *Cache) Opener(b Blob) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return c.Open(b) }
}

// reader checks what it read when it comes to the end.
type reader struct {
	io.ReadCloser
	c    *Cache
	blob Blob
	hash hash.Hash
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.hash.Write(p[:n])
	if err == io.EOF && fmt.Sprintf("sha256:%x", r.hash.Sum(nil)) != r.blob.Digest {
		os.Remove(r.c.Path(r.blob))
		os.Remove(r.c.checked(r.blob))
		return n, fmt.Errorf("blob %s: %w", r.blob.Digest, ErrCorrupt)
	}
	return n, err
}

// Check checks a blob that is to be named only: by size, time and inode, when
// they are those of its last check by content, and by content otherwise. A
// damaged blob is dropped.
func (c *Cache) Check(b Blob) error {
	state, err := State(c.Path(b))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: missing", b.Digest)
	}
	if checked, cerr := os.ReadFile(c.checked(b)); err == nil && cerr == nil && bytes.Equal(checked, state) && !c.VerifyAll {
		return nil
	}
	return c.Verify(b)
}

// Verify checks a blob by content.
func (c *Cache) Verify(b Blob) error {
	r, err := c.Open(b)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return c.recordCheck(b)
}

// State is what can be seen of a file without reading it: size in bytes, time of
// its last change in nanoseconds, inode. A file in the same state has the same
// content, unless somebody took pains.
func State(name string) ([]byte, error) {
	fi, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	var inode uint64
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Appendf(nil, "%d %d %d", fi.Size(), fi.ModTime().UnixNano(), inode), nil
}

// checked is the file with a blob's state when its content was last checked.
func (c *Cache) checked(b Blob) string { return c.Path(b) + ".checked" }

func (c *Cache) recordCheck(b Blob) error {
	state, err := State(c.Path(b))
	if err != nil {
		return err
	}
	return c.write(c.checked(b), state)
}
