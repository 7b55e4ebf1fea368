// Package relaytest runs relays for tests: one that works, and ones that are broken in one
// way each.
package relaytest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stun"
	"tailscale.com/tsweb"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// A Relay is derper's parts put together as cmd/derper does it, with a place to break each. Its zero value plus a
// certificate is a relay that works.
type Relay struct {
	Cert   func(*x509.Certificate) // changes the certificate before it is signed
	Chain  func([][]byte) [][]byte // changes what is presented
	AnySNI bool                    // answers to every name
	Listen [2]bool                 // IPv4, IPv6: do not listen there
	ipv4   bool                    // this machine has no IPv6
	Conn   func(n int64) bool      // whether TCP connection number n is closed at once
	Plain  bool                    // no TLS on the TLS port

	STUN      func(req stun.TxID, from netip.AddrPort) []byte
	Frame     func(t derp.FrameType, b []byte) []byte                // changes a frame to a client; nil drops it
	DERP      func(n int64, s *derpserver.Server) *derpserver.Server // which server takes DERP connection number n
	Setup     func(*derpserver.Server)
	Pages     map[string]http.HandlerFunc // in place of the right ones; "80" is port 80's /generate_204
	NoWS      bool
	NoUpgrade bool // /derp without upgrade is an empty page
	Home      http.HandlerFunc
}

// Running says how to ask a relay that runs.
type Running struct {
	// Host is its name, of which Addrs are the addresses, or its address.
	Host  string
	Addrs []netip.Addr
	// Port is for TLS, HTTPPort for plain HTTP.
	Port, HTTPPort, STUNPort int
	// RootCAs have the authority of the certificate for a name, Pin is the certificate's.
	RootCAs *x509.CertPool
	Pin     string
}

// Start runs the relay on 127.0.0.1 and ::1 and returns how to ask it under a name or an address. On a machine
// without IPv6, it is on 127.0.0.1 alone.
func (r *Relay) Start(t testing.TB, host string) Running {
	t.Helper()
	if host == "::1" {
		need.IPv6(t)
	}
	r.ipv4 = need.HasIPv6() != nil
	ip := net.ParseIP(host)
	ca, caKey := Issue(t, &x509.Certificate{IsCA: true, Subject: pkix.Name{CommonName: "test root"}, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	tmpl := &x509.Certificate{Subject: pkix.Name{CommonName: host}}
	parent, parentKey := ca, caKey
	if ip != nil {
		tmpl.IPAddresses, parent, parentKey = []net.IP{ip}, nil, nil
	} else {
		tmpl.DNSNames = []string{host}
	}
	if r.Cert != nil {
		r.Cert(tmpl)
	}
	leaf, leafKey := Issue(t, tmpl, parent, parentKey)

	srv := derpserver.New(key.NewNode(), logger.Discard)
	t.Cleanup(func() { srv.Close() })
	if r.Setup != nil {
		r.Setup(srv)
	}

	tlsConf := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(hi *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if ip == nil && hi.ServerName != host && !r.AnySNI {
				return nil, fmt.Errorf("cert mismatch with hostname: %q", hi.ServerName)
			}
			certs := [][]byte{leaf.Raw}
			if r.Chain != nil {
				certs = r.Chain(certs)
			}
			return &tls.Certificate{Certificate: certs, PrivateKey: leafKey}, nil
		},
	}
	if r.DERP == nil {
		srv.ModifyTLSConfigToAddMetaCert(tlsConf)
	}

	target := Running{Host: host, RootCAs: x509.NewCertPool(), Pin: fmt.Sprintf("sha256-raw:%x", sha256.Sum256(leaf.Raw))}
	target.RootCAs.AddCert(ca)
	if ip == nil {
		target.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		if !r.ipv4 {
			target.Addrs = append(target.Addrs, netip.MustParseAddr("::1"))
		}
	}

	quiet := logger.StdLogger(logger.Discard)
	main := &http.Server{Handler: r.mux(srv), ErrorLog: quiet}
	port80 := http.NewServeMux()
	port80.HandleFunc("/generate_204", r.page("80", derpserver.ServeNoContent))
	plain := &http.Server{Handler: port80, ErrorLog: quiet}
	t.Cleanup(func() { main.Close(); plain.Close() })

	var conns atomic.Int64
	r.serve(t, &target.Port, func(l net.Listener) {
		l = &choosy{l, func() bool { return r.Conn != nil && r.Conn(conns.Add(1)) }}
		if !r.Plain {
			l = tls.NewListener(l, tlsConf)
		}
		main.Serve(l)
	})
	r.listenAll(t, &target.HTTPPort, func(l net.Listener) { plain.Serve(l) })
	r.serveSTUN(t, &target.STUNPort)
	return target
}

// choosy is a listener that hangs up on some.
type choosy struct {
	net.Listener
	refuse func() bool
}

func (l *choosy) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.refuse() {
		c.Close()
	}
	return c, err
}

