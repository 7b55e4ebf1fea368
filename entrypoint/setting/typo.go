package setting

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Misspelt finds variables in an environment that look like one of the table
// and are none, and those of other images of derper. They would be silently
// without effect.
func (t *Table) Misspelt(environ []string) []Problem {
	var found []Problem
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if near := t.nearestVariable(name); near != "" {
			found = append(found, Problem{Name: name, What: fmt.Sprintf("has no effect; did you mean %s?", near)})
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found
}

// known are variables that resemble one of the table and mean something to
// somebody else: HOME and PATH to everybody, the others to derper, to
// tailscaled, or to Docker.
var known = map[string]bool{
	"HOME": true, "PATH": true, "HOST": true, "USER": true, "TERM": true, "PWD": true, "TZ": true, "LANG": true,
	"PORT": true, "SHELL": true, "SHLVL": true, "OLDPWD": true, "LOGNAME": true, "TMPDIR": true,
	"DERP_DEBUG_LOGS": true, "DERP_PROBER_DEBUG_LOGS": true, "TAILSCALE_DERPER_MESH_KEY": true,
	"SSL_CERT_DIR": true, "SSL_CERT_FILE": true,
}

// foreign are the variables of other images whose names do not tell ours.
var foreign = map[string]string{
	"DERP_DOMAIN": "HOSTNAME", "DERP_HOST": "HOSTNAME", "DERPER_DOMAIN": "HOSTNAME", "DOMAIN": "HOSTNAME", "DOMAIN_NAME": "HOSTNAME",
	"TAILSCALE_DERP_HOSTNAME": "HOSTNAME", "DERP_NAME": "HOSTNAME",
	"DERP_STUN": "RUN_STUN", "DERP_PORT": "ADDR", "DERP_HTTPS_PORT": "ADDR", "HTTPS_PORT": "ADDR",
	"DERP_CERTS": "CERT_DIR", "CERT_PATH": "CERT_DIR", "CERTS_DIR": "CERT_DIR", "LETSENCRYPT_EMAIL": "ACME_EMAIL",
	"TAILSCALE_AUTHKEY": "TS_AUTHKEY", "TAILSCALE_AUTH_KEY": "TS_AUTHKEY", "TS_AUTH_KEY": "TS_AUTHKEY", "AUTHKEY": "TS_AUTHKEY", "AUTH_KEY": "TS_AUTHKEY",
	"TAILSCALE_LOGIN_SERVER": "TS_LOGIN_SERVER", "HEADSCALE_URL": "TS_LOGIN_SERVER", "TS_STATE_DIR": "CERT_DIR", "TS_SOCKET": "SOCKET",
	"DERP_VERIFY": "VERIFY_CLIENTS", "DERP_MESH_KEY": "MESH_PSK",
}

// nearestVariable returns the name that was probably meant, or "".
func (t *Table) nearestVariable(name string) string {
	if known[name] || name == "" {
		return ""
	}
	var names []string
	for _, v := range t.rows {
		names = append(names, v.names()...)
		if v.Secret {
			names = append(names, v.FileName())
		}
	}
	for _, n := range names {
		if n == name {
			return ""
		}
	}
	for _, v := range t.off {
		if slices.Contains(v.names(), name) {
			return "" // Read says what is wrong with it
		}
	}
	if ours := foreign[name]; ours != "" {
		return ours
	}
	squeezed := squeeze(name)
	best, bestDistance := "", 3
	for _, n := range names {
		if squeezed == squeeze(n) || squeezed == "DERP"+squeeze(n) || squeezed == "DERPER"+squeeze(n) {
			return n
		}
		if d := distance(strings.ToUpper(name), n); d < bestDistance && d*4 <= len(n) {
			best, bestDistance = n, d
		}
	}
	if best == "" {
		if v, ok := t.ByFlag(strings.ToLower(strings.ReplaceAll(name, "_", "-"))); ok && len(v.Flag) > 4 {
			return v.Name
		}
	}
	return best
}

func (t *Table) nearestFlag(name string) string {
	best, bestDistance := "", 3
	for _, v := range t.rows {
		if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), v.Flag) || squeeze(name) == squeeze(v.Name) {
			return v.Flag
		}
		if d := distance(name, v.Flag); v.Flag != "" && d < bestDistance && d*3 <= len(v.Flag) {
			best, bestDistance = v.Flag, d
		}
	}
	return best
}

func squeeze(name string) string {
	return strings.ToUpper(strings.NewReplacer("_", "", "-", "").Replace(name))
}

// distance is the number of letters to add, drop, change or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	if len(a) > 64 || len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 64
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
