package relay

import (
	"crypto/x509"
	"encoding/json"
	"net"
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
	set, problems := setting.Known().Read(env, nil, "")
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
	pinned := &certificate.Certificate{Leaf: &x509.Certificate{}, SelfSigned: true}
	signed := &certificate.Certificate{Leaf: &x509.Certificate{}}
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
		test.want.Name, test.want.RegionID = "900a", 900
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

// The mistake it guards: a check of another address than derper's.
func TestAddress(t *testing.T) {
	for _, test := range []struct {
		env  string
		host string
		port int
	}{
		{"", "", 443},
		{"ADDR=:8443", "", 8443},
		{"ADDR=127.0.0.1:8443", "127.0.0.1", 8443},
		{"ADDR=[2001:db8::1]:1", "2001:db8::1", 1},
		{"ADDR=:8443|DEV=true", "", 3340}, // derper ignores -a then
	} {
		if host, port := of(t, strings.Split(test.env, "|")...).Address(); host != test.host || port != test.port {
			t.Errorf("%s: %s and %d, want %s and %d", test.env, host, port, test.host, test.port)
		}
	}
}

// The mistake it guards: a tailscaled that runs although nobody asked for it, or that the
// user waits for in vain.
func TestSidecar(t *testing.T) {
	for _, test := range []struct {
		env                      string
		verifies, wants, sidecar bool
	}{
		{"VERIFY_CLIENTS=true", true, false, false}, // the host's
		{"VERIFY_CLIENTS=true|TS_AUTHKEY=k", true, true, true},
		{"VERIFY_CLIENTS=true|TAILSCALED=true", true, true, true},
		{"VERIFY_CLIENTS=false|TS_AUTHKEY=k", false, true, false},
		{"VERIFY_CLIENTS=false", false, false, false},
	} {
		r := of(t, strings.Split(test.env, "|")...)
		if r.Verifies() != test.verifies || r.WantsTailscaled() != test.wants || r.Sidecar() != test.sidecar {
			t.Errorf("%s: verifies %v, wants tailscaled %v, has a sidecar %v", test.env, r.Verifies(), r.WantsTailscaled(), r.Sidecar())
		}
	}
}

// The mistake it guards: a message that tells to mount a socket which is mounted, because
// it is looked for in one of two places only.
func TestHostSocket(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "relay") // a short name, as that of a socket has to be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	defer func(old []string) { hostSockets = old }(hostSockets)
	first, second := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	hostSockets = []string{first, second}
	if got := of(t).HostSocket(); got != first {
		t.Errorf("with none, %s: the message should name derper's default", got)
	}
	// A folder: what Docker makes of a mount whose source is missing.
	if err := os.Mkdir(first, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", second)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if got := of(t).HostSocket(); got != second {
		t.Errorf("with a folder and a socket, %s", got)
	}
	if got := of(t, "SOCKET=/x").HostSocket(); got != "/x" {
		t.Errorf("with SOCKET, %s", got)
	}
}

// The mistake it guards: a user who closes a port that is needed, or opens one that is not.
func TestPorts(t *testing.T) {
	for _, test := range []struct{ env, want string }{
		{"", `drop "CanPort80"`},
		{"HTTP_PORT=8080", `add "CanPort80": true`},
		{"HTTP_PORT=-1", "HTTP is off: clients that have no other node with port 80 keep asking Tailscale's own servers"},
		{"ADDR=:8443", "its ports are those of this container"},
		{"STUN_PORT=5", "its ports are those of this container"},
		{"CERT_MODE=letsencrypt|ACME_IP_CERTS=true", "port 80 must be reachable"},
		{"CERT_MODE=letsencrypt|ACME_IP_CERTS=true|HTTP_PORT=8080", "port 80 must be reachable"},
	} {
		if got := strings.Join(of(t, strings.Split(test.env, "|")...).Ports(), "\n"); !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.env, got, test.want)
		}
	}
}

// The mistake it guards: a name that is taken for an address, whose certificates derper
// makes in another way.
func TestIsIP(t *testing.T) {
	for host, want := range map[string]bool{"10.0.0.1": true, "2001:db8::1": true, "derp.example.com": false, "a1": false} {
		r := of(t, "HOSTNAME="+host, "CERT_DIR=/c")
		if r.IsIP() != want {
			t.Errorf("%s: %v", host, r.IsIP())
		}
		if p := r.Pair(); filepath.Dir(p.Crt) != "/c" || p.Host != host {
			t.Errorf("%s: %+v", host, p)
		}
	}
}
