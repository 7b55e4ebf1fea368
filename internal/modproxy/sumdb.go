package modproxy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/limit"
)

// goSumDB is the verifier key of sum.golang.org.
// Source: cmd/go/internal/modfetch/key.go.
const goSumDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

// Sum asks the checksum database for the h1 sum of a module's zip. As in go.sum, a
// version that ends in /go.mod asks for the sum of that file.
func (c *Client) Sum(ctx context.Context, m module.Version) (string, error) {
	lines, err := c.lookup(ctx, m)
	if err != nil {
		return "", fmt.Errorf("checksum database: %s: %w", m, err)
	}
	prefix := m.Path + " " + m.Version + " "
	for _, line := range lines {
		if sum, ok := strings.CutPrefix(line, prefix); ok {
			return sum, nil
		}
	}
	return "", fmt.Errorf("checksum database: %s: has no sum for it", m)
}

func (c *Client) lookup(ctx context.Context, m module.Version) ([]string, error) {
	key, direct, _ := strings.Cut(cmp.Or(c.SumDB, goSumDB), " ")
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	o := &ops{client: c, ctx: ctx, key: key, name: verifier.Name(), direct: direct}
	for again := false; ; again = true {
		// A client for each lookup: it holds on to errors, and has no context.
		lines, err := sumdb.NewClient(o).Lookup(m.Path, m.Version)
		if remote := o.remote(err); remote != nil {
			return nil, remote
		}
		if err == nil || again {
			return lines, err
		}
		// Not the network. A tile that is damaged on disk would be taken for the
		// database's word in every run to come: once more, without.
		if rmErr := os.RemoveAll(filepath.Join(c.Dir, "cache")); rmErr != nil {
			return nil, errors.Join(err, rmErr)
		}
	}
}

// ops is what the checksum database's client needs from outside.
// Model: cmd/go/internal/modfetch/sumdb.go.
type ops struct {
	client *Client
	ctx    context.Context
	key    string
	name   string
	direct string // URL of the database, when it is not reached through the proxy

	mu     sync.Mutex
	failed []error // of ReadRemote
}

// remote is the error of ReadRemote that a lookup failed with, of which it tells
// only the text; nil if it failed with another.
func (o *ops) remote(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, remote := range o.failed {
		if err != nil && strings.HasSuffix(err.Error(), remote.Error()) {
			return remote
		}
	}
	return nil
}

// ReadRemote asks the proxies first, as the go command does, and then the database
// itself.
func (o *ops) ReadRemote(path string) (data []byte, err error) {
	use := func(b *body) (err error) {
		data, err = limit.ReadAll(b, 1<<20) // tiles are of 8 KiB
		return err
	}
	err = fs.ErrNotExist
	if o.direct == "" {
		err = o.client.readPath(o.ctx, "sumdb/"+o.name+path, use)
	}
	if errors.Is(err, fs.ErrNotExist) {
		var base *url.URL
		if base, err = parseURL(cmp.Or(o.direct, "https://"+o.name)); err == nil {
			err = o.client.readURL(o.ctx, base.JoinPath(path), use)
		}
	}
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.failed = append(o.failed, err)
		return nil, err
	}
	return data, nil
}

func (o *ops) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(o.key), nil
	}
	data, err := os.ReadFile(filepath.Join(o.client.Dir, "config", file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (o *ops) WriteConfig(file string, old, new []byte) error {
	o.client.mu.Lock()
	defer o.client.mu.Unlock()
	have, err := o.ReadConfig(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, old) {
		return sumdb.ErrWriteConflict
	}
	return replace(filepath.Join(o.client.Dir, "config", file), new)
}

func (o *ops) ReadCache(file string) ([]byte, error) {
	return os.ReadFile(filepath.Join(o.client.Dir, "cache", file))
}

// WriteCache keeps a tile or a lookup. What is not kept is asked for again.
func (o *ops) WriteCache(file string, data []byte) {
	_ = replace(filepath.Join(o.client.Dir, "cache", file), data)
}

func (o *ops) Log(string) {}

// SecurityError needs no action: the lookup that met it fails with the same.
func (o *ops) SecurityError(string) {}

func replace(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(name, data)
}
