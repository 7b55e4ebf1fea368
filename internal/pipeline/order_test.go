package pipeline

import (
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// TestOrder guards against go commands that compile the same packages at once, and against
// one that waits for another platform.
func TestOrder(t *testing.T) {
	sources, err := Sources()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read("../../versions.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.New(l.Inputs, sources, []lock.Platform{"linux/arm64", "linux/amd64"}, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	after := order(p)
	for _, pp := range p.Platforms {
		derper, _ := pp.Compiled(plan.Derper)
		tailscaled, _ := pp.Compiled(plan.Tailscaled)
		if after[tailscaled] != nil || after[derper] != tailscaled || after[pp.Entrypoint] != derper {
			t.Errorf("%s: tailscaled after %v, derper after %v, entrypoint after %v", pp.Platform, after[tailscaled], after[derper], after[pp.Entrypoint])
		}
		if string(pp.Platform) == Host && after[p.Roots] != tailscaled {
			t.Errorf("roots after %v", after[p.Roots])
		}
	}
}
