package check

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/testing/freeport"
)

// report is what is found with these settings on top of those of a relay that could start.
func report(t *testing.T, now time.Time, env ...string) Report {
	t.Helper()
	set, problems := setting.Known().Read(append(env, free(t)...), nil, "")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return Relay(relay.New(set), System{Environ: env, Now: now})
}

// The mistake it guards: a start with a certificate that clients refuse, and none with a
// folder that is read-only and has a good pair.
func TestManualPair(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name             string
		after            time.Duration
		change           func(certificate.Pair) error
		problem, warning string
	}{
		{name: "good"},
		{name: "expires soon", after: 350 * 24 * time.Hour, warning: "expires in 15 days, on 2027-01-01"},
		{name: "has expired", after: 366 * 24 * time.Hour, warning: "expired on 2027-01-01"},
		{name: "the clock is wrong", after: -24 * time.Hour, warning: "is not valid before 2025-12-31T23:59:00Z; clients refuse it; check the clock"},
		{name: "no key", change: func(p certificate.Pair) error { return os.Remove(p.Key) }, problem: "has no key"},
		{name: "no certificate", change: func(p certificate.Pair) error { return os.Remove(p.Crt) }, problem: "has no certificate"},
		{name: "neither", change: func(p certificate.Pair) error { return errors.Join(os.Remove(p.Crt), os.Remove(p.Key)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			p := certificate.At(dir, "derp.example.com")
			if err := p.Create(made); err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				if err := test.change(p); err != nil {
					t.Fatal(err)
				}
			}
			rep := report(t, made.Add(test.after), "HOSTNAME=derp.example.com", "CERT_DIR="+dir)
			expect(t, "problem", rep.Problems, test.problem)
			expect(t, "warning", rep.Warnings, test.warning)
			if len(rep.Warnings) > 0 && !strings.Contains(rep.Warnings[0].Error(), p.Crt) {
				t.Errorf("%v does not name the file", rep.Warnings[0])
			}
		})
	}
}

// The mistake it guards: a relay that seems to run while another program has its ports.
func TestPortsTaken(t *testing.T) {
	port, err := freeport.Choose("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for env, want := range map[string]string{
		"ADDR=" + address:                                fmt.Sprintf("ADDR=%q: tcp port %d is taken", address, port),
		fmt.Sprintf("HTTP_PORT=%d", port):                fmt.Sprintf("HTTP_PORT=\"%d\": tcp port %[1]d is taken", port),
		fmt.Sprintf("STUN_PORT=%d", port):                fmt.Sprintf("STUN_PORT=\"%d\": udp port %[1]d is taken", port),
		fmt.Sprintf("STUN_PORT=%d RUN_STUN=false", port): "",
		fmt.Sprintf("HTTP_PORT=%d CERT_MODE=letsencrypt HOSTNAME=derp.example.com DEV=true", port): "", // derper has one listener then
	} {
		rep := report(t, time.Now(), strings.Fields(env+" HOSTNAME=192.0.2.1")...)
		expect(t, env, rep.Problems, want)
	}
}

// The mistake it guards: a mode without certificates that is found out by the clients.
func TestCertMode(t *testing.T) {
	for env, want := range map[string]string{
		"ACME_IP_CERTS=true": "needs CERT_MODE=letsencrypt, not manual",
		"CERT_MODE=letsencrypt ADDR=127.0.0.1:443 HOSTNAME=10.0.0.1":                                                   "is an IP address; use CERT_MODE=manual",
		"CERT_MODE=gcp ADDR=127.0.0.1:443 HOSTNAME=10.0.0.1 ACME_EAB_KID=k ACME_EAB_KEY=a2V5 ACME_EMAIL=a@example.com": "needs a DNS name, not an IP address",
		"CERT_MODE=gcp ADDR=127.0.0.1:443 HOSTNAME=a.example.com ACME_EAB_KID=k ACME_EMAIL=a@example.com":              "ACME_EAB_KEY: CERT_MODE=gcp needs it",
	} {
		rep := report(t, time.Now(), strings.Fields(env)...)
		expect(t, env, rep.Problems, want)
	}
}

