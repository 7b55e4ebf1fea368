package suite

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/freeport"
)

// networkCases are about several containers.
var networkCases = []Case{
	{Name: "mesh", run: caseMesh},
	{Name: "end-to-end", run: caseEndToEnd},
}

// caseMesh meshes two relays and has a client of one reach a client of the other. They trust each other by a
// certificate authority, as they would with certificates of Let's Encrypt.
func caseMesh(ctx context.Context, b *bed) error {
	names := []string{"a.example", "b.example"}
	var ports []int
	for range names {
		p, err := freeport.Choose("127.0.0.1")
		if err != nil {
			return err
		}
		ports = append(ports, p)
	}
	var relays []*box
	for i, name := range names {
		dir, err := b.volume(name)
		if err != nil {
			return err
		}
		if err := certificates(dir, names); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "mesh.key"), []byte(strings.Repeat("0123456789abcdef", 4)), 0o644); err != nil {
			return err
		}
		other := 1 - i
		p := httpsPort
		p.Host = ports[i]
		c, err := b.relay(ctx, container.Spec{
			Ports: []container.Port{p, httpPort, stunPort}, Reach: []netip.AddrPort{loopback(ports[other])},
			Hosts:   map[string]netip.Addr{names[other]: loopback(0).Addr()},
			Volumes: []container.Volume{{Host: dir, Container: "/certs"}},
		}, open, "HOSTNAME="+name, "CERT_DIR=/certs", "SSL_CERT_FILE=/certs/ca.pem",
			"MESH_PSK_FILE=/certs/mesh.key", fmt.Sprintf("MESH_WITH=%s:%d", names[other], ports[other]))
		if err != nil {
			return err
		}
		relays = append(relays, c)
	}
	for _, c := range relays {
		if err := c.ready(ctx); err != nil {
			return err
		}
	}
	// It takes a moment until the relays have found each other.
	if err := b.eventually(ctx, func() error { return acrossMesh(ctx, relays) }); err != nil {
		return err
	}
	for i, c := range relays {
		n, err := c.counters(ctx)
		if err != nil {
			return err
		}
		if n["packets_forwarded_out"] < 1 || n["packets_forwarded_in"] < 1 {
			return fmt.Errorf("%s forwarded %v packets, and got %v: they took another way", names[i], n["packets_forwarded_out"], n["packets_forwarded_in"])
		}
	}
	return nil
}

// acrossMesh connects a client to each relay and has them talk.
func acrossMesh(ctx context.Context, relays []*box) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var clients []*client
	for _, c := range relays {
		d, err := c.connect(ctx, key.NewNode())
		if err != nil {
			return err
		}
		defer d.Close()
		clients = append(clients, d)
	}
	time.Sleep(100 * time.Millisecond) // the relays tell each other about them
	for i := range clients {
		if err := relayed(ctx, clients[i], clients[1-i], 1000); err != nil {
			return fmt.Errorf("from a client of %s to one of %s: %w", relays[i].name, relays[1-i].name, err)
		}
	}
	return nil
}

// certificates writes a pair for each name to dir, and ca.pem, which signed them. All calls make the same CA.
func certificates(dir string, names []string) error {
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 6, 0),
		}
	}
	ca := template("suite CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	files := map[string][]byte{"ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})}
	for _, name := range names {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		c := template(name)
		c.DNSNames, c.KeyUsage, c.ExtKeyUsage = []string{name}, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &k.PublicKey, caKey)
		if err != nil {
			return err
		}
		kder, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return err
		}
		files[name+".crt"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		files[name+".key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// caKey is the key of the CA of this run.
var caKey = func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}()

// peer is a tailscaled of the image in a container of its own.
type peer struct {
	*box
	local.Client
}

// tailscaled starts one, which joins the tailnet. It has no network but what it may reach.
func (b *bed) tailscaled(ctx context.Context, control, name string, reach []netip.AddrPort) (*peer, error) {
	dir, err := b.volume(name)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"version": "alpha0", "enabled": true, "acceptDNS": false, "acceptRoutes": false,
		"authKey": authKey, "serverURL": control, "hostname": name,
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
		return nil, err
	}
	c, err := b.start(ctx, container.Spec{
		Args: []string{"tailscaled", "--tun=userspace-networking", "--state=mem:", "--port=0",
			"--socket=/run/peer/tailscaled.sock", "--config=/run/peer/config.json"},
		Env:     []string{"TS_DEBUG_ALWAYS_USE_DERP=true"},
		Volumes: []container.Volume{{Host: dir, Container: "/run/peer"}}, Reach: reach,
	})
	if err != nil {
		return nil, err
	}
	c.address()
	return &peer{c, local.Client{Socket: filepath.Join(dir, "tailscaled.sock"), UseSocketOnly: true}}, nil
}

