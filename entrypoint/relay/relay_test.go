package relay

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/derpmap"
	"github.com/xavieralpha/derper/entrypoint/setting"
	"tailscale.com/types/key"
)

func of(t *testing.T, env ...string) Relay {
	t.Helper()
	set, problems := setting.Read(env, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return Relay{set}
}

// The mistake it guards: a key in a place that is lost, or another place than
// the one that somebody mounted a volume on.
func TestKeyPath(t *testing.T) {
	legacyKey = filepath.Join(t.TempDir(), "derper.key")
	if got := of(t).KeyPath(); got != "derper-certs/derper_node.json" {
		t.Errorf("by default %s", got)
	}
	if got := of(t, "CERT_DIR=/c").KeyPath(); got != "/c/derper_node.json" {
		t.Errorf("with CERT_DIR %s", got)
	}
	if err := os.WriteFile(legacyKey, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := of(t).KeyPath(); got != legacyKey {
		t.Errorf("with a volume on /var/lib/derper %s", got)
	}
	if got := of(t, "CONFIG_PATH=/k").KeyPath(); got != "/k" {
		t.Errorf("with CONFIG_PATH %s", got)
	}
	// No host has a certificate of that name.
	if p := certificate.At("/c", "derper_node.json"); p.Crt == "/c/derper_node.json" || p.Key == "/c/derper_node.json" {
		t.Error("a certificate can have the name of the key")
	}
}

// The mistake it guards: a key that derper does not read.
func TestNewKey(t *testing.T) {
	var config struct{ PrivateKey key.NodePrivate }
	if err := json.Unmarshal(NewKey(), &config); err != nil || config.PrivateKey.IsZero() {
		t.Fatalf("%v", err)
	}
	if first, second := NewKey(), NewKey(); string(first) == string(second) {
		t.Error("two keys are the same")
	}
}

func TestNode(t *testing.T) {
	pinned := &certificate.Certificate{Leaf: &certificate.Leaf{}, SelfSigned: true}
	signed := &certificate.Certificate{Leaf: &certificate.Leaf{}}
	for _, test := range []struct {
		env  []string
		cert *certificate.Certificate
		want derpmap.Node
	}{
		{[]string{"HOSTNAME=a.b"}, signed, derpmap.Node{HostName: "a.b", CanPort80: true}},
		{[]string{"HOSTNAME=a.b"}, pinned, derpmap.Node{HostName: "a.b", CanPort80: true, CertName: pinned.Pin()}},
		{[]string{"HOSTNAME=a.b", "CERT_MODE=letsencrypt"}, nil, derpmap.Node{HostName: "a.b", CanPort80: true}},
		{[]string{"HOSTNAME=a.b", "ADDR=:8443", "STUN_PORT=5", "HTTP_PORT=-1"}, signed, derpmap.Node{HostName: "a.b", DERPPort: 8443, STUNPort: 5}},
		{[]string{"HOSTNAME=a.b", "RUN_STUN=false", "RUN_DERP=false", "HTTP_PORT=81"}, signed, derpmap.Node{HostName: "a.b", STUNPort: -1, STUNOnly: true}},
	} {
		if got := of(t, test.env...).Node(test.cert); got != test.want {
			t.Errorf("%v: got %+v, want %+v", test.env, got, test.want)
		}
	}
}

func TestTLS(t *testing.T) {
	for env, want := range map[string]bool{
		"CERT_MODE=manual|ADDR=:8443": true, "CERT_MODE=letsencrypt|ADDR=:443": true,
		"CERT_MODE=letsencrypt|ADDR=:8443": false, "CERT_MODE=letsencrypt|DEV=true": false, "CERT_MODE=manual|DEV=true": true,
	} {
		if got := of(t, strings.Split(env, "|")...).TLS(); got != want {
			t.Errorf("%s: %v, want %v", env, got, want)
		}
	}
}
