package modproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

// goSumDB is the verifier key of sum.golang.org.
// Source: cmd/go/internal/modfetch/key.go.
const goSumDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

// Sum asks the checksum database for the h1 sum of a module's zip.
func (c *Client) Sum(ctx context.Context, m module.Version) (string, error) {
	c.once.Do(func() { c.db, c.dbErr = c.dial(ctx) })
	if c.dbErr != nil {
		return "", c.dbErr
	}
	lines, err := c.db.client.Lookup(m.Path, m.Version)
	if err != nil {
		if remote := c.db.ops.failure(); remote != nil {
			err = remote // which the client has only as text
		}
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

// database is the checksum database's client with its operations.
type database struct {
	client *sumdb.Client
	ops    *ops
}

func (c *Client) dial(ctx context.Context) (*database, error) {
	key, direct, _ := strings.Cut(c.SumDB, " ")
	if key == "" {
		key = goSumDB
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("checksum database: key: %w", err)
	}
	o := &ops{client: c, ctx: ctx, key: key, name: verifier.Name(), direct: direct}
	return &database{client: sumdb.NewClient(o), ops: o}, nil
}

// ops is what the checksum database's client needs from outside.
// Model: cmd/go/internal/modfetch/sumdb.go.
type ops struct {
	client *Client
	ctx    context.Context
	key    string
	name   string
	direct string // URL of the database, when it is not reached through the proxy

	mu     sync.Mutex // guards the tree head's file, and failed
	failed error
}

// failure is the error of the last request that failed.
func (o *ops) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

func (o *ops) ReadRemote(path string) ([]byte, error) {
	body, err := o.openRemote(path)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.failed = err
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, 1<<20)) // tiles are of 8 KiB
}

// openRemote asks the proxies first, as the go command does, and then the
// database itself.
func (o *ops) openRemote(path string) (*body, error) {
	direct := o.direct
	if direct == "" {
		body, err := o.client.get(o.ctx, "sumdb/"+o.name+path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return body, err
		}
		direct = "https://" + o.name
	}
	base, err := url.Parse(direct)
	if err != nil {
		return nil, err
	}
	return o.client.open(o.ctx, base.JoinPath(path))
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
	o.mu.Lock()
	defer o.mu.Unlock()
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
	tmp, err := os.CreateTemp(filepath.Dir(name), "*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once renamed
	_, err = tmp.Write(data)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
