package check

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/document"
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
			if w := cert.Warning(c.now); w != "" {
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

// nodeKey checks the file of CONFIG_PATH. Without one, the start takes what
// the file system offers.
func (c *checker) nodeKey() {
	path := c.Get("CONFIG_PATH")
	if path == "" || c.Bool("DEV") {
		return
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := certificate.Writable(filepath.Dir(path)); err != nil {
			c.fail("CONFIG_PATH", "the node key cannot be stored: %v; mount a volume there that uid %d can write", cause(err), os.Getuid())
		}
	case err != nil:
		c.fail("CONFIG_PATH", "the node key cannot be read: %v; it must be a file that uid %d can read", cause(err), os.Getuid())
	default:
		config, _ := document.Object(b)
		key, _ := strings.CutPrefix(document.Text(config, "PrivateKey"), "privkey:")
		if raw, err := hex.DecodeString(key); err != nil || len(raw) != 32 {
			c.fail("CONFIG_PATH", `holds no node key like {"PrivateKey": "privkey:…"}; name another file, or move this one away to get a new key`)
		}
	}
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
	if path != "" && !c.Bool("DEV") {
		b, err := os.ReadFile(path)
		key := strings.TrimSpace(string(b))
		if err != nil {
			c.fail("MESH_PSKFILE", "the mesh key cannot be read: %v; mount it there and let uid %d read it", cause(err), os.Getuid())
		} else if raw, err := hex.DecodeString(key); err != nil || len(raw) != 32 {
			c.fail("MESH_PSKFILE", "the file must hold 64 hexadecimal digits and nothing else; make one with: openssl rand -hex 32")
		}
	}
	if c.Get("SECRETS_URL") != "" && (path != "" || c.Get("MESH_PSK") != "") {
		c.warn("SECRETS_URL", "derper takes the mesh key from here and ignores the other one")
	}
	if c.good("MESH_WITH") && c.Get("MESH_WITH") != "" && !c.hasMeshKey() {
		c.fail("MESH_WITH", "needs a mesh key; set MESH_PSK_FILE to a file with 64 hexadecimal digits")
	}
}

// hasMeshKey knows the places where derper looks by itself, too.
func (c *checker) hasMeshKey() bool {
	if c.Bool("DEV") {
		return os.Getenv("TAILSCALE_DERPER_MESH_KEY") != ""
	}
	if c.Get("MESH_PSK") != "" || c.Get("MESH_PSKFILE") != "" || c.Get("SECRETS_URL") != "" {
		return true
	}
	for _, p := range []string{"/home/derp/keys/derp-mesh.key", filepath.Join(os.Getenv("HOME"), "keys", "derp-mesh.key")} {
		if _, err := os.Stat(p); err == nil {
			return true
		}
	}
	return false
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
	config, err := document.Object(b)
	if err != nil {
		c.fail("RATE_CONFIG", `%v; it must look like {"PerClientRateLimitBytesPerSec": 1000000, "PerClientRateBurstBytes": 2000000}`, err)
		return
	}
	for name, value := range config {
		if !strings.EqualFold(name, "PerClientRateLimitBytesPerSec") && !strings.EqualFold(name, "PerClientRateBurstBytes") {
			c.warn("RATE_CONFIG", "derper does not know %q; it knows PerClientRateLimitBytesPerSec and PerClientRateBurstBytes", name)
			continue
		}
		number, ok := value.(document.Number)
		if _, err := strconv.ParseUint(string(number), 10, 64); value != nil && (!ok || err != nil) {
			c.fail("RATE_CONFIG", "%s must be a whole number of bytes, 0 or more", name)
		}
	}
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
