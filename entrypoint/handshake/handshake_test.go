package handshake

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func certificate(t testing.TB, key crypto.Signer, size int) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"derp.example.com", strings.Repeat("x", size)},
		NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, der}, PrivateKey: key}
}

// serve lets a server of the standard library echo in capitals, and returns a
// connection to it.
func serve(t testing.TB, config *tls.Config) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		server := tls.Server(conn, config)
		b := make([]byte, 64<<10)
		for {
			n, err := server.Read(b)
			if err != nil {
				return
			}
			if _, err := server.Write([]byte(strings.ToUpper(string(b[:n])))); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

// The mistake it guards: a hand-written client that does not understand the
// server of the standard library, which is derper's, with some kind of key.
func TestClientAgainstStandardLibrary(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]crypto.Signer{"p256": p256, "p384": p384, "p521": p521, "rsa": rsa2048, "ed25519": ed} {
		for _, size := range []int{1, 40_000} { // the second takes several records
			t.Run(name, func(t *testing.T) {
				cert := certificate(t, key, size)
				asked := make(chan string, 1)
				config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
				config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
					asked <- hello.ServerName
					return &cert, nil
				}
				c, err := Client(serve(t, config), "derp.example.com")
				if err != nil {
					t.Fatal(err)
				}
				if name := <-asked; name != "derp.example.com" {
					t.Errorf("asked for %q", name)
				}
				if string(c.Leaf) != string(cert.Certificate[0]) {
					t.Error("another certificate")
				}
				for _, text := range []string{"hello", "again", strings.Repeat("long ", 10_000)} {
					go c.Write([]byte(text))
					b := make([]byte, len(text))
					if _, err := io.ReadFull(c, b); err != nil || string(b) != strings.ToUpper(text) {
						t.Fatalf("%v: got %.20q", err, b)
					}
				}
			})
		}
	}
}

func TestClientErrors(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	cert := certificate(t, key, 1)
	refuse := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("no such name") }
	for name, test := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"no certificate": {&tls.Config{GetCertificate: refuse}, "no certificate for this name"},
		"TLS 1.2 only":   {&tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12}, "alert 70"},
		"P-256 only":     {&tls.Config{Certificates: []tls.Certificate{cert}, CurvePreferences: []tls.CurveID{tls.CurveP256}}, "refused the handshake"},
		"no protocol":    {&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"acme-tls/1"}}, "alert 120"},
	} {
		if _, err := Client(serve(t, test.config), "x.example.com"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	// A server that speaks something else, or garbles what it says.
	for name, test := range map[string]struct {
		spoil func([]byte) []byte
		want  string
	}{
		"HTTP":      {func([]byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, "does not speak TLS"},
		"closes":    {func([]byte) []byte { return nil }, "EOF"},
		"last byte": {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "tls: "},
	} {
		inner := serve(t, &tls.Config{Certificates: []tls.Certificate{cert}})
		client, server := net.Pipe()
		go func() {
			b := make([]byte, 64<<10)
			n, _ := server.Read(b)
			inner.Write(b[:n])
			n, _ = inner.Read(b)
			server.Write(test.spoil(b[:n]))
			server.Close()
		}()
		if _, err := Client(client, ""); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// FuzzServerHello: whatever a server says, the client does not panic.
func FuzzServerHello(f *testing.F) {
	f.Add([]byte{22, 3, 3, 0, 4, 2, 0, 0, 0})
	f.Add([]byte{21, 3, 3, 0, 2, 2, 40})
	f.Fuzz(func(t *testing.T, b []byte) {
		parseServerHello(b)
		parseCertificate(b)
		client, server := net.Pipe()
		go func() {
			io.CopyN(io.Discard, server, 100)
			server.Write(b)
			server.Close()
		}()
		client.SetDeadline(time.Now().Add(time.Second))
		if _, err := Client(client, "x"); err == nil {
			t.Error("a server without keys got through the handshake")
		}
		client.Close()
	})
}
