package pipeline

import (
	"slices"
	"sync"

	"github.com/xavieralpha/derper/internal/plan"
)

// order says after which other action one is to run, though it takes nothing from it. What
// is compiled for a platform is compiled in turn, because programs have most of their
// packages in common, and two go commands at once would both compile those that neither
// has compiled yet. So what no build tag touches is compiled once. The linker of a large
// program uses one core, and what comes next has the others. The smallest program is last.
func order(p *plan.Plan) map[*plan.Action]*plan.Action {
	after := map[*plan.Action]*plan.Action{}
	for _, pp := range p.Platforms {
		list := append(slices.Clone(pp.Compile), pp.Entrypoint)
		for i, a := range list[1:] {
			after[a] = list[i]
		}
		if string(pp.Platform) == Host {
			after[p.Roots] = list[0]
		}
	}
	return after
}

// A turn is an action's, to compile. It is over before the action is done, when all packages
// that others may need as well are compiled, and what is left is to link.
type turn struct {
	over <-chan struct{}
	end  func() // may be called again
}

func newTurn() turn {
	over := make(chan struct{})
	return turn{over, sync.OnceFunc(func() { close(over) })}
}
