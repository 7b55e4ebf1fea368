package tailscaled_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// TestCheckAuthKey guards against a relay that waits for ever for a login with a key that
// is none, and against one that does not start with a key that is.
func TestCheckAuthKey(t *testing.T) {
	const secret = "kJ7cdCNTRL-s3cr3t"
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	for _, test := range []struct{ text, err string }{
		{text: ""},
		{text: "tskey-auth-" + secret},
		{text: "tskey-auth-" + secret + "--TLwrapped"},
		{text: "tskey-" + secret}, // as they were before there were kinds
		{text: "3a1bc0ffee" + secret},
		{text: "hskey-auth-" + secret},
		{text: "eyJ"},
		{text: file("tskey-auth-" + secret + "\n")},
		{"tskey-client-" + secret + "?ephemeral=false", "is an OAuth client secret, which only the tailscale command line can turn into an auth key: tailscaled cannot log in with it; make an auth key, which begins with tskey-auth-, reusable and with a tag"},
		{"tskey-api-" + secret, "is an API access token: "},
		{"tskey-scim-" + secret, "is a key of another kind (tskey-scim-…): "},
		{"eyJhbGciOiJSUzI1NiJ9.e30." + secret, "is the token of a workload identity, "},
		{file("tskey-client-" + secret + "\n"), "is an OAuth client secret"},
		{file("file:/x"), "it names a file that names a file"},
		{"file:/none/key", "the file that it names cannot be read: open /none/key: "},
	} {
		err := tailscaled.CheckAuthKey(test.text)
		if test.err == "" {
			if err != nil {
				t.Errorf("%s: %v", test.text, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.text, err, test.err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the key is in the error: %v", err)
		}
	}
}
