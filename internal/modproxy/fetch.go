package modproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"

	"github.com/xavieralpha/derper/internal/limit"
)

// A SumError says that a module is not the one that a sum names.
type SumError struct {
	Module module.Version
	// Want is the sum expected, WantFrom who expects it.
	Want, WantFrom string
	// Got is the sum that Module has according to GotFrom.
	Got, GotFrom string
}

func (e *SumError) Error() string {
	return fmt.Sprintf("%s: sum does not match: expected %s (%s), got %s (%s)", e.Module, e.Want, e.WantFrom, e.Got, e.GotFrom)
}

// Check asks the checksum database for m and returns a [*SumError] when it does
// not say what the lock says.
func (c *Client) Check(ctx context.Context, m module.Version, sum string) error {
	got, err := c.Sum(ctx, m)
	if err != nil {
		return err
	}
	if got != sum {
		return &SumError{Module: m, Want: sum, WantFrom: "lock", Got: got, GotFrom: "checksum database"}
	}
	return nil
}

// Fetch puts the tree of module m at dir, which must not exist yet, whole or not
// at all. The zip must have the h1 sum that the caller wants and that the
// checksum database knows, else the error is a [*SumError]. The bytes received,
// and how many are expected (-1 for unknown), go to progress.
func (c *Client) Fetch(ctx context.Context, m module.Version, sum, dir string, progress func(done, total int64)) error {
	if err := c.Check(ctx, m, sum); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(c.Temp, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	archive := filepath.Join(work, "module.zip")
	var from string
	err = c.read(ctx, m, ".zip", func(b *body) error {
		from = b.from
		out, err := os.Create(archive)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, &counter{Reader: limit.Reader(b, zip.MaxZipFile), progress: progress, total: b.size})
		return errors.Join(err, out.Close())
	})
	if err != nil {
		return fmt.Errorf("fetch %s: %w", m, err)
	}
	// Before all of it is unpacked to be hashed: a zip of 1 MB may have 1 GB in it.
	if _, err := zip.CheckZip(m, archive); err != nil {
		return fmt.Errorf("fetch %s: %s: %w", m, from, err)
	}
	got, err := dirhash.HashZip(archive, dirhash.Hash1)
	if err != nil {
		return fmt.Errorf("fetch %s: %s: %w", m, from, err)
	}
	if got != sum {
		return &SumError{Module: m, Want: sum, WantFrom: "lock", Got: got, GotFrom: from}
	}
	tree := filepath.Join(work, "tree")
	if err := zip.Unzip(tree, m, archive); err != nil {
		return fmt.Errorf("fetch %s: %w", m, err)
	}
	if err := os.Rename(tree, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("fetch %s: %w", m, err)
	}
	return nil
}

// counter reports how much was read through it.
type counter struct {
	io.Reader
	done, total int64
	progress    func(done, total int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.done += int64(n)
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
	return n, err
}
