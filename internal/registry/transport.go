package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/redact"
)

// lacking is a context for requests about blobs that a registry is known to lack.
func lacking(ctx context.Context) context.Context { return context.WithValue(ctx, lackingKey{}, true) }

type lackingKey struct{}

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

// encrypted is a RoundTripper that refuses plain HTTP, except of a registry on this machine
// and to the host for which somebody asked for it, and that sends no password even there:
// what a registry gives to anybody can be had. A registry elsewhere may not send the client
// to this machine, whose services may trust whoever asks from here. go-containerregistry goes over to plain HTTP
// for private addresses and names in .local, and takes passwords along.
//
// It learns secrets from the requests that bear them: tokens are got from registries, out
// of our sight.
type encrypted struct {
	inner   http.RoundTripper
	secrets *redact.Secrets
	local   bool   // the registry is on this machine
	plain   string // the host that may be spoken to without encryption
	secret  bool   // what authorizes is a password, or a token that was given for one
}

func (t *encrypted) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, credentials, ok := strings.Cut(req.Header.Get("Authorization"), " "); ok {
		t.secrets.Add(strings.TrimSpace(credentials))
	}
	if req.URL.Scheme == "https" || t.local && loopback(req.URL.Hostname()) {
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

// EngineLoopback is what a container on a Dagger Engine calls the loopback of the machine that
// drives it. Other names in .localhost are what a resolver or a proxy makes of them.
const EngineLoopback = "client.localhost"

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || host == EngineLoopback || ip != nil && ip.IsLoopback()
}

// maxRedirects is how often an answer may send the client elsewhere. go-containerregistry,
// which checks where to, does not count.
const maxRedirects = 10

// blobKey is that of a context for requests that may be answered with a blob. A registry may
// send a request for something else, a token or another page of tags, to a blob's address.
type blobKey struct{}

// The paths of a blob and of the referrers API.
var (
	blobPath      = regexp.MustCompile(`^/v2/.+/blobs/[a-z0-9]+:[0-9a-f]+$`)
	referrersPath = regexp.MustCompile(`^/v2/.+/referrers/[a-z0-9]+:[0-9a-f]+$`)
)

// judging is a RoundTripper that keeps from go-containerregistry what it makes the wrong
// thing of.
//
// It answers 404 when that is about to ask once more for a blob that is known to be
// lacking, and for a registry without referrers API, whatever that says itself: ghcr.io
// sends a client to a web page, others do not know the method. Only an index is an answer.
// It breaks off what is too large to be kept in memory and is no blob, whatever the answer
// says of its size.
//
// Source: OCI distribution specification, v1.1, listing referrers.
type judging struct{ inner http.RoundTripper }

func (t *judging) RoundTrip(req *http.Request) (*http.Response, error) {
	head := req.Method == http.MethodHead
	if head && strings.Contains(req.URL.Path, "/blobs/") && req.Context().Value(lackingKey{}) != nil {
		return notFoundAnswer(req), nil
	}
	first, hops := req, 0 // before registries sent it on to where they keep their blobs
	for ; first.Response != nil && first.Response.Request != nil; hops++ {
		first = first.Response.Request
	}
	if hops > maxRedirects {
		return nil, fmt.Errorf("%s: more than %d redirects", req.URL.Host, maxRedirects)
	}
	resp, err := t.inner.RoundTrip(req)
	if err != nil || head {
		return resp, err
	}
	s := resp.StatusCode
	if referrersPath.MatchString(req.URL.Path) {
		kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
		switch {
		case s == http.StatusOK && types.MediaType(strings.TrimSpace(kind)) == types.OCIImageIndex:
			resp.Header.Set("Content-Type", string(types.OCIImageIndex))
		case s == http.StatusUnauthorized, s == http.StatusForbidden, temporary(s):
		default:
			drop(resp)
			return notFoundAnswer(req), nil
		}
	}
	if s == http.StatusOK && req.Context().Value(blobKey{}) != nil && blobPath.MatchString(first.URL.Path) && first.URL.RawQuery == "" {
		return resp, nil
	}
	if resp.ContentLength > image.MaxManifest && s < 300 {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: the answer is %w: %d bytes", req.URL.Host, limit.Err, resp.ContentLength)
	}
	resp.Body = limit.ReadCloser(resp.Body, image.MaxManifest)
	return resp, nil
}
