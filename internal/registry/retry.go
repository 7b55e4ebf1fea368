package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/retry"
)

// Patience says how long a registry is given.
type Patience struct {
	// Attempts is how often a request, or the upload of a blob, is tried.
	Attempts int
	// Backoff is the wait after the first failure. It doubles with each, up to
	// 30 seconds, and varies by half of itself, so that those who failed together
	// do not come back together.
	Backoff time.Duration
	// Stall is how long a request may move no byte in either direction.
	Stall time.Duration
	// RetryAfter is the longest wait that a registry may ask for.
	RetryAfter time.Duration
}

// DefaultPatience bears a registry that is away for some fifteen seconds.
var DefaultPatience = Patience{
	Attempts:   6,
	Backoff:    500 * time.Millisecond,
	Stall:      60 * time.Second,
	RetryAfter: 2 * time.Minute,
}

// errTooLong is a registry's wish for a wait that nobody has the patience for.
var errTooLong = errors.New("too many requests")

// retrying is a RoundTripper that tries again on 408, 429 and 5xx and on failures
// of the network, as long as the request may be repeated, and that sends nothing to
// a registry before the time which that named in Retry-After.
//
// Source: RFC 9110, sections 9.2.2 (idempotent methods) and 10.2.3 (Retry-After).
type retrying struct {
	inner    http.RoundTripper
	patience Patience

	mu     sync.Mutex
	closed map[string]time.Time // by host: until when
}

// repeatable reports whether a request may be sent twice. A POST starts an upload or
// asks for a token, and twice is harmless; what follows in an upload depends on what
// the registry already has, so that an upload begins anew as a whole.
func repeatable(method, path string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodPost || method == http.MethodDelete ||
		method == http.MethodPut && strings.Contains(path, "/manifests/")
}

func (t *retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	policy := retry.Policy{Attempts: t.patience.Attempts, Backoff: t.patience.Backoff}
	if !repeatable(req.Method, req.URL.Path) || req.Body != nil && req.GetBody == nil {
		policy.Attempts = 1
	}
	ctx := req.Context()
	var resp *http.Response
	err := policy.Do(ctx, func(last bool) (again bool, err error) {
		try, err := fresh(req)
		if err != nil {
			return false, err
		}
		if err := t.hold(ctx, req.URL.Host); err != nil {
			closeBody(try)
			return false, err
		}
		if resp, err = t.inner.RoundTrip(try); err != nil {
			return ctx.Err() == nil && !hopeless(err), err
		}
		if err = t.note(req.URL.Host, resp); err == nil && (last || !temporary(resp.StatusCode)) {
			return false, nil
		}
		drop(resp)
		resp = nil
		return err == nil, err
	})
	return resp, err
}

// fresh is a copy of a request with a body that nobody has read from. What comes
// here again, because a token had expired, has had its body read.
func fresh(req *http.Request) (*http.Request, error) {
	c := req.Clone(req.Context())
	if req.GetBody == nil {
		return c, nil
	}
	closeBody(req)
	var err error
	c.Body, err = req.GetBody()
	return c, err
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// drop reads the rest of a short answer, so that the connection can be used again.
func drop(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

func temporary(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests ||
		status >= 500 && status != http.StatusNotImplemented
}

// hopeless reports whether an error of the network will stay the same.
func hopeless(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	dns, ok := errors.AsType[*net.DNSError](err)
	stays := []error{errPlain, errPassword, limit.Err, errTooLong, image.ErrCorrupt, http.ErrSchemeMismatch}
	return slices.ContainsFunc(stays, func(e error) bool { return errors.Is(err, e) }) ||
		certificate || ok && dns.IsNotFound
}

// note remembers until when a registry wants to be left alone.
func (t *retrying) note(host string, resp *http.Response) error {
	wait := retryAfter(resp)
	if wait > t.patience.RetryAfter {
		return fmt.Errorf("%s: %w: it asks to wait %s, more than %s", host, errTooLong, wait.Round(time.Second), t.patience.RetryAfter)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := time.Now().Add(wait); until.After(t.closed[host]) {
		if t.closed == nil {
			t.closed = map[string]time.Time{}
		}
		t.closed[host] = until
	}
	return nil
}

// hold waits until the registry may be asked.
func (t *retrying) hold(ctx context.Context, host string) error {
	for {
		t.mu.Lock()
		wait := time.Until(t.closed[host])
		t.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		if err := retry.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// retryAfter is the wait that an answer asks for, in seconds or until a date.
func retryAfter(resp *http.Response) time.Duration {
	if !temporary(resp.StatusCode) {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return time.Until(date)
}
