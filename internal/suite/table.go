package suite

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
)

// effect is a variable with another value than its default, and what that does.
type effect struct {
	name, value string
	given       string                        // the flag's value if it is another: the entrypoint moved it, or it may not be seen
	see         func(context.Context, *trial) // what shows outside; nil is nothing
}

// scenario is a relay with variables that go together.
type scenario struct {
	name    string
	env     []string         // besides the variables
	ports   []container.Port // besides the default ones
	https   int              // the one of HTTPS, if it is another than 443
	up      string           // what the log says when it is there; empty is a healthy relay
	prepare func(*trial)
	effects []effect
	table   *setting.Table
}

// trial is a scenario under way.
type trial struct {
	*box
	bed   *bed
	spec  container.Spec
	env   []string
	data  string                 // volume of the container at /data
	asked chan string            // by servers of the scenario
	nodes func() []*tailcfg.Node // of the tailnet, if it has one
}

// tableCases are the scenarios, with a row for each variable of the entrypoint's table that somebody wrote. One that no
// scenario knows is a row that fails.
func tableCases(table *setting.Table) []Case {
	var cases []Case
	known := map[string]bool{}
	for _, s := range scenarios {
		s = s.in(table)
		if len(s.effects) == 0 {
			continue
		}
		c := Case{Name: "variables/" + s.name, run: s.run}
		for _, e := range s.effects {
			c.Rows = append(c.Rows, rowOf(e.name))
			known[e.name] = true
		}
		cases = append(cases, c)
	}
	for _, v := range table.Variables() {
		if !known[v.Name] && !v.ByRule() {
			cases = append(cases, Case{Name: rowOf(v.Name), run: func(context.Context, *bed) {
				fail("the table has it, and the suite does not know what it does: add it to a scenario in internal/suite")
			}})
		}
	}
	return cases
}

// in is the scenario without what the release lacks, or has as something else.
func (s scenario) in(table *setting.Table) scenario {
	s.table = table
	s.effects = slices.DeleteFunc(slices.Clone(s.effects), func(e effect) bool { return !table.IsKnown(e.name) })
	s.env = slices.DeleteFunc(slices.Clone(s.env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return !table.IsKnown(name)
	})
	return s
}

func rowOf(variable string) string { return "variable/" + variable }

func (s scenario) run(ctx context.Context, b *bed) {
	t := &trial{bed: b, data: b.volume("data"), env: slices.Clone(s.env), asked: make(chan string, 100)}
	t.spec = container.Spec{
		Ports: append([]container.Port{httpsPort, httpPort, stunPort}, s.ports...), Volumes: []container.Volume{{Host: t.data, Container: "/data"}},
		Hosts: map[string]netip.Addr{"boot.example": netip.MustParseAddr("192.0.2.80"), "hidden.example": netip.MustParseAddr("192.0.2.81")},
	}
	for _, e := range s.effects {
		if e.value != "" {
			t.env = append(t.env, e.name+"="+e.value)
		}
	}
	if s.prepare != nil {
		s.prepare(t)
	}
	t.box = b.relay(ctx, t.spec, t.env...)
	if t.nodes != nil {
		t.address()
	}
	if s.https != 0 {
		t.https = tcp(s.https)
	}
	if s.up == "" {
		t.ready(ctx)
	} else {
		t.logged(ctx, s.up)
	}
	var args []string
	if s.name != "version" {
		args = t.derper(ctx).Args
	}
	for _, e := range s.effects {
		b.results[rowOf(e.name)] = probe.Caught(func() {
			e.flag(s.table, args)
			if e.see != nil {
				e.see(ctx, t)
			}
		})
	}
}

