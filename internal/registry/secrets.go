package registry

import (
	"net/http"
	"strings"

	"github.com/xavieralpha/derper/internal/redact"
)

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
