// Package modproxy fetches Go modules without a go command: it speaks the module
// proxy protocol and asks the checksum database, a transparency log, for every
// module it fetches.
//
// It promises that a tree it has put in place is the module that the checksum
// database knows and that the caller's sum names. It does not resolve versions or
// dependencies.
//
// Protocol: https://go.dev/ref/mod#goproxy-protocol.
package modproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
)

// DefaultProxy is where modules come from when GOPROXY says nothing.
const DefaultProxy = "https://proxy.golang.org"

// A Client fetches modules. Its fields are set before its first use.
type Client struct {
	// Proxies is a list in GOPROXY's form: http(s) and file URLs, separated by
	// commas or bars. It decides about transport only: what comes is checked.
	Proxies string
	// SumDB is the checksum database in GOSUMDB's form: a verifier key, and
	// optionally a URL. Empty means sum.golang.org.
	SumDB string
	// Dir is where the checksum database's tree head and tiles are kept.
	Dir string
	// Temp is where files are kept while they are fetched, on the file system of
	// what is fetched.
	Temp string
	// Transport is what requests go through; nil means http.DefaultTransport.
	Transport http.RoundTripper

	once  sync.Once
	db    *database
	dbErr error
}

// ErrUnreachable says that no proxy gave an answer.
var ErrUnreachable = errors.New("module proxy cannot be reached")

// tries is how often a request is sent before its error counts.
const tries = 4

// body is an answer: its content, the URL it is from, and its size in bytes, -1
// for unknown.
type body struct {
	io.ReadCloser
	from string
	size int64
}

// get opens the file at path on the first proxy that has it. As in the go
// command, a comma passes on a 404 or 410 only, a bar passes on any error.
func (c *Client) get(ctx context.Context, path string) (*body, error) {
	proxies, list := c.Proxies, c.Proxies
	if proxies == "" {
		proxies, list = DefaultProxy, DefaultProxy
	}
	var last error
	for proxies != "" {
		proxy, rest, any := proxies, "", false
		if i := strings.IndexAny(proxies, ",|"); i >= 0 {
			proxy, rest, any = proxies[:i], proxies[i+1:], proxies[i] == '|'
		}
		proxies = rest
		proxy = strings.TrimSpace(proxy)
		if proxy == "" || proxy == "direct" {
			continue // a toolchain has no repository to go to directly
		}
		if proxy == "off" {
			break
		}
		base, err := url.Parse(proxy)
		if err != nil {
			return nil, fmt.Errorf("GOPROXY: %w", err)
		}
		from := base.JoinPath(path)
		body, err := c.open(ctx, from)
		if err == nil {
			return body, nil
		}
		last = err
		if !any && !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if last == nil {
		return nil, fmt.Errorf("%s: GOPROXY=%s names no module proxy; set GOPROXY=%s or one of your own", path, list, DefaultProxy)
	}
	return nil, last
}

// open opens one URL, trying again after a fault that may pass.
func (c *Client) open(ctx context.Context, from *url.URL) (*body, error) {
	if from.Scheme == "file" {
		f, err := os.Open(filepath.FromSlash(from.Path))
		if err != nil {
			return nil, err
		}
		return &body{ReadCloser: f, from: from.Redacted(), size: -1}, nil
	}
	client := http.Client{Transport: c.Transport}
	var last error
	for try := range tries {
		if try > 0 {
			pause := time.Duration(1<<try)*250*time.Millisecond + rand.N(250*time.Millisecond)
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(pause):
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			last = fmt.Errorf("%w: %w", ErrUnreachable, redact(err, from))
			continue
		}
		if resp.StatusCode == http.StatusOK {
			return &body{ReadCloser: resp.Body, from: from.Redacted(), size: resp.ContentLength}, nil
		}
		resp.Body.Close()
		last = fmt.Errorf("%s: %s", from.Redacted(), resp.Status)
		switch {
		case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
			return nil, fmt.Errorf("%w: %w", last, fs.ErrNotExist)
		case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		default:
			return nil, last
		}
	}
	return nil, fmt.Errorf("%w (tried %d times)", last, tries)
}

// redact drops a password in the URL from the error of an HTTP request.
func redact(err error, from *url.URL) error {
	var uerr *url.Error
	if errors.As(err, &uerr) {
		return fmt.Errorf("%s: %w", from.Redacted(), uerr.Err)
	}
	return err
}

// file is the path of one of a version's files on a proxy.
func file(m module.Version, ext string) (string, error) {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return "", err
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return "", err
	}
	return path + "/@v/" + version + ext, nil
}