// flag expects the variable's flag in derper's command line, if it has one.
func (e effect) flag(table *setting.Table, args []string) {
	v, ok := table.Lookup(e.name)
	switch {
	case !ok:
		fail("the table no longer has it: remove it from the scenarios in internal/suite")
	case v.Flag == "" || args == nil:
		return
	case e.value != "" && e.value == v.Default:
		fail("%s is the default: nothing would show", e.value)
	}
	want := "-" + v.Flag + "=" + cmp.Or(e.given, e.value)
	if !slices.ContainsFunc(args, func(a string) bool { return a == want || e.given != "" && strings.HasPrefix(a, want) }) {
		fail("derper's command line has no %s: %q", want, args)
	}
}

var scenarios = []scenario{
	{
		name: "many", env: []string{open},
		prepare: func(t *trial) {
			must.Do(os.WriteFile(filepath.Join(t.data, "rate.json"), []byte(`{"PerClientRateLimitBytesPerSec": 1234567}`), 0o644))
			must.Do(os.WriteFile(filepath.Join(t.data, "mesh.key"), []byte(strings.Repeat("0123456789abcdef", 4)), 0o644))
		},
		effects: []effect{
			{name: "CONFIG_PATH", value: "/data/node.json", see: func(ctx context.Context, t *trial) {
				d := must.Get(t.connect(ctx, key.NewNode()))
				defer d.Close()
				var stored struct{ PrivateKey key.NodePrivate }
				must.Do(json.Unmarshal(t.bed.read(t.data, "node.json"), &stored))
				if stored.PrivateKey.Public() != d.ServerPublicKey() {
					fail("the file has another key than the relay")
				}
			}},
			{name: "MESH_PSKFILE", value: "/data/mesh.key", see: meshKey},
			{name: "BOOTSTRAP_DNS", value: "boot.example", see: page("/bootstrap-dns", "192.0.2.80")},
			{name: "UNPUBLISHED_DNS", value: "hidden.example", see: func(ctx context.Context, t *trial) {
				page("/bootstrap-dns?q=hidden.example", "192.0.2.81")(ctx, t)
				if p := t.get(ctx, "/bootstrap-dns", 200); strings.Contains(p.Text, "hidden") {
					fail("GET /bootstrap-dns lists what is not to be published: %s", p.Text)
				}
			}},
			{name: "FLAGHOME", value: "https://home.example/", see: func(ctx context.Context, t *trial) {
				if to := t.get(ctx, "/", http.StatusFound).Header.Get("Location"); to != "https://home.example/" {
					fail("GET / leads to %q", to)
				}
			}},
			{name: "RATE_CONFIG", value: "/data/rate.json", see: func(ctx context.Context, t *trial) {
				if n := t.counters(ctx)["rate_limit_per_client_bytes_per_second"]; n != 1234567 {
					fail("the relay limits clients to %v bytes a second, wants 1234567", n)
				}
			}},
			{name: "DISALLOW_APP_NAMES", value: "nobody,else"},
			{name: "TCP_KEEPALIVE_TIME", value: "7m0s"},
			{name: "TCP_USER_TIMEOUT", value: "9s"},
			{name: "TCP_WRITE_TIMEOUT", value: "3s"},
			{name: "ACE", value: "true", see: func(ctx context.Context, t *trial) {
				if p := t.request(ctx, "CONNECT", "https", t.https, ""); strings.Contains(p.Text, "not enabled") {
					fail("CONNECT: %s: %s", p.Status, p.Text)
				}
			}},
		},
	},
	{
		name: "https-port", env: []string{open}, ports: []container.Port{tcp(8443)}, https: 8443,
		effects: []effect{{name: "ADDR", value: ":8443", see: page("/derp/probe", "")}},
	},
	{
		name: "http-port", env: []string{open}, ports: []container.Port{tcp(8080)},
		effects: []effect{{name: "HTTP_PORT", value: "8080", see: func(ctx context.Context, t *trial) {
			must.Do(t.request(ctx, "GET", "http", tcp(8080), "/generate_204").Want(http.StatusNoContent))
		}}},
	},
	{
		name: "stun-port", env: []string{open}, ports: []container.Port{udp(3479)},
		effects: []effect{{name: "STUN_PORT", value: "3479", see: func(ctx context.Context, t *trial) {
			must.Do(t.stun(ctx, 3479, t.bed.patience))
		}}},
	},
	{
		name: "name", env: []string{open},
		effects: []effect{{name: "HOSTNAME", value: "relay.example", see: func(ctx context.Context, t *trial) { t.leaf(ctx, "relay.example") }}},
	},
	{
		name: "certificates", env: []string{open},
		effects: []effect{{name: "CERT_DIR", value: "/data/certs", see: file("certs/127.0.0.1.crt", "CERTIFICATE")}},
	},
	{
		name: "off", env: []string{open},
		effects: []effect{
			{name: "RUN_STUN", value: "false", see: func(ctx context.Context, t *trial) {
				for range tries {
					if err := t.stun(ctx, 3478, time.Second); err == nil {
						fail("STUN is answered")
					}
				}
			}},
			{name: "RUN_DERP", value: "false", see: func(ctx context.Context, t *trial) { t.get(ctx, "/derp", http.StatusNotFound) }},
		},
	},
	{
		name: "open",
		effects: []effect{{name: "VERIFY_CLIENTS", value: "false", see: func(ctx context.Context, t *trial) {
			t.admits(ctx, "a stranger", key.NewNode(), true)
		}}},
	},
	{
		name: "certificates-gcp", up: "serving on :443", // which no client can see without asking Google
		env:     []string{open, "HOSTNAME=relay.example", "ACME_EMAIL=owner@example.com", "ACME_EAB_KID=kid-1", "ACME_EAB_KEY=c2VjcmV0LWVhYi1rZXk"},
		effects: []effect{{name: "CERT_MODE", value: "gcp"}},
	},
	{
		name: "acme", env: []string{open, "HOSTNAME=relay.example", "CERT_MODE=letsencrypt"}, up: "serving on :443",
		effects: []effect{
			{name: "ACME_EMAIL", value: "owner@example.com"},
			{name: "ACME_EAB_KID", value: "kid-1"},
			{name: "ACME_EAB_KEY", value: "c2VjcmV0LWVhYi1rZXk"},
		},
	},
	{
		name: "acme-ip", env: []string{open, "HOSTNAME=relay.example", "CERT_MODE=letsencrypt"}, up: "serving on :443",
		effects: []effect{{name: "ACME_IP_CERTS", value: "true"}},
	},
	{
		name: "connection-limit", env: []string{open, "ACCEPT_CONNECTION_BURST=5"}, up: "serving on :443",
		effects: []effect{{name: "ACCEPT_CONNECTION_LIMIT", value: "0.001", see: limited}},
	},
	{
		name: "connection-burst", env: []string{open, "ACCEPT_CONNECTION_LIMIT=0.001"}, up: "serving on :443",
		effects: []effect{{name: "ACCEPT_CONNECTION_BURST", value: "5", see: limited}},
	},
	{
		name: "admission", env: []string{open},
		prepare: func(t *trial) {
			s, at := t.bed.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				t.asked <- r.URL.Path
				answers(http.StatusOK, false)(w, r)
			}))
			t.spec.Reach = []netip.AddrPort{at}
			t.env = append(t.env, "VERIFY_CLIENT_URL="+s.URL+"/admit")
		},
		effects: []effect{
			{name: "VERIFY_CLIENT_URL", given: "http://127.0.0.1:", see: func(ctx context.Context, t *trial) {
				t.admits(ctx, "a client that the URL denies", key.NewNode(), false)
				t.heard("/admit")
			}},
			{name: "VERIFY_FAIL_OPEN", value: "false"}, // seen in verify/url-unreachable-fail-closed
		},
	},
	{
		name: "nodes",
		prepare: func(t *trial) {
			must.Do(os.WriteFile(filepath.Join(t.data, "nodes"), nodeList(key.NewNode()), 0o644))
		},
		effects: []effect{{name: "VERIFY_NODES", value: "/data/nodes", see: knowsNodes}},
	},
	{
		name: "metrics", env: []string{open}, ports: []container.Port{metricsPort},
		effects: []effect{{name: "METRICS_ADDR", value: ":9100", see: func(ctx context.Context, t *trial) {
			t.measures(ctx, "relay_up", 1)
		}}},
	},
	{
		name: "socket", up: "serving on :443",
		effects: []effect{{name: "SOCKET", value: "/data/elsewhere.sock", see: says("no tailscaled at /data/elsewhere.sock")}},
	},
	{
		name: "mesh-key", env: []string{open},
		effects: []effect{{name: "MESH_PSK", value: strings.Repeat("0123456789abcdef", 4), see: meshKey}},
	},
	{
		name: "mesh-with", env: []string{open, "MESH_PSK=" + strings.Repeat("0123456789abcdef", 4)},
		effects: []effect{{name: "MESH_WITH", value: "other.example", see: says(`mesh("other.example")`)}},
	},
	{
		name: "secrets", env: []string{open},
		prepare: func(t *trial) {
			s, at := t.bed.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var req struct{ Name string }
				json.NewDecoder(r.Body).Decode(&req)
				t.asked <- req.Name
				json.NewEncoder(w).Encode(map[string]any{"Value": []byte(strings.Repeat("0123456789abcdef", 4)), "Version": 1})
			}))
			t.spec.Reach = []netip.AddrPort{at}
			t.env = append(t.env, "SECRETS_URL="+s.URL)
		},
		effects: []effect{
			{name: "SECRETS_URL", given: "http://127.0.0.1:", see: meshKey},
			{name: "SECRETS_PREFIX", value: "suite/secrets", see: func(_ context.Context, t *trial) { t.heard("suite/secrets/meshkey") }},
			{name: "SECRETS_CACHEDIR", value: "/data/cache/secrets.json", see: file("cache/secrets.json", "meshkey")},
		},
	},
	{
		name: "auth-key", prepare: joins(authKey),
		effects: []effect{{name: "TS_AUTHKEY", value: authKey, see: joined("")}},
	},
	{
		name: "tailscaled", prepare: joins(""),
		effects: []effect{{name: "TAILSCALED", value: "true", see: joined("")}},
	},
	{
		name: "login-server", env: []string{"TAILSCALED=true", "TS_AUTHKEY=" + authKey}, prepare: joins(""),
		effects: []effect{{name: "TS_LOGIN_SERVER", see: joined("")}},
	},
	{
		name: "tailnet-name", env: []string{"TAILSCALED=true", "TS_AUTHKEY=" + authKey}, prepare: joins(""),
		effects: []effect{{name: "TS_HOSTNAME", value: "relay-of-the-suite", see: joined("relay-of-the-suite")}},
	},
	{
		name: "peer-relay", env: []string{"TS_AUTHKEY=" + authKey}, prepare: joins(authKey),
		effects: []effect{{name: "PEER_RELAY_PORT", value: "40000", see: relaysAt(40000)}},
	},
	{
		name: "peer-relay-endpoints", env: []string{"TS_AUTHKEY=" + authKey, "PEER_RELAY_PORT=40000"}, prepare: joins(authKey),
		effects: []effect{{
			name: "PEER_RELAY_ENDPOINTS", value: "192.0.2.9:40000,[2001:db8::9]:41000", see: relaysFor("192.0.2.9:40000", "[2001:db8::9]:41000"),
		}},
	},
	{
		name: "development", env: []string{open}, ports: []container.Port{tcp(3340)}, https: 3340,
		effects: []effect{{name: "DEV", value: "true", see: page("/derp/probe", "")}},
	},
	{
		name: "version", env: []string{open}, up: "-t",
		effects: []effect{{name: "VERSION_FLAG", value: "true", see: func(ctx context.Context, t *trial) {
			if code := must.Get(t.code(ctx)); code != 0 || !derperCommit.MatchString(t.Logs()) {
				fail("code %d, wants 0 and derper's version", code)
			}
		}}},
	},
}
