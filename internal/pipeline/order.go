package pipeline

import (
	"slices"
	"sync"

	"github.com/xavieralpha/derper/internal/plan"
)

// order says after which other action one is to run, though it takes nothing from it. What
// is compiled for a platform is compiled in turn, because programs have most of their
// packages in common, and two go commands at once would both compile those that neither
// has compiled yet: derper first, which has no build tags and all packages that the
// entrypoint and the CA bundle need. What no tag touches is compiled once. The entrypoint is
// the last one: it is small, and fills in where the linker of a large program uses one core.
func order(p *plan.Plan) map[*plan.Action]*plan.Action {
	after := map[*plan.Action]*plan.Action{}
	for _, pp := range p.Platforms {
		list := slices.Clone(pp.Compile)
		if i := slices.IndexFunc(list, func(a *plan.Action) bool { return slices.Contains(a.Outputs, plan.Derper) }); i > 0 {
			derper := list[i]
			list = slices.Insert(slices.Delete(list, i, i+1), 0, derper)
		}
		list = append(list, pp.Entrypoint)
		for i, a := range list[1:] {
			after[a] = list[i]
		}
		if string(pp.Platform) == Host {
			after[p.Roots] = list[0]
		}
	}
	return after
}

// A turn is over before its action is done: when that compiles no more packages which
// another one has, too, and only links.
type turn struct {
	over <-chan struct{}
	end  func() // may be called again
}

func newTurn() turn {
	over := make(chan struct{})
	return turn{over, sync.OnceFunc(func() { close(over) })}
}