// serve is listenAll but for the families that the relay leaves out.
func (r *Relay) serve(t testing.TB, port *int, serve func(net.Listener)) {
	var l [2]net.Listener
	for i := 0; l[0] == nil; i++ {
		var err error
		if l[0], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		*port = l[0].Addr().(*net.TCPAddr).Port
		if r.ipv4 {
			break
		}
		if l[1], err = net.Listen("tcp", fmt.Sprintf("[::1]:%d", *port)); err != nil {
			l[0].Close() // somebody else has the port on ::1
			if l[0] = nil; i == 20 {
				t.Fatal(err)
			}
		}
	}
	for i, l := range l {
		if l == nil {
			continue
		}
		if r.Listen[i] {
			l.Close()
			continue
		}
		t.Cleanup(func() { l.Close() })
		go serve(l)
	}
}

func (r *Relay) listenAll(t testing.TB, port *int, serve func(net.Listener)) {
	(&Relay{ipv4: r.ipv4}).serve(t, port, serve)
}

func (r *Relay) mux(srv *derpserver.Server) http.Handler {
	var conns atomic.Int64
	base := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s := srv
		if up := req.Header.Get("Upgrade"); up != "" && r.DERP != nil {
			s = r.DERP(conns.Add(1), srv)
		}
		if req.Header.Get("Upgrade") == "DERP" && r.Frame != nil {
			r.serveFrames(w, req, s)
			return
		}
		derpserver.Handler(s).ServeHTTP(w, req)
	})
	h := http.Handler(base)
	if !r.NoWS {
		h = derpserver.AddWebSocketSupport(srv, base)
	}
	home := r.Home
	if home == nil {
		home = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html><body>\n<h1>DERP</h1>") }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/derp", func(w http.ResponseWriter, req *http.Request) {
		if r.NoUpgrade && req.Header.Get("Upgrade") == "" {
			return
		}
		h.ServeHTTP(w, req)
	})
	mux.Handle("/derp/probe", r.page("/derp/probe", derpserver.ProbeHandler))
	mux.Handle("/generate_204", r.page("/generate_204", derpserver.ServeNoContent))
	mux.Handle("/bootstrap-dns", r.page("/bootstrap-dns", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
	}))
	mux.Handle("/robots.txt", r.page("/robots.txt", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "User-agent: *\nDisallow: /\n")
	}))
	mux.Handle("/", home)
	if f, ok := r.Pages["/debug/"]; ok {
		mux.Handle("/debug/", f)
	} else {
		tsweb.Debugger(mux)
	}
	return mux
}

func (r *Relay) page(path string, right http.HandlerFunc) http.HandlerFunc {
	if f, ok := r.Pages[path]; ok {
		return f
	}
	return right
}

// serveFrames is derpserver.Handler with frame between the server and its client.
func (r *Relay) serveFrames(w http.ResponseWriter, req *http.Request, s *derpserver.Server) {
	nc, brw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer nc.Close()
	nc.SetDeadline(time.Time{})
	if req.Header.Get(derp.FastStartHeader) != "1" {
		fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
	}
	inner, outer := net.Pipe()
	go func() {
		io.Copy(outer, brw)
		outer.Close()
	}()
	go func() {
		defer nc.Close()
		in, out := bufio.NewReader(outer), bufio.NewWriter(nc)
		for {
			t, n, err := derp.ReadFrameHeader(in)
			if err != nil {
				return
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(in, b); err != nil {
				return
			}
			if b = r.Frame(t, b); b != nil && derp.WriteFrame(out, t, b) != nil {
				return
			}
		}
	}()
	s.Accept(context.Background(), inner, bufio.NewReadWriter(bufio.NewReader(inner), bufio.NewWriter(inner)), nc.RemoteAddr().String())
}

func (r *Relay) serveSTUN(t testing.TB, port *int) {
	answer := r.STUN
	if answer == nil {
		answer = stun.Response
	}
	var pc [2]net.PacketConn
	for i := 0; pc[0] == nil; i++ {
		var err error
		if pc[0], err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		*port = pc[0].LocalAddr().(*net.UDPAddr).Port
		if r.ipv4 {
			break
		}
		if pc[1], err = net.ListenPacket("udp", fmt.Sprintf("[::1]:%d", *port)); err != nil {
			pc[0].Close()
			if pc[0] = nil; i == 20 {
				t.Fatal(err)
			}
		}
	}
	for _, pc := range pc {
		if pc == nil {
			continue
		}
		t.Cleanup(func() { pc.Close() })
		go func() {
			buf := make([]byte, 1500)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				if tx, err := stun.ParseBindingRequest(buf[:n]); err == nil {
					if b := answer(tx, from.(*net.UDPAddr).AddrPort()); b != nil {
						pc.WriteTo(b, from)
					}
				}
			}
		}()
	}
}

// Issue signs a certificate, with its own key if there is no parent.
func Issue(t testing.TB, c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.BasicConstraintsValid = true
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)
	}
	if parent == nil {
		parent, parentKey = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out, k
}
