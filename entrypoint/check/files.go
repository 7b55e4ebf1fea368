package check

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

// manualPair checks the directory for certificates and, in manual mode, the
// pair in it. A directory that holds the pair may be read-only.
func (c *checker) manualPair() {
	if !c.good("CERT_DIR", "CERT_MODE", "HOSTNAME") {
		return
	}
	dir := c.Get("CERT_DIR")
	if c.Manual() {
		cert, err := c.Pair().Load()
		if err == nil {
			if w := cert.Warning(c.Now); w != "" {
				c.warn("HOSTNAME", "certificate %s: %s", c.Pair().Crt, w)
			}
			for _, note := range cert.Notes {
				c.warn("HOSTNAME", "certificate %s", note)
			}
			return
		}
		if !errors.Is(err, certificate.ErrMissing) {
			c.fail("HOSTNAME", "%v", err)
			return
		}
	}
	if err := certificate.Writable(dir); err != nil {
		c.fail("CERT_DIR", "certificates cannot be stored: %v; mount a volume there that uid %d can write", cause(err), os.Getuid())
	}
}

// volume warns when certificates that a CA gives do not outlive the container:
// each start orders a new one then, and Let's Encrypt gives five a week.
// Source: https://letsencrypt.org/docs/rate-limits/#new-certificates-per-exact-set-of-identifiers.
func (c *checker) volume() {
	if !c.good("CERT_DIR", "CERT_MODE") || c.Manual() {
		return
	}
	dir, err := filepath.Abs(c.Get("CERT_DIR"))
	if err != nil {
		return
	}
	point, kind := "", ""
	for _, line := range strings.Split(string(c.Mounts), "\n") {
		before, after, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(rest) < 1 {
			continue
		}
		// The last one at a place is the one on top.
		if p := fields[4]; len(p) >= len(point) && (p == "/" || dir == p || strings.HasPrefix(dir, p+"/")) {
			point, kind = p, rest[0]
		}
	}
	if point == "/" && kind != "" || kind == "tmpfs" {
		c.warn("CERT_DIR", "%s is in no volume, so each new container orders a new certificate, and the CA's weekly limit is soon reached; mount a volume there: -v derper:%s", dir, dir)
	}
}

// nodeKey checks the file that the start takes for the node key.
func (c *checker) nodeKey() {
	if !c.good("CONFIG_PATH", "CERT_DIR") || c.Bool("DEV") {
		return
	}
	path, chosen := c.KeyPath(), c.Get("CONFIG_PATH") != ""
	b, err := os.ReadFile(path)
	problem := ""
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		if !chosen {
			return // it is made in CERT_DIR, or not stored at all
		}
		if err := certificate.Writable(filepath.Dir(path)); err != nil {
			problem = fmt.Sprintf("the node key cannot be stored: %v; mount a volume there that uid %d can write", cause(err), os.Getuid())
		}
	case err != nil:
		problem = fmt.Sprintf("the node key cannot be read: %v; it must be a file that uid %d can read", cause(err), os.Getuid())
	default:
		var config struct{ PrivateKey string }
		err := json.Unmarshal(b, &config)
		key, _ := strings.CutPrefix(config.PrivateKey, "privkey:")
		if raw, hexErr := hex.DecodeString(key); err != nil || hexErr != nil || len(raw) != 32 {
			problem = `holds no node key like {"PrivateKey": "privkey:…"}; name another file, or move this one away to get a new key`
		}
	}
	switch {
	case problem == "":
	case chosen:
		c.fail("CONFIG_PATH", "%s", problem)
	default:
		c.Problems = append(c.Problems, setting.Problem{Name: "node key " + absolute(path), What: problem})
	}
}

