// Package registrytest runs registries on loopback for tests: that of
// github.com/distribution/distribution as a process of its own, which has no referrers API, and
// go-containerregistry's in memory, which has one.
package registrytest

import (
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
)

// Options say what a registry is like.
type Options struct {
	// Username and Password are for basic authentication; both empty for none.
	Username, Password string
	// Tokens makes the registry in memory want a token, which its token server gives
	// for the password. A token is good for so many requests; 0 is for no tokens.
	Tokens int
	// TLS serves HTTPS with a certificate of the CA in Registry.CA.
	TLS bool
	// Dir is Distribution's storage; empty for a temporary folder.
	Dir string
	// NoReferrers leaves the referrers API out of the registry in memory.
	NoReferrers bool
}

// A Registry is a running registry.
type Registry struct {
	// Host is its address, 127.0.0.1:port.
	Host string
	// CA is the name of a PEM file with the CA that signed its certificate, for
	// SSL_CERT_FILE; empty without TLS.
	CA string
	// Transport trusts the CA.
	Transport http.RoundTripper

	options Options
	mu      sync.Mutex
	log     []Request
	tokens  map[string]int // how many requests each is good for
	logs    bool           // by another process
	marked  string         // the last mark in the log
}

// A Request is one that a registry has answered.
type Request struct {
	Method, Path string
	Status       int
}

func (r Request) String() string { return fmt.Sprintf("%s %s %d", r.Method, r.Path, r.Status) }

// upload matches the requests that carry a blob.
var upload = regexp.MustCompile(`^(POST|PATCH|PUT) /v2/.+/blobs/uploads/`)

// Uploads reports whether the request is part of the upload of a blob.
func (r Request) Uploads() bool { return upload.MatchString(r.Method + " " + r.Path) }

// Repository is the full name of a repository of the registry.
func (r *Registry) Repository(name string) string { return r.Host + "/" + name }

// URL is the registry's address with its scheme.
func (r *Registry) URL() *url.URL {
	u := &url.URL{Scheme: "http", Host: r.Host}
	if r.options.TLS {
		u.Scheme = "https"
	}
	return u
}

// Requests are those answered since the start, or since Forget, in their order.
func (r *Registry) Requests() []Request {
	r.sync()
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.log...)
}

// Forget forgets the requests.
func (r *Registry) Forget() {
	r.sync()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

// mark begins a path that is asked for only to find it in the log.
const mark = "/v2/?mark="

// sync waits until the log, which another process may write, has all requests.
func (r *Registry) sync() {
	if !r.logs {
		return
	}
	u := r.URL().String() + mark + rand.Text()
	resp, err := (&http.Client{Transport: r.Transport, Timeout: time.Minute}).Get(u)
	if err != nil {
		return // the test has ended the registry
	}
	resp.Body.Close()
	for range 60_000 {
		r.mu.Lock()
		seen := r.marked
		r.mu.Unlock()
		if strings.HasSuffix(u, seen) && seen != "" {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *Registry) record(q Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.HasPrefix(q.Path, mark) {
		r.marked = q.Path
		return
	}
	r.log = append(r.log, q)
}

// Keychain has the credentials of the given registries.
func Keychain(registries ...*Registry) authn.Keychain {
	k := keychain{}
	for _, r := range registries {
		if r.options.Username != "" {
			k[r.Host] = authn.FromConfig(authn.AuthConfig{Username: r.options.Username, Password: r.options.Password})
		}
	}
	return k
}

type keychain map[string]authn.Authenticator

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if a, ok := k[r.RegistryStr()]; ok {
		return a, nil
	}
	return authn.Anonymous, nil
}

// Memory runs go-containerregistry's registry in this process until the test ends.
func Memory(t testing.TB, o Options) *Registry {
	t.Helper()
	r := &Registry{options: o, Transport: http.DefaultTransport}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(!o.NoReferrers))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { r.record(Request{req.Method, req.URL.RequestURI(), sw.status}) }()
		if req.URL.Path == "/token" && r.password(req) {
			fmt.Fprintf(sw, `{"token":%q}`, r.newToken())
			return
		}
		if !r.authorized(req) {
			sw.Header().Set("WWW-Authenticate", r.challenge(req))
			http.Error(sw, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(sw, req)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if o.TLS {
		cert := newCertificate(t)
		s.TLS, r.CA, r.Transport = cert.config(), cert.ca, cert.transport
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	r.Host = strings.TrimPrefix(strings.TrimPrefix(s.URL, "http://"), "https://")
	return r
}

func (r *Registry) password(req *http.Request) bool {
	user, pass, _ := req.BasicAuth()
	return user == r.options.Username && pass == r.options.Password
}

// authorized reports whether a request may go on, and counts the use of its token.
func (r *Registry) authorized(req *http.Request) bool {
	if r.options.Tokens == 0 {
		return r.password(req)
	}
	_, token, _ := strings.Cut(req.Header.Get("Authorization"), "Bearer ")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens[token] == 0 {
		return false
	}
	r.tokens[token]--
	return true
}

func (r *Registry) newToken() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens == nil {
		r.tokens = map[string]int{}
	}
	token := "token-" + rand.Text()
	r.tokens[token] = r.options.Tokens
	return token
}

// Tokens are all that were given.
func (r *Registry) Tokens() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.tokens))
}

// challenge says how to log in.
func (r *Registry) challenge(req *http.Request) string {
	if r.options.Tokens == 0 {
		return `Basic realm="test"`
	}
	realm := &url.URL{Scheme: r.URL().Scheme, Host: req.Host, Path: "/token"}
	return fmt.Sprintf(`Bearer realm="%s",service="test"`, realm)
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
