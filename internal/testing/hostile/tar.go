package hostile

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

const best = gzip.BestCompression

// A Part is an entry of a tar with its content.
type Part struct {
	Header  tar.Header
	Content []byte
}

// Parts are the entries of a layer.
func Parts(t testing.TB, l *image.Layer) (list []Part) {
	t.Helper()
	r, err := l.Uncompressed()
	check(t, err)
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return list
		}
		check(t, err)
		content, err := io.ReadAll(tr)
		check(t, err)
		list = append(list, Part{*h, content})
	}
}

// Tar writes entries as a tar.
func Tar(t testing.TB, list []Part) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, p := range list {
		p.Header.Size = int64(len(p.Content))
		check(t, tw.WriteHeader(&p.Header))
		_, err := tw.Write(p.Content)
		check(t, err)
	}
	check(t, tw.Close())
	return b.Bytes()
}

// Pack compresses a tar into a layer.
func Pack(t testing.TB, name string, level int, data []byte) *image.Layer {
	t.Helper()
	return Blob(name, data, compressed(t, level, data, nil))
}

// Blob is a layer of a tar and of what it was compressed to.
func Blob(name string, data, blob []byte) *image.Layer {
	return &image.Layer{Layer: lock.Layer{Name: name, DiffID: Digest(data), Digest: Digest(blob), Bytes: int64(len(blob))}, Open: reader(blob)}
}

// compressed is data in gzip, with another header if it is changed.
func compressed(t testing.TB, level int, data []byte, change func(*gzip.Header)) []byte {
	t.Helper()
	var b bytes.Buffer
	zw, err := gzip.NewWriterLevel(&b, level)
	check(t, err)
	zw.ModTime = time.Unix(0, 0)
	if change != nil {
		change(&zw.Header)
	}
	_, err = zw.Write(data)
	check(t, err)
	check(t, zw.Close())
	return b.Bytes()
}

// Replace changes the content of one entry.
func Replace(name string, change func([]byte) []byte) func([]Part) []Part {
	return func(list []Part) []Part {
		for i := range list {
			if list[i].Header.Name == name {
				list[i].Content = change(bytes.Clone(list[i].Content))
			}
		}
		return list
	}
}

// Add adds an entry behind all others.
func Add(h tar.Header, content string) func([]Part) []Part {
	return func(list []Part) []Part { return append(list, Part{h, []byte(content)}) }
}
