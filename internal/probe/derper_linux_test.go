package probe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/freeport"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/relaytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// TestDerper probes the real thing: derper of the image.
func TestDerper(t *testing.T) {
	programs := t.TempDir()
	if err := releasetest.Programs(t.Context(), "../..", programs); err != nil {
		t.Fatal(err)
	}
	derper := filepath.Join(programs, "derper")
	for _, tt := range []struct{ host, listen, home, wantHome string }{
		{"127.0.0.1", "127.0.0.1", "", HomeDefault},
		{"::1", "::1", "blank", HomeBlank},
		{"relay.example", "127.0.0.1", "https://example.com/", "https://example.com/"},
	} {
		t.Run(tt.host, func(t *testing.T) {
			if tt.listen == "::1" {
				need.IPv6(t)
			}
			dir := t.TempDir()
			port, httpPort, stunPort := freePort(t, tt.listen), freePort(t, tt.listen), freePort(t, tt.listen)
			target := Target{Host: tt.host, Port: port, HTTPPort: httpPort, STUNPort: stunPort, Home: tt.wantHome}
			if net.ParseIP(tt.host) == nil {
				cert, key := relaytest.Issue(t, &x509.Certificate{DNSNames: []string{tt.host}}, nil, nil)
				writePair(t, filepath.Join(dir, tt.host), cert, key)
				target.CertName = PinOf(cert)
				target.Addrs = []netip.Addr{netip.MustParseAddr(tt.listen)}
			} else {
				target.Insecure = true // derper makes the certificate: its pin is known afterwards
			}
			cmd := exec.Command(derper, "-a", net.JoinHostPort(tt.listen, strconv.Itoa(port)), "-http-port", strconv.Itoa(httpPort),
				"-stun-port", strconv.Itoa(stunPort), "-c", filepath.Join(dir, "key"), "-certdir", dir, "-certmode", "manual",
				"-hostname", tt.host, "-home", tt.home)
			var log bytes.Buffer
			cmd.Stdout, cmd.Stderr = &log, &log
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cmd.Process.Kill(); cmd.Wait() }()
			waitListening(t, net.JoinHostPort(tt.listen, strconv.Itoa(port)))

			r := Run(t.Context(), target)
			if !r.OK() {
				t.Errorf("%s\nderper's log:\n%s", text(r), log.String())
			}
			t.Log("\n" + text(r))
		})
	}
}

func freePort(t *testing.T, ip string) int {
	t.Helper()
	port, err := freeport.Choose(ip)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func waitListening(t *testing.T, addr string) {
	t.Helper()
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
	}
	t.Fatalf("nothing listens on %s after 10s", addr)
}

func writePair(t *testing.T, base string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		base + ".crt": {Type: "CERTIFICATE", Bytes: cert.Raw},
		base + ".key": {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
