package suite

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The mistake it guards: an image names a socket of this machine as its tailscaled's, by a path or by a link, and the
// tester, who may be root, asks whoever serves it.
func TestDialSocket(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	for _, name := range []string{filepath.Join(outside, "host.sock"), filepath.Join(dir, "own.sock")} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write([]byte(filepath.Base(name)))
				c.Close()
			}
		}()
	}
	up, err := filepath.Rel(dir, outside)
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"absolute.sock": filepath.Join(outside, "host.sock"),
		"relative.sock": filepath.Join(up, "host.sock"),
		"folder":        outside,
		"inside.sock":   "own.sock",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"absolute.sock", "relative.sock", "folder/host.sock", "inside.sock", "file", filepath.Join(up, "host.sock"), filepath.Join(outside, "host.sock"), "none.sock"} {
		if c, err := dialSocket(dir, name)(t.Context(), "", ""); err == nil {
			c.Close()
			t.Errorf("%s: connected", name)
		}
	}
	c, err := dialSocket(dir, "own.sock")(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "own") {
		t.Errorf("%q, %v", b[:n], err)
	}
}
