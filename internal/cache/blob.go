package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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
// dropped then, so that it is made again.
var ErrCorrupt = errors.New("corrupt")

// Path is where a blob's file is. Whoever reads it unchecked must check what it
// read.
func (c *Cache) Path(b Blob) string {
	return filepath.Join(c.dir, "blobs", strings.TrimPrefix(b.Digest, "sha256:"))
}

// A Writer takes the content of a new blob.
type Writer struct {
	c    *Cache
	f    *os.File
	hash hash.Hash
	size int64
}

// Create begins a new blob. Its Writer must be committed or closed.
func (c *Cache) Create() (*Writer, error) {
	f, err := os.CreateTemp(c.Temp(), "blob-")
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Writer{c: c, f: f, hash: sha256.New()}, nil
}

func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	return n, err
}

// Close drops the blob unless it was committed.
func (w *Writer) Close() error {
	os.Remove(w.f.Name())
	return w.f.Close()
}

// Commit puts the blob in its place.
func (w *Writer) Commit() (Blob, error) {
	b := Blob{Digest: "sha256:" + hex.EncodeToString(w.hash.Sum(nil)), Size: w.size}
	err := errors.Join(w.f.Chmod(0o444), w.f.Sync())
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(w.f.Name(), w.c.Path(b))
	}
	if err == nil {
		err = w.c.recordCheck(b)
	}
	if err != nil {
		os.Remove(w.f.Name())
		return Blob{}, fmt.Errorf("cache: %w", err)
	}
	return b, nil
}

// Add makes a blob of what r gives.
func (c *Cache) Add(r io.Reader) (Blob, error) {
	w, err := c.Create()
	if err != nil {
		return Blob{}, err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return Blob{}, fmt.Errorf("cache: %w", err)
	}
	return w.Commit()
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
	return &reader{c: c, f: f, blob: b, hash: sha256.New()}, nil
}

// Opener opens a blob as often as it is called.
func (c *Cache) Opener(b Blob) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return c.Open(b) }
}

// reader checks what it read when it comes to the end.
type reader struct {
	c    *Cache
	f    *os.File
	blob Blob
	hash hash.Hash
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	r.hash.Write(p[:n])
	if err == io.EOF && "sha256:"+hex.EncodeToString(r.hash.Sum(nil)) != r.blob.Digest {
		r.c.forget(r.blob)
		return n, fmt.Errorf("blob %s: %w", r.blob.Digest, ErrCorrupt)
	}
	return n, err
}

func (r *reader) Close() error { return r.f.Close() }

// Check checks a blob that is to be named only: by size, time and inode, when
// they are those of its last check by content, and by content otherwise. A
// damaged blob is dropped.
func (c *Cache) Check(b Blob) error {
	if !c.VerifyAll {
		state, err := c.state(b)
		if err == nil {
			checked, err := os.ReadFile(c.Path(b) + ".checked")
			if err == nil && bytes.Equal(checked, state) {
				return nil
			}
		}
	}
	r, err := c.Open(b)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("blob %s: missing", b.Digest)
		}
		return err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return c.recordCheck(b)
}

// state is what can be seen of a blob without reading it.
func (c *Cache) state(b Blob) ([]byte, error) {
	return State(c.Path(b))
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

func (c *Cache) recordCheck(b Blob) error {
	state, err := c.state(b)
	if err != nil {
		return err
	}
	return c.write(c.Path(b)+".checked", state)
}

func (c *Cache) forget(b Blob) {
	os.Remove(c.Path(b))
	os.Remove(c.Path(b) + ".checked")
}
