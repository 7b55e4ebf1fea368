package main

import (
	"testing"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// The mistake it guards: a question to tailscaled about its configuration that
// the real one answers in other words than expected.
func TestTailscaledSupports(t *testing.T) {
	program := underTest(t, "tailscaled")
	for member, want := range map[string]bool{"RelayServerPort": true, "RelayServerStaticEndpoints": true, "RelayServerPortSet": false} {
		if got, err := tailscaled.Supports(t.Context(), program, member); err != nil || got != want {
			t.Errorf("%s: %v, %v", member, got, err)
		}
	}
}
