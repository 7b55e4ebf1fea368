package diff

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/xavieralpha/derper/internal/ctxio"
	"github.com/xavieralpha/derper/internal/limit"
)

// Limits of what is read of all layers of an image, on all platforms. A real one has some
// thousand files in them, and some 500 MB.
const (
	maxEntries = 1 << 14
	maxHeaders = 8 << 20 // bytes, of names, links and PAX records in all
	maxTar     = 8 << 30 // bytes, of the tars
	maxBlobs   = 2 << 30 // bytes, as they are compressed
)

// A Budget is what has been read of the layers of an image. Each layer counts: what one may
// be is too much for some hundred. The zero value is one of which nothing was read.
type Budget struct {
	entries, headers int
	tars, blobs      int64
}

// A Layer is what the blob of a layer holds.
type Layer struct {
	// Digest is that of the blob, sha256:<hex>, and Size its size in bytes.
	Digest string
	Size   int64
	// Compression is gzip, zstd or none, with what gzip's header says.
	Compression string
	// DiffID is the digest of the tar. It is "" when Damage is not.
	DiffID string
	// Entries are those of the tar, in its order.
	Entries []Entry
	// Damage says what keeps the blob from being unpacked, "" if nothing does. The
	// entries are then those before it.
	Damage string
}

// An Entry is a file, folder or other thing in a tar.
type Entry struct {
	tar.Header
	Digest  string // of its content, sha256:<hex>; "" for what is no file
	Machine string // of a compiled program: the architecture in Go's words; "" for other files
}

// Program reports whether the entry is a compiled program.
func (e *Entry) Program() bool { return e.Machine != "" }

// ReadLayer reads a layer's blob to its end. The error is that of r, or ctx's, or [limit.Err]
// for more bytes than an image has: what else is wrong with the content goes to the Layer's
// Damage.
func ReadLayer(ctx context.Context, r io.Reader, b *Budget) (*Layer, error) {
	blob := &tee{r: limit.Reader(ctxio.Reader(ctx, r), maxBlobs-b.blobs), hash: sha256.New()}
	l := &Layer{}
	damage := l.read(blob, b)
	b.blobs += blob.size
	if blob.err == nil && damage != nil {
		l.Damage, l.DiffID = short(damage.Error()), ""
	}
	// What the tar did not need is part of the blob all the same.
	n, err := io.Copy(io.Discard, blob)
	if b.blobs += n; err != nil {
		return nil, err
	}
	l.Digest, l.Size = blob.digest(), blob.size
	return l, nil
}

func (l *Layer) read(blob io.Reader, b *Budget) error {
	unpacked, compression, err := Decompress(blob)
	if err != nil {
		return err
	}
	defer unpacked.Close()
	l.Compression = compression
	content := &tee{r: limit.Reader(unpacked, maxTar-b.tars), hash: sha256.New()}
	defer func() { b.tars += content.size }()
	tr := limit.NewTar(content)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		b.entries++
		b.headers += len(h.Name) + len(h.Linkname) + len(h.Uname) + len(h.Gname)
		for name, value := range h.PAXRecords {
			b.headers += len(name) + len(value)
		}
		if b.entries > maxEntries || b.headers > maxHeaders {
			return fmt.Errorf("tar: %w: the image has more than %d entries, or more than %d MiB of names", limit.Err, maxEntries, maxHeaders>>20)
		}
		e := Entry{Header: *h}
		if h.Typeflag == tar.TypeReg {
			if e.Digest, e.Machine, err = readFile(tr); err != nil {
				return fmt.Errorf("tar: %s: %w", h.Name, err)
			}
		}
		l.Entries = append(l.Entries, e)
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return err
	}
	l.DiffID = content.digest()
	return nil
}

func readFile(r io.Reader) (digest, machine string, err error) {
	br := bufio.NewReader(r)
	head, err := br.Peek(elfHead)
	if err != nil && err != io.EOF {
		return "", "", err
	}
	machine = machineOf(head)
	h := sha256.New()
	_, err = io.Copy(h, br)
	return sum(h), machine, err
}

// Decompress unpacks what is compressed with gzip or zstd, which it knows by its
// first bytes, and says with which; anything else is given as it is.
func Decompress(r io.Reader) (io.ReadCloser, string, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	magic, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}): // RFC 1952
		zr, err := gzip.NewReader(in)
		if err != nil {
			return nil, "", fmt.Errorf("gzip: %w", err)
		}
		return zr, gzipHeader(zr.Header), nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878
		zr, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, "", fmt.Errorf("zstd: %w", err)
		}
		return zr.IOReadCloser(), "zstd", nil
	}
	return io.NopCloser(in), "none", nil
}

// gzipHeader is what the header of a gzip stream says, RFC 1952 section 2.3.
func gzipHeader(h gzip.Header) string {
	s := fmt.Sprintf("gzip (OS %d", h.OS)
	if h.ModTime.Unix() > 0 {
		s += ", time " + h.ModTime.UTC().Format(time.RFC3339)
	}
	for _, field := range []struct{ name, value string }{{"name", h.Name}, {"comment", h.Comment}, {"extra", string(h.Extra)}} {
		if field.value != "" {
			s += ", " + field.name + " " + short(field.value)
		}
	}
	return s + ")"
}

// FileIn opens the nth file, from 0, with a name in the tar of a layer's blob. To close it
// closes the blob.
func FileIn(blob io.ReadCloser, name string, nth int) (_ io.ReadCloser, err error) {
	defer func() {
		if err != nil {
			blob.Close()
		}
	}()
	unpacked, _, err := Decompress(blob)
	if err != nil {
		return nil, err
	}
	f := &file{limit.NewTar(limit.Reader(unpacked, maxTar)), unpacked, blob}
	for {
		h, err := f.Next()
		if err != nil {
			unpacked.Close()
			return nil, err
		}
		if h.Name == name {
			if nth--; nth < 0 {
				return f, nil
			}
		}
	}
}

// file is one in a layer.
type file struct {
	limit.Tar
	unpacked, blob io.Closer
}

func (f *file) Close() error { return errors.Join(f.unpacked.Close(), f.blob.Close()) }

// tee hashes and counts what is read.
type tee struct {
	r    io.Reader
	hash hash.Hash
	size int64
	err  error // other than io.EOF
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.hash.Write(p[:n])
	t.size += int64(n)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

func (t *tee) digest() string { return sum(t.hash) }

func sum(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }
