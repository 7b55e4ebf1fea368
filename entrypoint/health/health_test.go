package health_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	upstream "tailscale.com/net/stun"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
	"github.com/xavieralpha/derper/internal/testing/freeport"
)

// A derper answers as derper does, or as it does when something is wrong.
type derper struct {
	probe, check http.HandlerFunc
	stun         func(id upstream.TxID, from netip.AddrPort) []byte // nil: nothing listens
	certs        string                                             // folder of the pair; "" for plain HTTP
	server       *httptest.Server
}

func ok(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }

// working is a derper in which all is well.
func working() *derper { return &derper{probe: ok, check: ok, stun: upstream.Response} }

// verifier pretends to be a tailscaled that is ready, and returns where.
func verifier(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "health") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Version": "1", "BackendState": "Running", "Peer": {"nodekey:x": {}}}`)
	})}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return ln.Addr().String()
}

// start starts it and returns what is checked.
func (d *derper) start(t *testing.T, env ...string) health.Subject {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/derp/probe", d.probe)
	mux.HandleFunc("/generate_204", ok)
	mux.HandleFunc("/debug/check", d.check)
	d.server = httptest.NewUnstartedServer(mux)
	d.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if d.certs == "" {
		d.server.Start()
		env = append(env, "CERT_MODE=letsencrypt")
	} else {
		pair := certificate.At(d.certs, "derp.example.com")
		cert, err := tls.LoadX509KeyPair(pair.Crt, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		d.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		d.server.StartTLS()
		env = append(env, "CERT_MODE=manual", "CERT_DIR="+d.certs)
	}
	t.Cleanup(d.server.Close)
	port, err := freeport.Choose("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if d.stun != nil {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			b := make([]byte, 1500)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				if id, err := upstream.ParseBindingRequest(b[:n]); err == nil {
					conn.WriteToUDPAddrPort(d.stun(id, from), from)
				}
			}
		}()
	}
	// Those given count: the first one does.
	env = append(env, "HOSTNAME=derp.example.com", "VERIFY_CLIENTS=true", fmt.Sprintf("STUN_PORT=%d", port), "HTTP_PORT=-1", "ADDR="+d.server.Listener.Addr().String())
	set, problems := setting.Known().Read(env, nil, "")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s := health.Subject{Relay: relay.New(set), Verifier: tailscaled.Verifier{Socket: verifier(t)}, ACME: new(health.ACME)}
	if d.certs != "" {
		cert, err := s.Pair().Load()
		if err != nil {
			t.Fatal(err)
		}
		s.Served = &cert
	}
	return s
}

// changed is a subject with other settings.
func changed(s health.Subject, name, text string) health.Subject {
	s.Relay = relay.Relay{Set: s.With(name, text, "")}
	return s
}

// expect compares results with lines: the part, and after a colon what the error has.
func expect(t *testing.T, got []health.Result, want ...string) {
	t.Helper()
	var lines []string
	for _, r := range got {
		line := r.Part
		if r.Err != nil {
			line += ": " + r.Err.Error()
		}
		lines = append(lines, line)
	}
	same := len(lines) == len(want)
	for i := 0; same && i < len(want); i++ {
		part, says, fails := strings.Cut(want[i], ": ")
		same = got[i].Part == part && (got[i].Err != nil) == fails && strings.Contains(lines[i], says)
	}
	if !same {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// TestCheck guards against a relay that does not do its work and is healthy, and against
// one that is restarted because of what the user has switched off.
func TestCheck(t *testing.T) {
	status := func(code int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			io.WriteString(w, text)
		}
	}
	for _, test := range []struct {
		name   string
		change func(*derper)
		env    string
		want   []string
	}{
		{name: "all is well", want: []string{"stun", "http", "derp", "verification"}},
		{name: "STUN is off", change: func(d *derper) { d.stun = nil }, env: "RUN_STUN=false", want: []string{"http", "derp", "verification"}},
		{name: "DERP is off", change: func(d *derper) { d.probe = http.NotFound }, env: "RUN_DERP=false", want: []string{"stun", "http", "verification"}},
		{name: "clients are not verified", change: func(d *derper) { d.check = status(500, "no tailscaled") }, env: "VERIFY_CLIENTS=false", want: []string{"stun", "http", "derp"}},
		{name: "no DERP", change: func(d *derper) { d.probe = http.NotFound }, want: []string{"stun", "http", "derp: /derp/probe answered 404", "verification"}},
		{
			name:   "clients cannot be verified",
			change: func(d *derper) { d.check = status(500, "derp server verify failed: no tailscaled\nand more\n") },
			want:   []string{"stun", "http", "derp", "verification: clients cannot be verified: /debug/check answered 500: derp server verify failed: no tailscaled"},
		},
		{name: "no STUN", change: func(d *derper) { d.stun = nil }, want: []string{"stun: connection refused", "http", "derp", "verification"}},
		{
			name: "STUN of another request",
			change: func(d *derper) {
				d.stun = func(_ upstream.TxID, from netip.AddrPort) []byte { return upstream.Response(upstream.NewTxID(), from) }
			},
			want: []string{"stun: answered another request", "http", "derp", "verification"},
		},
		{
			name: "STUN behind something that changes addresses",
			change: func(d *derper) {
				d.stun = func(id upstream.TxID, _ netip.AddrPort) []byte {
					return upstream.Response(id, netip.MustParseAddrPort("192.0.2.1:5"))
				}
			},
			want: []string{"stun: saw the request come from 192.0.2.1:5 instead of 127.0.0.1:", "http", "derp", "verification"},
		},
		{name: "no STUN answer", change: func(d *derper) { d.stun = func(upstream.TxID, netip.AddrPort) []byte { return []byte("hello") } }, want: []string{"stun: 127.0.0.1:", "http", "derp", "verification"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := working()
			if test.change != nil {
				test.change(d)
			}
			expect(t, health.Check(t.Context(), d.start(t, strings.Fields(test.env)...)), test.want...)
		})
	}
}

// TestAddress guards against a check of another address than the one that derper listens
// on: loopback where it listens on all.
func TestAddress(t *testing.T) {
	d := working()
	s := d.start(t)
	_, port := s.Address()
	expect(t, health.Check(t.Context(), changed(s, "ADDR", fmt.Sprintf(":%d", port))), "stun", "http", "derp", "verification")
	expect(t, health.Check(t.Context(), changed(s, "ADDR", fmt.Sprintf("0.0.0.0:%d", port))), "stun", "http", "derp", "verification")
	d.server.Close()
	expect(t, health.Check(t.Context(), s), "stun", fmt.Sprintf("http: no connection to tcp 127.0.0.1:%d: connection refused", port), "verification: no connection")
}

// TestSilent guards against a health check that hangs with the relay.
func TestSilent(t *testing.T) {
	t.Parallel() // it waits
	d := working()
	end := make(chan struct{})
	d.probe = func(http.ResponseWriter, *http.Request) { <-end }
	s := d.start(t)
	defer close(end)
	expect(t, health.Check(t.Context(), changed(s, "VERIFY_CLIENTS", "false")), "stun", fmt.Sprintf("http: nothing within %v", health.Timeout))
}

// TestCertificate guards against a relay whose clients refuse its certificate and which is
// healthy: an old one, or not the one that the user has put there since.
func TestCertificate(t *testing.T) {
	now := time.Now()
	pair := func(t *testing.T, made time.Time) string {
		t.Helper()
		dir := t.TempDir()
		if err := certificate.At(dir, "derp.example.com").Create(made); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, test := range []struct {
		name   string
		made   time.Time
		onDisk string
		err    string // of the part https
		note   string
	}{
		{name: "good", made: now},
		{name: "expires soon", made: now.AddDate(-1, 0, 10), note: "certificate expires in "},
		{name: "has expired", made: now.AddDate(-1, 0, -1), err: "certificate expired on "},
		{name: "is not valid yet", made: now.AddDate(0, 0, 1), err: "certificate is not valid before "},
		{name: "something is wrong with the files", made: now, onDisk: "/x is not the key of /y", note: "/x is not the key of /y"},
		{name: "and it expires soon", made: now.AddDate(-1, 0, 10), onDisk: "/x is not the key", note: "certificate expires in "},
		{name: "it expired, and there is no better one", made: now.AddDate(-1, 0, -1), onDisk: "/x is not the key", err: "; /x is not the key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := working()
			d.certs = pair(t, test.made)
			s := d.start(t)
			s.OnDisk = test.onDisk
			got := health.Check(t.Context(), s)
			// What is wrong with the certificate hides nothing else.
			https := "https"
			if test.err != "" {
				https += ": " + test.err
			}
			expect(t, got, "stun", https, "derp", "verification")
			if note := got[1].Note; !strings.HasPrefix(note, test.note) || (note == "") != (test.note == "") {
				t.Errorf("note %q, want %q", note, test.note)
			}
		})
	}
}

// TestOtherCertificate guards against a derper that serves another certificate than the
// one whose CertName the tailnet policy has.
func TestOtherCertificate(t *testing.T) {
	d := working()
	d.certs = t.TempDir()
	if err := certificate.At(d.certs, "derp.example.com").Create(time.Now()); err != nil {
		t.Fatal(err)
	}
	s := changed(d.start(t), "VERIFY_CLIENTS", "false")
	other := certificate.At(t.TempDir(), "derp.example.com")
	if err := other.Create(time.Now()); err != nil {
		t.Fatal(err)
	}
	cert, err := other.Load()
	if err != nil {
		t.Fatal(err)
	}
	s.Served = &cert
	expect(t, health.Check(t.Context(), s), "stun", "https: derper serves another certificate than ", "derp")
}

// TestNoTLS guards against something else that listens on derper's port.
func TestNoTLS(t *testing.T) {
	d := working()
	got := health.Check(t.Context(), changed(changed(d.start(t), "CERT_MODE", "manual"), "VERIFY_CLIENTS", "false"))
	if len(got) != 2 || got[1].Part != "https" || got[1].Err == nil {
		t.Errorf("%+v", got)
	}
	if err := health.Alive(t.Context(), changed(d.start(t), "CERT_MODE", "manual").Relay); err == nil {
		t.Error("it is alive")
	}
}

// TestAlive guards against a relay that is restarted because of what somebody else took away.
func TestAlive(t *testing.T) {
	d := working()
	d.check = http.NotFound
	s := d.start(t)
	s.Verifier.Socket = "/none"
	if err := health.Alive(t.Context(), s.Relay); err != nil {
		t.Error(err)
	}
	d.server.Close()
	if err := health.Alive(t.Context(), s.Relay); err == nil {
		t.Error("derper is gone, and it is alive")
	}
}
