package suite

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"tailscale.com/client/local"
	"tailscale.com/types/key"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/probe"
)

// What the variables of a scenario are expected to do.

// page expects a page to hold a text.
func page(at, text string) func(context.Context, *trial) {
	return func(ctx context.Context, t *trial) {
		t.bed.eventually(ctx, func() {
			if p := t.get(ctx, at, http.StatusOK); !strings.Contains(p.Text, text) {
				fail("GET %s does not say %q: %s", at, text, p.Text)
			}
		})
	}
}

// file expects a file in the volume to hold a text.
func file(name, text string) func(context.Context, *trial) {
	return func(_ context.Context, t *trial) {
		if b := t.bed.read(t.data, name); !strings.Contains(string(b), text) {
			fail("/data/%s does not say %q", name, text)
		}
	}
}

// says expects a text in the log.
func says(text string) func(context.Context, *trial) {
	return func(ctx context.Context, t *trial) { t.logged(ctx, text) }
}

// meshKey expects the relay to have a mesh key, as its debug page tells.
func meshKey(ctx context.Context, t *trial) {
	if p := t.get(ctx, "/debug/", http.StatusOK); !strings.Contains(p.Text, "Mesh key:</b> true") {
		fail("the relay's debug page says that it has no mesh key")
	}
}

// limited expects the relay to outlive more connections than its limit allows: derper ends with the first of them, and
// is started again at once.
func limited(ctx context.Context, t *trial) {
	t.settle()
	accepted := 0
	for accepted < 10 && probe.Caught(func() { t.leaf(ctx, "127.0.0.1") }) == nil {
		accepted++
	}
	if accepted > 5 {
		fail("%d connections are accepted one after another, wants 5 at most", accepted)
	}
	t.logged(ctx, "cannot accept connection; rate limited")
	t.logged(ctx, "derper: ended with code 1; starting it again")
	page("/derp/probe", "")(ctx, t)
	t.lives()
}

// knowsNodes expects derper to ask the entrypoint about its clients, and nobody else.
func knowsNodes(ctx context.Context, t *trial) {
	args := t.derper(ctx).Args
	url := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-verify-client-url=http://127.0.0.1:") })
	closed := slices.Contains(args, "-verify-client-url-fail-open=false")
	if url < 0 || !closed || slices.Contains(args, "-verify-clients=true") || slices.Contains(args, "-verify-clients") {
		fail("derper's command line does not leave verification to the entrypoint alone: %q", args)
	}
	t.admits(ctx, "a node that is not in the file", key.NewNode(), false)
}

// relaysAt expects the relay's tailscaled to be a peer relay at that port.
func relaysAt(port uint16) func(context.Context, *trial) {
	return func(ctx context.Context, t *trial) {
		t.bed.eventually(ctx, func() {
			st := must.Get(t.sidecar(ctx).DebugPeerRelaySessions(ctx))
			if st.UDPPort == nil || *st.UDPPort != port {
				fail("tailscaled is no peer relay at port %d: %+v", port, st)
			}
		})
	}
}

// relaysFor expects the relay's tailscaled to name these addresses to who wants to use it as a peer relay.
func relaysFor(endpoints ...string) func(context.Context, *trial) {
	return func(ctx context.Context, t *trial) {
		t.bed.eventually(ctx, func() {
			var have []string
			for _, a := range must.Get(t.sidecar(ctx).GetPrefs(ctx)).RelayServerStaticEndpoints {
				have = append(have, a.String())
			}
			if !slices.Equal(have, endpoints) {
				fail("tailscaled has the static endpoints %q, wants %q", have, endpoints)
			}
		})
	}
}

// sidecar is the tailscaled in the relay's container.
func (c *box) sidecar(ctx context.Context) *local.Client {
	p := c.process(ctx, "tailscaled")
	for _, a := range p.Args {
		if socket, ok := strings.CutPrefix(a, "--socket="); ok {
			from := "cwd"
			if path.IsAbs(socket) {
				from = "root"
			}
			return &local.Client{Dial: dialSocket(path.Join("/proc", strconv.Itoa(p.PID), from), strings.TrimLeft(socket, "/")), OmitAuth: true}
		}
	}
	fail("tailscaled has no socket: %q", p.Args)
	return nil
}

// heard expects that a server of the scenario was asked for something.
func (t *trial) heard(what string) {
	var all []string
	for len(t.asked) > 0 {
		s := <-t.asked
		if s == what {
			return
		}
		all = append(all, s)
	}
	fail("nobody asked for %s, only for %q", what, all)
}

// joins gives the scenario a control server that wants this auth key.
func joins(authKey string) func(*trial) {
	return func(t *trial) {
		s, at := t.bed.control(own())
		s.RequireAuthKey = authKey
		t.spec.Reach = []netip.AddrPort{at}
		t.env = append(t.env, "TS_LOGIN_SERVER="+s.BaseURL())
		t.nodes = s.AllNodes
	}
}

// joined expects the relay's tailscaled in the tailnet, under that name if it matters.
func joined(name string) func(context.Context, *trial) {
	return func(ctx context.Context, t *trial) {
		t.bed.eventually(ctx, func() {
			// A login that tailscaled begins again, as its network comes up, has another node
			// key: the control server then knows the same machine twice.
			machines := map[key.MachinePublic]string{}
			for _, n := range t.nodes() {
				if n.Hostinfo.Valid() {
					machines[n.Machine] = n.Hostinfo.Hostname()
				}
			}
			names := slices.Collect(maps.Values(machines))
			if len(names) != 1 || name != "" && names[0] != name {
				fail("the tailnet has machines %q, wants one %s", names, name)
			}
		})
	}
}
