package tailscaled_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tailscale.com/ipn"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// standIn makes this program one that reads a configuration as tailscaled does: that of
// the version this repository tests with, or an older one.
const standIn = "DERPER_TEST_TAILSCALED"

func TestMain(m *testing.M) {
	version := os.Getenv(standIn)
	if version == "" {
		os.Exit(m.Run())
	}
	for _, name := range []string{"tun", "state", "socket", "port"} {
		flag.String(name, "", "")
	}
	path := flag.String("config", "", "")
	flag.Parse()
	log.Println("TPM: error opening: stat /dev/tpmrm0: no such file or directory") // as tailscaled does
	var config any
	switch version {
	case "current":
		config = new(ipn.ConfigVAlpha)
	case "1.96": // that has no RelayServerPort
		config = new(struct{ Version, Hostname string })
	default:
		fmt.Println("cannot start")
		os.Exit(3)
	}
	b, err := os.ReadFile(*path)
	if err == nil {
		err = decode(b, config)
	}
	log.Fatalf("error reading config file: %v", err)
}

// decode is what tailscaled does in ipn/conffile.
func decode(b []byte, config any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(config)
}

// TestSupports guards against a peer relay with which tailscaled does not start, because
// it is too old, and against none although it could.
func TestSupports(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		version string
		members []string
		want    bool
	}{
		{"current", tailscaled.PeerRelay, true},
		{"current", []string{"RelayServerPorts"}, false},
		{"current", append([]string{"Nothing"}, tailscaled.PeerRelay...), false},
		{"1.96", tailscaled.PeerRelay, false},
	} {
		t.Setenv(standIn, test.version)
		got, err := tailscaled.Supports(t.Context(), self, test.members...)
		if err != nil || got != test.want {
			t.Errorf("%s %v: %v, %v", test.version, test.members, got, err)
		}
	}
	t.Setenv(standIn, "broken")
	if _, err := tailscaled.Supports(t.Context(), self, tailscaled.PeerRelay...); err == nil || !strings.Contains(err.Error(), "does not tell") || !strings.Contains(err.Error(), "cannot start") {
		t.Errorf("a program that says nothing: %v", err)
	}
	if _, err := tailscaled.Supports(t.Context(), filepath.Join(t.TempDir(), "none"), tailscaled.PeerRelay...); err == nil {
		t.Error("no program: no error")
	}
}
