package main

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// denying is a registry that gives everybody a token, and refuses every write as ghcr.io does
// when a package does not let a workflow in.
type denying struct{}

func (denying) RoundTrip(req *http.Request) (*http.Response, error) {
	status, body, header := http.StatusNotFound, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, http.Header{}
	switch {
	case req.URL.Path == "/token":
		status, body = http.StatusOK, `{"token":"a-token-for-tests"}`
	case req.Header.Get("Authorization") == "":
		status, body = http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`
		header.Set("WWW-Authenticate", `Bearer realm="https://`+req.URL.Host+`/token",service="`+req.URL.Host+`",scope="repository:user/image:pull"`)
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		status, body = http.StatusForbidden, `{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}`
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: req, ProtoMajor: 1, ProtoMinor: 1}, nil
}

// TestPackageWithoutRights guards what is said of a package on ghcr.io that does not let the
// repository in: its answer names no setting, and it is not that of the workflow.
func TestPackageWithoutRights(t *testing.T) {
	made := registrytest.NewRelease(t, "v1.102.3", 1000)
	content, err := registry.Read(made.Dir, made.Lock)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"ghcr.io":              "Package settings, Manage Actions access, Add Repository, role Write",
		"registry.example.com": "log in with docker login",
	} {
		c := &registry.Client{Base: denying{}, Keychain: authn.NewMultiKeychain(), Patience: registry.Patience{Attempts: 1}}
		_, err := c.Push(t.Context(), registry.Plan{Images: []*registry.Content{content}, Repositories: []string{host + "/me/derper"}, Verify: true})
		if err == nil || !strings.Contains(err.Error(), "permission_denied: write_package") {
			t.Fatalf("%s: %v", host, err)
		}
		hint := func(list hints) string {
			said, _ := errors.AsType[*cli.Error](explain(err, list))
			if said == nil {
				return ""
			}
			return said.Hint
		}
		if got := hint(pushHints); !strings.HasPrefix(got, "no tag has moved; ") || !strings.Contains(got, want) {
			t.Errorf("%s: push: %s", host, got)
		}
		if got := hint(generalHints); strings.Contains(got, want) != (host == "ghcr.io") { // of sign, and verify
			t.Errorf("%s: %s", host, got)
		}
	}
}
