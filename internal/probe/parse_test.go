package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tailscale.com/types/key"
)

func TestReadNodeKey(t *testing.T) {
	k := key.NewNode()
	b, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, append(b, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadNodeKey(file); err != nil || !got.Equal(k) {
		t.Errorf("read %v, %v", got, err)
	}
}

func TestSplitHostPort(t *testing.T) {
	for in, want := range map[string]string{
		"relay.example":      "relay.example 0",
		"relay.example:8443": "relay.example 8443",
		"192.0.2.7":          "192.0.2.7 0",
		"192.0.2.7:8443":     "192.0.2.7 8443",
		"2001:db8::1":        "2001:db8::1 0",
		"[2001:db8::1]":      "2001:db8::1 0",
		"[2001:db8::1]:8443": "2001:db8::1 8443",
	} {
		host, port, err := SplitHostPort(in)
		if got := fmt.Sprint(host, " ", port); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
}