// absolute is the path as it is mounted.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// meshKey checks where the mesh key comes from. derper ends on a bad one.
func (c *checker) meshKey() {
	if !c.good("MESH_PSK", "MESH_PSKFILE", "SECRETS_URL") {
		return
	}
	path := c.Get("MESH_PSKFILE")
	if path != "" && c.Get("MESH_PSK") != "" {
		c.fail("MESH_PSKFILE", "MESH_PSK or MESH_PSK_FILE is set too; set only one of them")
	}
	if c.Get("SECRETS_URL") != "" && (path != "" || c.Get("MESH_PSK") != "") {
		c.warn("SECRETS_URL", "derper takes the mesh key from here and ignores the other one")
	}
	if !c.Bool("DEV") {
		if path != "" {
			if problem := meshKeyProblem(path); problem != "" {
				c.fail("MESH_PSKFILE", "%s", problem)
			}
		} else if path := c.defaultMeshKey(); path != "" && c.Get("MESH_PSK") == "" && c.Get("SECRETS_URL") == "" {
			if problem := meshKeyProblem(path); problem != "" {
				c.Problems = append(c.Problems, setting.Problem{Name: "mesh key " + path, What: problem + "; derper takes it from here by default"})
			}
		}
	}
	if c.good("MESH_WITH") && c.Get("MESH_WITH") != "" && !c.hasMeshKey() {
		c.fail("MESH_WITH", "needs a mesh key; set MESH_PSK_FILE to a file with 64 hexadecimal digits")
	}
}

// meshKeyProblem says what is wrong with the file, or "".
func meshKeyProblem(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprintf("the mesh key cannot be read: %v; mount it there and let uid %d read it", cause(err), os.Getuid())
	}
	if raw, err := hex.DecodeString(strings.TrimSpace(string(b))); err != nil || len(raw) != 32 {
		return "the file must hold 64 hexadecimal digits and nothing else; make one with: openssl rand -hex 32"
	}
	return ""
}

// hasMeshKey knows the places where derper looks by itself, too.
func (c *checker) hasMeshKey() bool {
	if c.Bool("DEV") {
		return os.Getenv("TAILSCALE_DERPER_MESH_KEY") != ""
	}
	return c.Get("MESH_PSK") != "" || c.Get("MESH_PSKFILE") != "" || c.Get("SECRETS_URL") != "" || c.defaultMeshKey() != ""
}

// defaultMeshKey is the file that derper takes when no flag names one, or "".
// Source: cmd/derper/derper.go, defaultMeshPSKFile.
func (c *checker) defaultMeshKey() string {
	for _, p := range []string{"/home/derp/keys/derp-mesh.key", filepath.Join(os.Getenv("HOME"), "keys", "derp-mesh.key")} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

// rateConfig checks the file as derper reads it. derper ignores members that
// it does not know, so a misspelt one would silently limit nothing.
func (c *checker) rateConfig() {
	path := c.Get("RATE_CONFIG")
	if path == "" {
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		c.fail("RATE_CONFIG", "cannot be read: %v; mount the file there and let uid %d read it", cause(err), os.Getuid())
		return
	}
	var config map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&config); err != nil {
		c.fail("RATE_CONFIG", `is no JSON object%s: %v; it must look like {"PerClientRateLimitBytesPerSec": 1000000, "PerClientRateBurstBytes": 2000000}`, position(b, err), err)
		return
	}
	for name, value := range config {
		if !strings.EqualFold(name, "PerClientRateLimitBytesPerSec") && !strings.EqualFold(name, "PerClientRateBurstBytes") {
			c.warn("RATE_CONFIG", "derper does not know %q; it knows PerClientRateLimitBytesPerSec and PerClientRateBurstBytes", name)
			continue
		}
		number, ok := value.(json.Number)
		if _, err := strconv.ParseUint(string(number), 10, 64); value != nil && (!ok || err != nil) {
			c.fail("RATE_CONFIG", "%s must be a whole number of bytes, 0 or more", name)
		}
	}
}

// position says where a JSON text is wrong.
func position(b []byte, err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return ""
	}
	before := b[:min(int(syntax.Offset), len(b))]
	return fmt.Sprintf(": line %d, column %d", 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n')-1)
}

// secrets checks where setec's secrets are cached. The flag says directory, but
// derper takes a file, and ends when it finds anything else.
func (c *checker) secrets() {
	if c.Get("SECRETS_URL") == "" || c.Bool("DEV") || !c.good("SECRETS_URL", "SECRETS_CACHEDIR") {
		return
	}
	path := c.Get("SECRETS_CACHEDIR")
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		c.fail("SECRETS_CACHEDIR", "is no file, which derper needs whatever the flag is called; use a file in it: %s", filepath.Join(path, "secrets.json"))
		return
	}
	if err := certificate.Writable(filepath.Dir(path)); err != nil {
		c.fail("SECRETS_CACHEDIR", "secrets cannot be cached: %v; mount a volume on %s that uid %d can write", cause(err), filepath.Dir(path), os.Getuid())
	}
}

// cause drops the path from an error, which the message names already; the
// path of a probe file would only puzzle.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
