package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/container"
)

// verifyCases are about who may use the relay.
var verifyCases = []Case{
	{Name: "verify/url-allow", Needs: []string{"VERIFY_CLIENT_URL"}, run: verifyURL(answers(http.StatusOK, true), true, "")},
	{Name: "verify/url-deny", Needs: []string{"VERIFY_CLIENT_URL"}, run: verifyURL(answers(http.StatusOK, false), false, "")},
	{Name: "verify/url-not-200", Needs: []string{"VERIFY_CLIENT_URL"}, run: verifyURL(answers(http.StatusInternalServerError, true), false, "answers 500")},
	{Name: "verify/url-unreachable-fail-open", Needs: []string{"VERIFY_CLIENT_URL", "VERIFY_FAIL_OPEN"}, run: verifyURL(hangsUp, true, "derper lets everybody in", "VERIFY_FAIL_OPEN=true")},
	{Name: "verify/url-unreachable-fail-closed", Needs: []string{"VERIFY_CLIENT_URL", "VERIFY_FAIL_OPEN"}, run: verifyURL(hangsUp, false, "derper lets no client in", "VERIFY_FAIL_OPEN=false")},
	{Name: "verify/nodes", run: caseVerifyNodes},
	{Name: "verify/tailscaled", run: caseVerifyTailscaled},
	{Name: "verify/socket", run: caseVerifySocket},
}

// serve serves HTTP on this machine's loopback until the case is over, and returns where.
func (b *bed) serve(h http.Handler) (*httptest.Server, netip.AddrPort) {
	s := httptest.NewServer(h)
	b.onClose(func() error { s.CloseClientConnections(); s.Close(); return nil })
	return s, netip.MustParseAddrPort(s.Listener.Addr().String())
}

// answers is an admission controller that always says the same.
func answers(status int, allow bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req tailcfg.DERPAdmitClientRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || req.NodePublic.IsZero() || r.URL.Path != "/admit" {
			http.Error(w, "no admission request", http.StatusBadRequest)
			return
		}
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(tailcfg.DERPAdmitClientResponse{Allow: allow})
	}
}

// hangsUp is an admission controller that cannot be reached: to derper behind the runner's forwarding, a closed port is
// a connection that ends without an answer. A port that is closed in truth could be another case's before derper asks.
func hangsUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// verifyURL verifies clients at a URL, where h answers, and expects a client to be let in or not; and the health check
// to say what is wrong with the controller, if something is.
func verifyURL(h http.HandlerFunc, want bool, wrong string, env ...string) func(context.Context, *bed) {
	return func(ctx context.Context, b *bed) {
		client := key.NewNode()
		var asked atomic.Bool // about the client: the entrypoint asks, too
		s, at := b.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body := must.Get(io.ReadAll(io.LimitReader(r.Body, 1<<16)))
			if bytes.Contains(body, []byte(client.Public().String())) {
				asked.Store(true)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			h(w, r)
		}))
		c := b.relay(ctx, container.Spec{Reach: []netip.AddrPort{at}, Env: env}, open, "VERIFY_CLIENT_URL="+s.URL+"/admit")
		b.eventually(ctx, func() {
			c.lives()
			c.get(ctx, "/derp/probe", http.StatusOK)
			said, err := c.healthcheck(ctx)
			if wrong == "" {
				must.Do(err)
			} else if err == nil || !strings.Contains(err.Error(), wrong) {
				fail("the health check says %q, %v; it should fail with %q", said, err, wrong)
			}
		})
		c.admits(ctx, "client", client, want)
		if !asked.Load() {
			fail("nobody asked at the URL")
		}
	}
}

// nodeList is a file for VERIFY_NODES.
func nodeList(nodes ...key.NodePrivate) []byte {
	list := "# those who may use the relay\n\n"
	for _, k := range nodes {
		list += k.Public().String() + " # somebody\n"
	}
	return []byte(list)
}

// caseVerifyNodes verifies clients by a file, without any tailscaled, and changes the file.
func caseVerifyNodes(ctx context.Context, b *bed) {
	dir := b.volume("nodes")
	file := filepath.Join(dir, "nodes")
	known, stranger := key.NewNode(), key.NewNode()
	write := func(data []byte) { // as an editor does: a new file in its place
		must.Do(os.WriteFile(file+".new", data, 0o644))
		must.Do(os.Rename(file+".new", file))
	}
	write(nodeList(known))
	c := b.healthy(ctx, container.Spec{Volumes: []container.Volume{{Host: dir, Container: "/nodes", ReadOnly: true}}}, "VERIFY_NODES=/nodes/nodes")
	c.admits(ctx, "a node in the file", known, true)
	c.admits(ctx, "a node that is not in the file", stranger, false)
	c.logged(ctx, stranger.Public().String()) // so that it can be added

	write(nodeList(stranger))
	b.eventually(ctx, func() { c.admits(ctx, "a node that was added", stranger, true) })
	c.admits(ctx, "a node that was removed", known, false)

	write(nil)
	b.eventually(ctx, func() { c.admits(ctx, "a node, with an empty file", stranger, false) })
	c.logged(ctx, "NO CLIENT IS LET IN")
	must.Do(os.Remove(file))
	c.admits(ctx, "a node, without a file", stranger, false)
	c.lives()

	write(nodeList(known))
	b.eventually(ctx, func() { c.admits(ctx, "a node in the new file", known, true) })
}

