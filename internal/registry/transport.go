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
)

// newTransport is the way to registries. What is nearest to the network comes last:
// go-containerregistry authenticates on top of it, so that a request which comes
// again with a new token is one to all below.
func newTransport(base http.RoundTripper, p Patience, s *secrets, plain func(host string) bool) http.RoundTripper {
	t := base
	t = &encrypted{inner: t, except: plain}
	t = &listening{inner: t, secrets: s}
	t = &stalling{inner: t, after: p.Stall}
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

// errPlain says that a registry would have been spoken to without encryption.
var errPlain = errors.New("plain HTTP only to this machine, and to a registry named as http://HOST")

// encrypted is a RoundTripper that refuses plain HTTP, except to this machine and to
// the hosts for which somebody asked for it. go-containerregistry goes over to plain
// HTTP for private addresses and names in .local, and takes passwords along.
type encrypted struct {
	inner  http.RoundTripper
	except func(host string) bool
}

func (t *encrypted) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !loopback(req.URL.Hostname()) && !t.except(req.URL.Host) {
		closeBody(req)
		return nil, fmt.Errorf("%s: %w", req.URL.Host, errPlain)
	}
	return t.inner.RoundTrip(req)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
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
