package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/redact"
	"github.com/xavieralpha/derper/internal/stall"
)

// newTransport is the way to registries. What is nearest to the network comes last:
// go-containerregistry authenticates on top of it, so that a request which comes
// again with a new token is one to all below.
func newTransport(base http.RoundTripper, p Patience, s *redact.Secrets) http.RoundTripper {
	t := base
	t = &listening{inner: t, secrets: s}
	t = &stall.Transport{Inner: t, After: p.Stall}
	t = &limiting{inner: t}
	t = &retrying{inner: t, patience: p}
	t = &referring{inner: t}
	return &presuming{inner: t}
}

// lacking is a context for requests about blobs that a registry is known to lack.
func lacking(ctx context.Context) context.Context { return context.WithValue(ctx, lackingKey{}, true) }

type lackingKey struct{}

// presuming is a RoundTripper that answers 404 when go-containerregistry is about to
// ask once more for a blob that is known to be lacking.
type presuming struct{ inner http.RoundTripper }

func (t *presuming) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodHead && strings.Contains(req.URL.Path, "/blobs/") && req.Context().Value(lackingKey{}) != nil {
		return notFoundAnswer(req), nil
	}
	return t.inner.RoundTrip(req)
}

func notFoundAnswer(req *http.Request) *http.Response {
	return &http.Response{
		Status:     "404 Not Found",
		StatusCode: http.StatusNotFound,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:  http.Header{},
		Body:    http.NoBody,
		Request: req,
	}
}

// What is refused over a connection that is not encrypted.
var (
	errPlain    = errors.New("plain HTTP only to this machine, and to a registry named as http://HOST")
	errPassword = errors.New("it asks for a password over plain HTTP: passwords go only over TLS, or to this machine")
)

// encrypted is a RoundTripper that refuses plain HTTP, except to this machine and to
// the host for which somebody asked for it, and that sends no password even there: what
// a registry gives to anybody can be had. go-containerregistry goes over to plain HTTP
// for private addresses and names in .local, and takes passwords along.
type encrypted struct {
	inner  http.RoundTripper
	plain  string // the host that may be spoken to without encryption
	secret bool   // what authorizes is a password, or a token that was given for one
}

func (t *encrypted) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" || loopback(req.URL.Hostname()) {
		return t.inner.RoundTrip(req)
	}
	err := errPlain
	if req.URL.Host == t.plain {
		// A token is also asked for with the password in a form.
		form := strings.HasPrefix(req.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
		if !t.secret || req.Header.Get("Authorization") == "" && !form {
			return t.inner.RoundTrip(req)
		}
		if err = errPassword; !form {
			anybody := req.Clone(req.Context())
			anybody.Header.Del("Authorization")
			resp, err := t.inner.RoundTrip(anybody)
			if err != nil || resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
				return resp, err
			}
			drop(resp)
		}
	}
	closeBody(req)
	return nil, fmt.Errorf("%s: %w", req.URL.Host, err)
}

// loopback reports whether a host is this machine. Names in .localhost are (RFC 6761,
// section 6.3); a Dagger Engine gives one to the loopback of the machine that drives it.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// errTooLarge says that an answer has no end in sight.
var errTooLarge = fmt.Errorf("the answer has more than %d MiB", image.MaxManifest>>20)

// blobPath matches the path of a blob.
var blobPath = regexp.MustCompile(`^/v2/.+/blobs/[a-z0-9]+:[0-9a-f]+$`)

// limiting is a RoundTripper that breaks off what is too large to be kept in memory and
// is no blob, whatever the answer says of its size.
type limiting struct{ inner http.RoundTripper }

func (t *limiting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(req)
	if err != nil || req.Method == http.MethodHead {
		return resp, err
	}
	first := req // before registries sent it on to where they keep their blobs
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	if resp.StatusCode == http.StatusOK && blobPath.MatchString(first.URL.Path) {
		return resp, nil
	}
	if resp.ContentLength > image.MaxManifest && resp.StatusCode < 300 {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %w", req.URL.Host, errTooLarge)
	}
	resp.Body = &limited{resp.Body, req.URL.Host, image.MaxManifest}
	return resp, nil
}

type limited struct {
	io.ReadCloser
	host string
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		l.Close() // not everybody does, after an error
		return 0, fmt.Errorf("%s: %w", l.host, errTooLarge)
	}
	return n, err
}

// listening is a RoundTripper that learns secrets from the requests that bear them:
// tokens are got from registries, out of our sight.
type listening struct {
	inner   http.RoundTripper
	secrets *redact.Secrets
}

func (t *listening) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, credentials, ok := strings.Cut(req.Header.Get("Authorization"), " "); ok {
		t.secrets.Add(strings.TrimSpace(credentials))
	}
	return t.inner.RoundTrip(req)
}

// referrersPath matches the path of the referrers API.
var referrersPath = regexp.MustCompile(`^/v2/.+/referrers/[a-z0-9]+:[0-9a-f]+$`)

// referring is a RoundTripper that answers 404 for a registry without referrers API,
// whatever that says itself: ghcr.io sends a client to a web page, others do not know
// the method. Only an index is an answer.
//
// Source: OCI distribution specification, v1.1, listing referrers.
type referring struct{ inner http.RoundTripper }

func (t *referring) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(req)
	if err != nil || !referrersPath.MatchString(req.URL.Path) {
		return resp, err
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	switch s := resp.StatusCode; {
	case s == http.StatusOK && types.MediaType(strings.TrimSpace(kind)) == types.OCIImageIndex:
		resp.Header.Set("Content-Type", string(types.OCIImageIndex))
		return resp, nil
	case s == http.StatusUnauthorized, s == http.StatusForbidden, temporary(s):
		return resp, nil
	}
	drop(resp)
	return notFoundAnswer(req), nil
}