// authKey is what the control server of the tests wants from a new node.
const authKey = "tskey-auth-suite"

// control starts a control server whose tailnet has one relay and no other, so that no tailscaled asks for more.
func (b *bed) control(relay *tailcfg.DERPNode) (*testcontrol.Server, netip.AddrPort) {
	c := &testcontrol.Server{
		Logf: logger.Discard, RequireAuthKey: authKey, AllOnline: true,
		DERPMap: &tailcfg.DERPMap{OmitDefaultRegions: true, Regions: map[int]*tailcfg.DERPRegion{900: region(relay)}},
	}
	s, at := b.serve(c)
	c.HTTPTestServer = s
	return c, at
}

// region is the one of a DERP map that has only this relay.
func region(relay *tailcfg.DERPNode) *tailcfg.DERPRegion {
	relay.Name, relay.RegionID = "900a", 900
	return &tailcfg.DERPRegion{RegionID: 900, RegionCode: "suite", RegionName: "Suite", Nodes: []*tailcfg.DERPNode{relay}}
}

// join adds a node to the tailnet, as if somebody had logged in with the key.
func join(c *testcontrol.Server, k key.NodePrivate) {
	addr := netip.MustParsePrefix("100.64.99.1/32")
	c.UpdateNode(&tailcfg.Node{
		ID: 99, StableID: "n99", Name: "known.example.", User: 1, // the tailscaled's own: of others, 1.98 knows no profile
		Key: k.Public(), Machine: key.NewMachine().Public(), DiscoKey: key.NewDisco().Public(),
		MachineAuthorized: true, Addresses: []netip.Prefix{addr}, AllowedIPs: []netip.Prefix{addr},
		Hostinfo: (&tailcfg.Hostinfo{Hostname: "known"}).View(), // without one, tailscaled 1.98 cannot say who it is
	})
}

// own is the relay as a tailscaled in its own container reaches it.
func own() *tailcfg.DERPNode {
	return &tailcfg.DERPNode{HostName: "127.0.0.1", IPv4: "127.0.0.1", IPv6: "none", InsecureForTests: true}
}

// knowsItsOwn expects the relay to let in a node of the tailnet, as soon as it knows of it, and nobody else.
func (c *box) knowsItsOwn(ctx context.Context, s *testcontrol.Server) {
	known := key.NewNode()
	c.admits(ctx, "a node before it is in the tailnet", known, false)
	join(s, known)
	c.bed.eventually(ctx, func() { c.admits(ctx, "a node of the tailnet", known, true) })
	c.admits(ctx, "a node that is not in the tailnet", key.NewNode(), false)
}

// caseVerifyTailscaled verifies clients with the tailscaled of the image, which joins a tailnet with a key from a file.
func caseVerifyTailscaled(ctx context.Context, b *bed) {
	s, at := b.control(own())
	dir := b.volume("secrets")
	must.Do(os.WriteFile(filepath.Join(dir, "authkey"), []byte(authKey+"\n"), 0o644))
	c := b.relay(ctx, container.Spec{
		Reach:   []netip.AddrPort{at},
		Volumes: []container.Volume{{Host: dir, Container: "/run/secrets", ReadOnly: true}},
	}, "TS_AUTHKEY_FILE=/run/secrets/authkey", "TS_LOGIN_SERVER="+s.BaseURL())
	c.address()
	c.ready(ctx)
	c.knowsItsOwn(ctx, s)
}

// caseVerifySocket verifies clients with a tailscaled in another container, whose socket directory is mounted.
func caseVerifySocket(ctx context.Context, b *bed) {
	s, at := b.control(own())
	host := b.tailscaled(ctx, s.BaseURL(), "host", at)
	host.becomes(ctx, "Starting", "Running")
	c := b.healthy(ctx, container.Spec{Volumes: []container.Volume{{Host: filepath.Dir(host.Socket), Container: "/var/run/tailscale"}}})
	c.knowsItsOwn(ctx, s)
}
