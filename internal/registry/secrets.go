package registry

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
)

// secrets are the passwords and tokens that have been used. A registry may put what
// it was sent into an error; nothing that is in here is ever part of one of ours.
type secrets struct {
	mu   sync.Mutex
	list []string // longest first
}

func (s *secrets) add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		for _, form := range []string{v, url.QueryEscape(v), base64.StdEncoding.EncodeToString([]byte(v))} {
			if v != "" && !slices.Contains(s.list, form) {
				s.list = append(s.list, form)
			}
		}
	}
	slices.SortFunc(s.list, func(a, b string) int { return len(b) - len(a) })
}

// addAuth adds what a keychain gave.
func (s *secrets) addAuth(a authn.AuthConfig) {
	s.add(a.Password, a.Auth, a.IdentityToken, a.RegistryToken)
	if a.Username != "" && a.Password != "" {
		s.add(a.Username + ":" + a.Password)
	}
}

// tokenAnswer is how go-containerregistry begins to quote an answer that may have a
// token of another kind in it.
const tokenAnswer = "no token in bearer response:"

// longest is how much of an error is worth reading, in bytes: a proxy between may
// answer with a web page.
const longest = 1000

// redact is err on one line, with its secrets blackened.
func (s *secrets) redact(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	said := err.Error()
	clean := said
	for _, v := range s.list {
		clean = strings.ReplaceAll(clean, v, "[secret]")
	}
	if before, _, ok := strings.Cut(clean, tokenAnswer); ok {
		clean = before + "no token in the answer of the token server"
	}
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) > longest {
		clean = strings.ToValidUTF8(clean[:longest], "") + "…"
	}
	if clean == said {
		return err
	}
	return &redacted{clean, err}
}

// redacted is an error that says less than the one that it wraps.
type redacted struct {
	said string
	err  error
}

func (e *redacted) Error() string { return e.said }
func (e *redacted) Unwrap() error { return e.err }

// listening is a RoundTripper that learns secrets from the requests that bear them:
// tokens are got from registries, out of our sight.
type listening struct {
	inner   http.RoundTripper
	secrets *secrets
}

func (t *listening) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, credentials, ok := strings.Cut(req.Header.Get("Authorization"), " "); ok {
		t.secrets.add(strings.TrimSpace(credentials))
	}
	return t.inner.RoundTrip(req)
}
