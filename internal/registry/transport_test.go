package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/redact"
	"github.com/xavieralpha/derper/internal/stall"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// TestPlainHTTP guards that nothing goes over a line that is not encrypted because an
// address is private, and no password because somebody asked for plain HTTP: only to this
// machine, and there only for a registry on it: another one does not choose what a request
// from this machine asks its services.
func TestPlainHTTP(t *testing.T) {
	for _, local := range []bool{false, true} {
		testPlainHTTP(t, local)
	}
}

func testPlainHTTP(t *testing.T, local bool) {
	for host, want := range map[string]bool{"http://10.0.0.1:5000": false, "http://registry.local": false, "http://127.0.0.1:5000": true, "http://[::1]": true, "http://client.localhost:5000": true, "http://other.localhost:5000": false, "http://localhost.example": false, "https://10.0.0.1": true, "http://asked.example": true} {
		want = want && (local || strings.HasPrefix(host, "https:") || host == "http://asked.example")
		for what, header := range map[string]http.Header{
			"nothing":    {},
			"a password": {"Authorization": {"Basic eA=="}},
			"a form":     {"Content-Type": {"application/x-www-form-urlencoded"}},
		} {
			for _, secret := range []bool{false, true} {
				sent, authorized := false, false
				rt := &encrypted{
					inner: roundTripper(func(req *http.Request) (*http.Response, error) {
						sent, authorized = true, req.Header.Get("Authorization") != ""
						return nil, bytes.ErrTooLarge
					}),
					local: local, plain: "asked.example", secret: secret, secrets: new(redact.Secrets),
				}
				req := request(t, http.MethodGet, host, nil)
				req.Header = header
				_, err := rt.RoundTrip(req)
				clear := host == "http://asked.example" && secret
				if want := want && (!clear || what != "a form"); sent != want || !sent && !errors.Is(err, errPlain) && !errors.Is(err, errPassword) {
					t.Errorf("%s with %s, secret %v: sent %v, want %v (%v)", host, what, secret, sent, want, err)
				}
				if want := sent && !clear && what == "a password"; authorized != want {
					t.Errorf("%s with %s, secret %v: password sent: %v, want %v", host, what, secret, authorized, want)
				}
			}
		}
	}
}

// elsewhere is a transport by which any host is one server, and its record of what came
// to each. It is what a private address is in the tests.
type elsewhere struct {
	server string
	mu     sync.Mutex
	seen   []string // scheme, host and authorization
}

func (e *elsewhere) RoundTrip(req *http.Request) (*http.Response, error) {
	e.mu.Lock()
	e.seen = append(e.seen, req.URL.Scheme+" "+req.URL.Host+" "+req.Header.Get("Authorization"))
	e.mu.Unlock()
	if req.URL.Scheme == "https" {
		return nil, http.ErrSchemeMismatch // it has no TLS
	}
	there := req.Clone(req.Context())
	there.URL.Host = e.server
	return http.DefaultTransport.RoundTrip(there)
}

// TestPasswordInTheClear guards the whole way: a registry at a private address, which has
// no TLS, never sees a password, and is told about; without one it serves whoever names it
// as http://HOST.
func TestPasswordInTheClear(t *testing.T) {
	for name, options := range map[string]registrytest.Options{
		"password": {Username: "ann", Password: password},
		"token":    {Username: "ann", Password: password, Tokens: 40},
		"public":   {},
	} {
		t.Run(name, func(t *testing.T) {
			server := registrytest.Memory(t, options)
			public := options.Username == ""
			if public {
				push(t, newClient(nil, server), planFor(t, registrytest.NewRelease(t, "v1.102.3", 100), server.Repository("derper")))
			}
			for _, host := range []string{"10.1.2.3:5000", "registry.local"} {
				for _, scheme := range []string{"", "http://"} {
					for _, rights := range []Rights{Pull, Push} {
						base := &elsewhere{server: server.Host}
						c := &Client{Patience: hasty, Base: base, Keychain: everywhere{authn.FromConfig(authn.AuthConfig{Username: "ann", Password: password})}}
						r, err := c.Open(t.Context(), scheme+host+"/derper:latest", rights)
						if err == nil {
							_, err = r.Resolve(t.Context())
						}
						want := errPlain
						if scheme != "" {
							want = errPassword
						}
						// There is TLS or nothing at a name.
						noTLS := scheme == "" && errors.Is(err, http.ErrSchemeMismatch)
						if works := public && scheme != ""; works != (err == nil) || !works && !errors.Is(err, want) && !noTLS {
							t.Errorf("%s%s: %v", scheme, host, err)
						}
						if err != nil && !strings.Contains(err.Error(), host) {
							t.Errorf("does not name the registry: %v", err)
						}
						for _, seen := range base.seen {
							if !strings.HasSuffix(seen, " ") || scheme == "" && strings.HasPrefix(seen, "http ") {
								t.Errorf("%s%s: sent %s", scheme, host, seen)
							}
						}
					}
				}
			}
		})
	}
}

type everywhere struct{ authn.Authenticator }

func (k everywhere) Resolve(authn.Resource) (authn.Authenticator, error) { return k.Authenticator, nil }

