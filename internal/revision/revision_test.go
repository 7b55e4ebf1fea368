package revision

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// TestFindRefuses guards against a proxy that refuses, whose answer is taken for that of one
// which knows that there is no such release; and against an answer that is of something else.
func TestFindRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		status  int
		answer  string
		unknown bool
		says    string
	}{
		"none":            {http.StatusNotFound, "", true, "404"},
		"refused":         {http.StatusForbidden, "", false, "403"},
		"a real version":  {http.StatusOK, `{"Version": "v1.0.0"}`, true, `answers with version "v1.0.0"`},
		"from a branch":   {http.StatusOK, `{"Version": "v0.0.0-20260901000000-0123456789ab", "Origin": {"Ref": "refs/heads/1.102.3-r1"}}`, true, "which is not that tag"},
		"of another form": {http.StatusOK, `{"Version": "../../x"}`, false, "../../x"},
	} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.WriteHeader(test.status)
			w.Write([]byte(test.answer))
		}))
		defer proxy.Close()
		dir := t.TempDir()
		r, err := Find(t.Context(), &modproxy.Client{Proxies: proxy.URL, Dir: dir, Temp: dir}, lock.ImageVersion{Tailscale: "v1.102.3", Revision: 1})
		if err == nil || errors.Is(err, ErrUnknown) != test.unknown || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want one that says %q, unknown: %v", name, err, test.says, test.unknown)
		}
		if r.Sum != "" || r.Tag != "1.102.3-r1" {
			t.Errorf("%s: found %+v", name, r)
		}
	}
}
