package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tailscale.com/types/key"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// The mistake it guards: reasons that are read from a status as no tailscaled
// writes it.
func TestDiagnosis(t *testing.T) {
	env := ports(t)
	c := control(t, env)
	s := start(t, t.TempDir(), append(env, "TS_AUTHKEY="+testKey, "TS_LOGIN_SERVER="+c.BaseURL()))
	s.logged(t, `is ready to verify clients`)
	v := tailscaled.Verifier{Socket: socketOf(t, pidOf(t, s, "tailscaled")), Own: true, HasAuthKey: true, DerperVersion: release.Long()}
	until := func(what string, is func(d tailscaled.Diagnosis) bool) {
		t.Helper()
		eventually(t, time.Minute, func() error {
			if d := tailscaled.Diagnose(t.Context(), v); !is(d) {
				return fmt.Errorf("not %s: %+v", what, d)
			}
			return nil
		})
	}
	until("alone in the tailnet", func(d tailscaled.Diagnosis) bool {
		return d.Reason == nil && d.Alone != nil && strings.Contains(d.Alone.What, "shows tailscaled no other node")
	})
	s.logged(t, `NO CLIENT IS LET IN: the tailnet shows tailscaled no other node\nhint: only nodes that a rule`)
	join(c, key.NewNode())
	s.logged(t, `tailscaled: clients can be verified again`)
	until("well", func(d tailscaled.Diagnosis) bool {
		return d.Reason == nil && d.Alone == nil && len(d.Warnings) == 0 && d.Status.HasPeers
	})
	c.SetExpireAllNodes(true)
	until("expired", func(d tailscaled.Diagnosis) bool {
		return d.Reason != nil && strings.Contains(d.Reason.What, "the key of its node expired on ")
	})
}
