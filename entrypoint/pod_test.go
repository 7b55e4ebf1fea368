package main

import (
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

// The mistake it guards: a health check that comes while the program ends, and finds a
// relay without settings.
func TestAskedAtTheEnd(t *testing.T) {
	set, problems := setting.Known().Read([]string{"HOSTNAME=derp.example.com", "ADDR=127.0.0.1:1", "STUN_PORT=1", "HTTP_PORT=1", "VERIFY_CLIENTS=false"}, nil, "")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	p := &pod{launch: launch{relay: relay.New(set)}, calls: make(chan func()), over: make(chan struct{})}
	close(p.over)
	for command, want := range map[string]string{"healthcheck": "healthcheck: ", "env": "HOSTNAME=derp.example.com", "derpmap": `"HostName": "derp.example.com"`} {
		if a := p.answer(t.Context(), command); !strings.Contains(a.Out+a.Err, want) {
			t.Errorf("%s: %+v", command, a)
		}
	}
}