// TestRights guards what a token server is asked for: a public image must be had by
// somebody without a password, to whom it refuses the right to push.
func TestRights(t *testing.T) {
	server := registrytest.Memory(t, registrytest.Options{})
	push(t, newClient(nil, server), planFor(t, registrytest.NewRelease(t, "v1.102.3", 100), server.Repository("derper")))
	var scopes []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/token":
			asked := req.URL.Query()["scope"]
			scopes = append(scopes, asked...)
			if slices.ContainsFunc(asked, func(s string) bool { return !strings.HasSuffix(s, ":pull") }) {
				http.Error(w, `{"errors":[{"code":"DENIED","message":"log in first"}]}`, http.StatusForbidden)
				return
			}
			io.WriteString(w, `{"token":"public"}`)
		case req.Header.Get("Authorization") != "Bearer public":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, req.Host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			req.URL.Scheme, req.URL.Host = "http", server.Host
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			defer resp.Body.Close()
			for name, values := range resp.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(resp.StatusCode)
			io.Copy(w, resp.Body)
		}
	}))
	defer s.Close()
	ref := strings.TrimPrefix(s.URL, "http://") + "/derper:latest"
	r, err := (&Client{Patience: hasty}).Open(t.Context(), ref, Pull)
	if err != nil {
		t.Fatal(err)
	}
	top, err := r.Resolve(t.Context())
	if err == nil {
		_, err = image.IndexOf(t.Context(), r, top)
	}
	if err != nil || !slices.Equal(slices.Compact(scopes), []string{"repository:derper:pull"}) {
		t.Errorf("asked for %q: %v", scopes, err)
	}
	if _, err := (&Client{Patience: hasty}).Open(t.Context(), ref, Push); !Denied(err) {
		t.Errorf("to push without a password: %v", err)
	}
}

// TestSilence guards that a registry which takes a connection and says nothing, from the
// start or in the middle of a blob, is given up, whatever is wanted of it.
func TestSilence(t *testing.T) {
	digest := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	var silent atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/blobs/") {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
		}
		if silent.Load() || strings.Contains(req.URL.Path, "/blobs/") {
			<-req.Context().Done()
		}
	}))
	defer s.Close()
	c := &Client{Patience: Patience{Attempts: 2, Backoff: time.Millisecond, Stall: 100 * time.Millisecond}}
	ref := strings.TrimPrefix(s.URL, "http://") + "/derper:1"
	r, err := c.Open(t.Context(), ref, Pull)
	for range 20 { // a busy machine can be silent for as long
		if err == nil {
			break
		}
		r, err = c.Open(t.Context(), ref, Pull)
	}
	if err != nil {
		t.Fatal(err)
	}
	silence := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, stall.Err) || !Unreachable(err) && !strings.Contains(what, "blob") {
			t.Errorf("%s: %v", what, err)
		}
	}
	silence("blob", readAll(r.Blob(t.Context(), digest)))
	silent.Store(true)
	_, err = r.Resolve(t.Context())
	silence("resolve", err)
	_, err = r.Manifest(t.Context(), digest)
	silence("manifest", err)
	_, err = r.Artifacts(t.Context(), digest, nil)
	silence("artifacts", err)
	for _, rights := range []Rights{Pull, Push} {
		_, err = c.Open(t.Context(), ref, rights)
		silence("open", err)
	}
}

// TestSizes guards that no answer is kept in memory that has no end: neither a manifest
// nor a list, an error or what a token server gives, whatever it says of its size. A blob
// may be large.
func TestSizes(t *testing.T) {
	const most = image.MaxManifest
	endless := func(w http.ResponseWriter, status int, length string) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		if length != "" {
			w.Header().Set("Content-Length", length)
		}
		w.WriteHeader(status)
		line := bytes.Repeat([]byte(" "), 1<<16)
		for range 64 * most / len(line) {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}
	digest := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	for name, length := range map[string]string{"no length": "", "a length": fmt.Sprint(64 * most)} {
		for what, try := range map[string]struct {
			path   string
			status int
			do     func(context.Context, *Repository) error
		}{
			"a manifest":     {"/manifests/", 200, func(ctx context.Context, r *Repository) error { _, err := r.Manifest(ctx, digest); return err }},
			"a missing one":  {"/manifests/", 404, func(ctx context.Context, r *Repository) error { _, err := r.Manifest(ctx, digest); return err }},
			"a tag":          {"/manifests/", 200, func(ctx context.Context, r *Repository) error { _, err := r.read(ctx, r.ref); return err }},
			"a missing blob": {"/blobs/", 400, func(ctx context.Context, r *Repository) error { _, err := r.Blob(ctx, digest); return err }},
			"referrers":      {"/referrers/", 200, func(ctx context.Context, r *Repository) error { _, err := r.Artifacts(ctx, digest, nil); return err }},
			"a list of tags": {"/tags/", 200, func(ctx context.Context, r *Repository) error {
				_, err := r.client.Versions(ctx, r.String(), "")
				return err
			}},
			"a redirected blob": {"/blobs/", 307, func(ctx context.Context, r *Repository) error { return readAll(r.Blob(ctx, digest)) }},
		} {
			t.Run(what+" with "+name, func(t *testing.T) {
				blobs := what == "a redirected blob"
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					switch {
					case req.URL.Path == "/storage":
						endless(w, 200, length)
					case blobs && strings.Contains(req.URL.Path, try.path):
						http.Redirect(w, req, "/storage", try.status)
					case strings.Contains(req.URL.Path, try.path):
						endless(w, try.status, length)
					}
				}))
				defer s.Close()
				u, err := url.Parse(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				read := &counting{}
				r, err := (&Client{Patience: hasty, Base: read}).Open(t.Context(), u.Host+"/derper:1", Pull)
				if err != nil {
					t.Fatal(err)
				}
				err = try.do(t.Context(), r)
				switch {
				case blobs && (read.n < 64*most || err == nil || errors.Is(err, limit.Err)):
					t.Errorf("a blob: %d bytes read, %v", read.n, err)
				case !blobs && err == nil:
					t.Error("no error")
				case !blobs && try.status == 200 && !errors.Is(err, limit.Err):
					t.Error(err)
				case !blobs && errors.Is(err, limit.Err) && Unreachable(err):
					t.Errorf("a registry that says too much is taken for one that does not answer: %v", err)
				case !blobs && read.n > 2*most:
					t.Errorf("%d bytes read", read.n)
				}
			})
		}
	}
}

