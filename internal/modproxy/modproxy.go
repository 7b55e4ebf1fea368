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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/retry"
	"github.com/xavieralpha/derper/internal/stall"
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
	// Patience is how long a server may be silent; 0 means a minute.
	Patience time.Duration

	// backoff is the wait after the first failure; 0 means half a second.
	backoff time.Duration

	mu sync.Mutex // guards the file of the checksum database's tree head
}

// ErrUnreachable says that no proxy gave an answer.
var ErrUnreachable = errors.New("module proxy cannot be reached")

// tries is how often a request is sent before its error counts.
const tries = 4

// read reads one of the files of a version, or of a module when m has no version.
func (c *Client) read(ctx context.Context, m module.Version, suffix string, use func(*body) error) error {
	path, err := module.EscapePath(m.Path)
	if err == nil && m.Version != "" {
		var version string
		version, err = module.EscapeVersion(m.Version)
		path += "/@v/" + version
	}
	if err != nil {
		return err
	}
	return c.readPath(ctx, path+suffix, use)
}

// readPath reads the file at path from the first proxy that has it. As in the go
// command, a comma passes on a 404 or 410 only, a bar passes on any error. After a
// transfer that broke off, use is called again and gets the file from its start.
func (c *Client) readPath(ctx context.Context, path string, use func(*body) error) error {
	proxies := strings.ReplaceAll(cmp.Or(c.Proxies, DefaultProxy), "|", "|,")
	var last error
	for proxy := range strings.SplitSeq(proxies, ",") {
		proxy, any := strings.CutSuffix(proxy, "|")
		proxy = strings.TrimSpace(proxy)
		if proxy == "" || proxy == "direct" {
			continue // a toolchain has no repository to go to directly
		}
		if proxy == "off" {
			break
		}
		base, err := parseURL(proxy)
		if err != nil {
			return fmt.Errorf("GOPROXY: %w", err)
		}
		ours := false // the fault is in use, not in the way here
		last = c.readURL(ctx, base.JoinPath(path), func(b *body) error {
			err := use(b)
			ours = err != nil && !errors.As(err, new(passing))
			return err
		})
		if last == nil || ours || ctx.Err() != nil || !any && !errors.Is(last, fs.ErrNotExist) {
			return last
		}
	}
	if last == nil {
		return fmt.Errorf("%s: GOPROXY names no module proxy; set GOPROXY=%s or one of your own", path, DefaultProxy)
	}
	return last
}

// parseURL parses a URL and refuses what nothing can be fetched from. Its errors
// do not have the URL, which may have a password.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("not a URL: %w", WithoutURL(err))
	case u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "file":
		return nil, fmt.Errorf("%s: not a URL that begins with https://, http:// or file://", u.Redacted())
	}
	return u, nil
}

// WithoutURL is an error without the URL that it is about, which may have a password.
func WithoutURL(err error) error {
	var uerr *url.Error
	if errors.As(err, &uerr) {
		return uerr.Err
	}
	return err
}

// readURL reads one URL, and again after a fault that may pass.
func (c *Client) readURL(ctx context.Context, from *url.URL, use func(*body) error) error {
	policy := retry.Policy{Attempts: tries, Backoff: cmp.Or(c.backoff, 500*time.Millisecond)}
	return policy.Do(ctx, func(last bool) (again bool, err error) {
		body, err := c.open(ctx, from)
		if err == nil {
			err = use(body)
			body.Close()
		}
		switch {
		case err == nil:
			return false, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case !errors.As(err, new(passing)):
			return false, err
		case last:
			return false, fmt.Errorf("%w (tried %d times)", err, tries)
		}
		return true, err
	})
}

// passing is a fault that may pass.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// body is an answer: its content, the URL it is from, and its size in bytes, -1
// for unknown. A Read that fails gives a passing error.
type body struct {
	io.ReadCloser
	from string
	size int64
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = passing{fmt.Errorf("%s: transfer broke off: %w", b.from, err)}
	}
	return n, err
}

// open opens one URL.
func (c *Client) open(ctx context.Context, from *url.URL) (*body, error) {
	if from.Scheme == "file" {
		f, err := os.Open(filepath.FromSlash(from.Path))
		if err != nil {
			return nil, err
		}
		return &body{f, from.Redacted(), -1}, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from.Redacted(), WithoutURL(err))
	}
	resp, err := (&http.Client{Transport: c}).Do(req)
	if err != nil {
		return nil, passing{fmt.Errorf("%w: %s: %w", ErrUnreachable, from.Redacted(), WithoutURL(err))}
	}
	if resp.StatusCode == http.StatusOK {
		return &body{resp.Body, from.Redacted(), resp.ContentLength}, nil
	}
	resp.Body.Close()
	err = fmt.Errorf("%s: %s", from.Redacted(), resp.Status)
	switch {
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return nil, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		return nil, passing{err}
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnavailableForLegalReasons:
		return nil, refused{err}
	}
	return nil, err
}

// RoundTrip sends a request as those to proxies are sent: a server that is silent for
// longer than Patience, or hardly says anything, is given up.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	t := stall.Transport{Inner: http.DefaultTransport, After: cmp.Or(c.Patience, time.Minute), Rate: stall.Rate}
	return t.RoundTrip(req)
}
