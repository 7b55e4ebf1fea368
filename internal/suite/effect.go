package suite

import (
	"context"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/probe"
)

// What the variables of a scenario are expected to do.

// page expects a page to hold a text.
func page(path, text string) func(context.Context, *trial) {
	return func(ctx context.Context, t *trial) {
		t.bed.eventually(ctx, func() {
			if p := t.get(ctx, path, http.StatusOK); !strings.Contains(p.Text, text) {
				fail("GET %s does not say %q: %s", path, text, p.Text)
			}
		})
	}
}

// file expects a file in the volume to hold a text.
func file(name, text string) func(context.Context, *trial) {
	return func(_ context.Context, t *trial) {
		if b := must.Get(os.ReadFile(filepath.Join(t.data, name))); !strings.Contains(string(b), text) {
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

// fifthIsLast expects exactly five connections to be accepted: more never come back in the time that this takes.
func fifthIsLast(ctx context.Context, t *trial) {
	accepted := 0
	for range 10 {
		if probe.Caught(func() { t.leaf(ctx, "127.0.0.1") }) == nil {
			accepted++
		}
	}
	if accepted != 5 {
		fail("%d of 10 connections are accepted, wants 5", accepted)
	}
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
			var names []string
			for _, n := range t.nodes() {
				if n.Hostinfo.Valid() {
					names = append(names, n.Hostinfo.Hostname())
				}
			}
			if len(names) != 1 || name != "" && names[0] != name {
				fail("the tailnet has nodes %q, wants one %s", names, name)
			}
		})
	}
}