func readAll(rc io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(io.Discard, rc)
	return err
}

// counting counts what is read of answers.
type counting struct{ n int64 }

func (c *counting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		resp.Body = readCounter{resp.Body, &c.n}
	}
	return resp, err
}

type readCounter struct {
	io.ReadCloser
	n *int64
}

func (r readCounter) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	*r.n += int64(n)
	return n, err
}

// TestReferences guards that what is named is what was asked for, and that its name is
// accepted again, http:// and all, with a digest too.
func TestReferences(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for s, want := range map[string][3]string{ // repository, identifier, host
		"camllia/derper":                         {"docker.io/camllia/derper", "latest", "docker.io"},
		"docker.io/camllia/derper:1":             {"docker.io/camllia/derper", "1", "docker.io"},
		"index.docker.io/camllia/derper":         {"docker.io/camllia/derper", "latest", "docker.io"},
		"myindex.docker.io/camllia/derper":       {"myindex.docker.io/camllia/derper", "latest", "myindex.docker.io"},
		"ghcr.io/me/index.docker.io/x":           {"ghcr.io/me/index.docker.io/x", "latest", "ghcr.io"},
		"registry.local:5000/derper@" + digest:   {"registry.local:5000/derper", digest, "registry.local:5000"},
		"http://registry.local:5000/derper":      {"http://registry.local:5000/derper", "latest", "registry.local:5000"},
		"http://10.0.0.1/a/derper:1":             {"http://10.0.0.1/a/derper", "1", "10.0.0.1"},
		"http://registry.local/derper@" + digest: {"http://registry.local/derper", digest, "registry.local"},
	} {
		for range 2 {
			repository, identifier, err := Split(s)
			ref, perr := parse(s)
			if err != nil || perr != nil || repository != want[0] || identifier != want[1] || ref.host() != want[2] || ref.plain != strings.HasPrefix(want[0], "http://") {
				t.Errorf("%s: %s, %s, %s (%v)", s, repository, identifier, ref.host(), err)
			}
			if err := CheckName(repository); err != nil {
				t.Error(err)
			}
			separator := ":"
			if strings.Contains(identifier, ":") {
				separator = "@"
			}
			s = repository + separator + identifier
		}
	}
	for _, bad := range []string{"", "UPPER/case", "https://ghcr.io/me/derper", "http://", "ghcr.io/me/derper:"} {
		if _, _, err := Split(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []string{"ghcr.io/me/derper:1", "ghcr.io/me/derper@" + digest} {
		if err := CheckName(bad); err == nil {
			t.Errorf("repository %q is taken", bad)
		}
	}
}

// TestEmptyLinkAnswers guards that the answers of Docker's registry for an empty link are
// known from those for a fault that may pass, for its versions 2 and 3.
func TestEmptyLinkAnswers(t *testing.T) {
	var answer string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/manifests/") {
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, answer)
		}
	}))
	defer s.Close()
	c := &Client{Patience: Patience{Attempts: 1, Stall: time.Minute}}
	r, err := c.Open(t.Context(), strings.TrimPrefix(s.URL, "http://")+"/derper", Pull)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{}}]}`:                               true,
		`{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":"invalid checksum digest format"}]}`: true,
		`{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":"no space left on device"}]}`:        false,
		`{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"DriverName":"filesystem"}}]}`:      false,
		`{"errors":[{"code":"UNAVAILABLE","message":"service unavailable","detail":{}}]}`:                     false,
		`{"errors":[{"code":"UNKNOWN","message":"unknown error"}]}`:                                           false,
		`internal error`: false,
	} {
		answer = text
		if got := r.emptyLink(t.Context(), r.name.Tag("1")); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
