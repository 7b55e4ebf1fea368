package pipeline

import (
	"bytes"
	"context"
	"slices"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// flags reads derper's flags in the source of the packages that it is compiled of.
func (b *Builder) flags(pp *plan.PlatformPlan) runner {
	return func(ctx context.Context, a *plan.Action, work string) (_ *cache.Result, err error) {
		derper := b.Inputs.Programs[slices.IndexFunc(b.Inputs.Programs, func(p lock.Program) bool { return p.Name() == plan.Derper })]
		compile, _ := pp.Compiled(derper.Layer())
		source, linked, err := b.linked(ctx, compile, work)
		if err != nil {
			return nil, err
		}
		task := b.Display.Start(a.ID(), "")
		defer func() { task.End(err) }()
		trees := flags.Trees{}
		for _, m := range linked {
			if trees[m.Path], err = source.Tree(m); err != nil {
				return nil, err
			}
		}
		target := flags.Target{OS: pp.Platform.OS(), Arch: pp.Platform.Arch(), Tags: derper.Tags, Go: b.Inputs.Go.Version}
		packages, err := flags.Closure(derper.Package, target, trees.Files)
		if err != nil {
			return nil, err
		}
		read, problems, err := flags.Read(packages, target.Arch)
		if err != nil {
			return nil, err
		}
		for _, p := range problems { // of which the suite says whether it matters
			b.Display.Printf("%s: not understood: %s", a.ID(), p)
		}
		release := setting.Release{Version: b.Inputs.Tailscale.Short(), Flags: read}
		blob, err := b.Cache.Add(bytes.NewReader(release.Bytes()))
		return &cache.Result{Blobs: map[string]cache.Blob{plan.Flags: blob}}, err
	}
}