// state returns an error unless the tailscaled is in one of these states.
func (p *peer) state(ctx context.Context, states ...string) error {
	st, err := p.Status(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(states, st.BackendState) {
		return fmt.Errorf("tailscaled is in state %s, wants %v", st.BackendState, states)
	}
	return nil
}

// caseEndToEnd has two tailscaled reach each other. Each is in a network without a way out but to the control server
// and to the relay, so whatever passes between them has passed the relay.
func caseEndToEnd(ctx context.Context, b *bed) error {
	relay, err := b.relay(ctx, container.Spec{}, open)
	if err != nil {
		return err
	}
	if err := relay.ready(ctx); err != nil {
		return err
	}
	n, err := relay.derpMap(ctx)
	if err != nil {
		return err
	}
	at, err := relay.Addr(httpsPort)
	if err != nil {
		return err
	}
	s, controlAt := b.control(&tailcfg.DERPNode{
		HostName: n.HostName, IPv4: n.HostName, IPv6: "none", CertName: n.CertName, DERPPort: int(at.Port()), STUNPort: -1,
	})
	s.AllNodesSameUser = true
	body := bytes.Repeat([]byte("through the relay only. "), 1<<20/24)
	_, webAt := b.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))

	var peers []*peer
	for _, name := range []string{"alice", "bob"} {
		reach := []netip.AddrPort{controlAt, at}
		if name == "bob" {
			reach = append(reach, webAt) // tailscaled hands what comes for its port to its own loopback
		}
		p, err := b.tailscaled(ctx, s.BaseURL(), name, reach)
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	alice, bob := peers[0], peers[1]
	for _, p := range peers {
		if err := b.eventually(ctx, func() error { return p.state(ctx, "Running") }); err != nil {
			return err
		}
	}
	st, err := bob.StatusWithoutPeers(ctx)
	if err != nil {
		return err
	}
	if len(st.TailscaleIPs) == 0 {
		return errors.New("bob has no address in the tailnet")
	}
	ip := st.TailscaleIPs[0]
	before, err := relay.counters(ctx)
	if err != nil {
		return err
	}
	if err := b.eventually(ctx, func() error {
		pctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		r, err := alice.Ping(pctx, ip, tailcfg.PingDisco)
		switch {
		case err != nil:
			return fmt.Errorf("ping: %w", err)
		case r.Err != "":
			return fmt.Errorf("ping: %s", r.Err)
		case r.DERPRegionID != 900 || r.Endpoint != "":
			return fmt.Errorf("ping: took another way: region %d, endpoint %q", r.DERPRegionID, r.Endpoint)
		}
		b.note = fmt.Sprintf("ping %.1f ms", r.LatencySeconds*1000)
		return nil
	}); err != nil {
		return err
	}
	hc := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return alice.DialTCP(ctx, ip.String(), webAt.Port())
		},
	}}
	req, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://%v/", netip.AddrPortFrom(ip, webAt.Port())), nil)
	if err != nil {
		return err
	}
	res, err := hc.Do(req)
	if err != nil {
		return fmt.Errorf("HTTP over the tailnet: %w", err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, body) {
		return fmt.Errorf("HTTP over the tailnet: %d of %d bytes came: %w", len(got), len(body), err)
	}
	after, err := relay.counters(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"bytes_received", "bytes_sent"} {
		if n := after[name] - before[name]; n < float64(len(body)) {
			return fmt.Errorf("the relay's counter %s says %.0f for a transfer of %d: it took another way", name, n, len(body))
		}
	}
	b.note += fmt.Sprintf(", %d bytes of HTTP in %.0f packets of the relay", len(got), after["packets_sent"]-before["packets_sent"])
	return nil
}
