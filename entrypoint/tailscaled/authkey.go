package tailscaled

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// CheckAuthKey says why tailscaled cannot log in with a text; nil if it may.
// It does not ask the control server. The kinds of Tailscale's keys are at
// https://tailscale.com/kb/1277/key-secret-management; those of other control
// servers look like anything. An error never has the key in it.
func CheckAuthKey(text string) error {
	// This one tailscaled resolves itself, in its configuration file.
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("the file that it names cannot be read: %w", err)
		}
		if text = strings.TrimSpace(string(b)); strings.HasPrefix(text, "file:") {
			return errors.New("it names a file that names a file; put the key in there")
		}
	}
	what := ""
	switch kind := keyKind(text); {
	case kind == "client":
		what = "an OAuth client secret, which only the tailscale command line can turn into an auth key"
	case kind == "api":
		what = "an API access token"
	case kind != "" && kind != "auth":
		what = "a key of another kind (tskey-" + kind + "-…)"
	case strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2:
		what = "the token of a workload identity, which only the tailscale command line can turn into an auth key"
	default:
		return nil
	}
	return fmt.Errorf("is %s: tailscaled cannot log in with it; make an auth key, which begins with tskey-auth-, reusable and with a tag, at https://login.tailscale.com/admin/settings/keys", what)
}

// keyKind is the word after "tskey-", or "". Before kinds were introduced, an
// auth key had its number there, which has digits and capitals in it.
func keyKind(text string) string {
	rest, ok := strings.CutPrefix(text, "tskey-")
	kind, _, more := strings.Cut(rest, "-")
	if !ok || !more || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz") != "" {
		return ""
	}
	return kind
}