// The mistake it guards: a file that is missing, or that will be, and a message without
// the variable that names it.
func TestFilesMissing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(file, "x") // nobody can write there, root neither
	for env, want := range map[string]string{
		"CONFIG_PATH=" + filepath.Join(dir, "new", "key"):              "",
		"CONFIG_PATH=" + below:                                         "CONFIG_PATH=\"" + below + "\": the node key cannot be stored: not a directory",
		"CONFIG_PATH=" + below + " DEV=true":                           "", // derper uses none then
		"RATE_CONFIG=" + filepath.Join(dir, "none"):                    "cannot be read: no such file or directory; mount the file there",
		"SECRETS_URL=https://a.b SECRETS_CACHEDIR=" + below:            "secrets cannot be cached: not a directory",
		"MESH_WITH=a.example.com DEV=true":                             "needs a mesh key",
		"MESH_WITH=a.example.com MESH_PSK=" + strings.Repeat("a1", 32): "",
	} {
		t.Setenv("HOME", dir)
		t.Setenv("TAILSCALE_DERPER_MESH_KEY", "")
		rep := report(t, time.Now(), strings.Fields(env)...)
		expect(t, env, rep.Problems, want)
		for _, p := range rep.Problems {
			if strings.Count(p.Error(), below) > 1 {
				t.Errorf("%q names the path twice", p)
			}
		}
	}
	// derper looks for a mesh key there by itself.
	keys := filepath.Join(dir, "keys")
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	mesh := filepath.Join(keys, "derp-mesh.key")
	write(mesh, strings.Repeat("a1", 32))
	expect(t, "key in HOME", report(t, time.Now(), "MESH_WITH=a.example.com").Problems, "")
	write(mesh, "a1")
	expect(t, "bad key in HOME", report(t, time.Now(), "MESH_WITH=a.example.com").Problems, "mesh key "+mesh+": the file must hold 64 hexadecimal digits")
	expect(t, "bad key in HOME that does not count", report(t, time.Now(), "MESH_PSK="+strings.Repeat("a1", 32)).Problems, "")
	// The node key that the start takes by itself.
	node := filepath.Join(dir, "certs", "derper_node.json")
	for text, want := range map[string]string{
		"":                         "node key " + node + ": holds no node key",
		`{"PrivateKey": "privkey:`: "node key " + node + ": holds no node key",
		`{"PrivateKey": "privkey:` + strings.Repeat("a1", 32) + `"}`: "",
	} {
		write(node, text)
		expect(t, "node key "+text, report(t, time.Now(), "MESH_PSK="+strings.Repeat("a1", 32), "CERT_DIR="+filepath.Dir(node)).Problems, want)
	}
}

// The mistake it guards: a certificate that is ordered again at each start, until the CA
// gives none any more; and a warning for whoever has a volume.
func TestVolume(t *testing.T) {
	const (
		root   = "1 0 0:30 / / rw,relatime master:1 - overlay overlay rw\n2 1 0:31 / /proc rw - proc proc rw\n"
		volume = "3 1 8:1 /var/lib/docker/volumes/x /root/derper-certs rw - ext4 /dev/sda1 rw\n"
		parent = "3 1 8:1 /srv /root rw master:5 - ext4 /dev/sda1 rw\n"
		tmpfs  = "4 1 0:40 / /root/derper-certs rw - tmpfs tmpfs rw\n"
		other  = "5 1 8:1 /x /root/derper-certs-old rw - ext4 /dev/sda1 rw\n"
	)
	for _, test := range []struct {
		mounts, mode string
		warned       bool
	}{
		{root, "letsencrypt", true}, {root + volume, "letsencrypt", false}, {root + parent, "letsencrypt", false},
		{root + tmpfs, "letsencrypt", true}, {root + volume + tmpfs, "letsencrypt", true}, {root + other, "letsencrypt", true},
		{root, "manual", false}, {"", "letsencrypt", false},
	} {
		set, _ := setting.Known().Read([]string{"CERT_MODE=" + test.mode, "CERT_DIR=/root/derper-certs"}, nil, "")
		c := &checker{Relay: relay.New(set), System: System{Mounts: []byte(test.mounts)}}
		if c.volume(); len(c.Warnings) > 0 != test.warned {
			t.Errorf("%s with\n%s: %v", test.mode, test.mounts, c.Warnings)
		}
	}
}
