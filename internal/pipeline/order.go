package pipeline

import (
	"slices"

	"github.com/xavieralpha/derper/internal/plan"
)

// order says after which other action one is to run, though it takes nothing from it. What
// is compiled for a platform is compiled in turn, because programs have most of their
// packages in common, and two go commands at once would both compile those that neither
// has compiled yet: derper first, which has no build tags and all packages that the
// entrypoint and the CA bundle need. What no tag touches is compiled once.
func order(p *plan.Plan) map[*plan.Action]*plan.Action {
	after := map[*plan.Action]*plan.Action{}
	for _, pp := range p.Platforms {
		turns := slices.Clone(pp.Compile)
		if i := slices.IndexFunc(turns, func(a *plan.Action) bool { return slices.Contains(a.Outputs, plan.Derper) }); i > 0 {
			derper := turns[i]
			turns = slices.Insert(slices.Delete(turns, i, i+1), 0, derper)
		}
		for i, a := range turns[1:] {
			after[a] = turns[i]
		}
		after[pp.Entrypoint] = turns[0]
		if string(pp.Platform) == Host {
			after[p.Roots] = turns[0]
		}
	}
	return after
}
