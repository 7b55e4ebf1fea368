package delivery

import (
	"context"
	"slices"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
)

// Compiling are the variants that have something to compile which none before them has.
func Compiling(in lock.Inputs) (names []string, err error) {
	return names, eachOwn(in, func(variant string, _ *plan.Plan, own []*plan.Action) error {
		if len(own) > 0 {
			names = append(names, variant)
		}
		return nil
	})
}

// Compile compiles what the variants have that none before them in the lock has, for all
// platforms, and leaves it in the folder Compiled. It assembles nothing, and so it can be
// done for each variant on a machine of its own.
func (d *Delivery) Compile(ctx context.Context) error {
	builder := &pipeline.Builder{Cache: d.Cache, Modules: d.Modules, Display: d.Display}
	return eachOwn(d.Lock.Inputs, func(variant string, p *plan.Plan, own []*plan.Action) error {
		if d.Variants != nil && !slices.Contains(d.Variants, variant) {
			return nil
		}
		in, err := d.Lock.Inputs.Of(variant)
		if err != nil {
			return err
		}
		if err := builder.For(in).Compile(ctx, p, own); err != nil {
			return err
		}
		return d.Cache.Export(keysOf(own), d.Compiled)
	})
}

// takeCompiled takes in what Compile has made on other machines, and nothing else that is in
// the folder.
func (d *Delivery) takeCompiled() error {
	if d.Compiled == "" {
		return nil
	}
	return eachOwn(d.Lock.Inputs, func(_ string, _ *plan.Plan, own []*plan.Action) error {
		return d.Cache.Import(keysOf(own), d.Compiled)
	})
}

func keysOf(actions []*plan.Action) (keys []string) {
	for _, a := range actions {
		keys = append(keys, a.Key())
	}
	return keys
}

// eachOwn does something for each variant, with its plan and the actions in it that compile
// something and are of no variant before it.
func eachOwn(in lock.Inputs, do func(variant string, p *plan.Plan, own []*plan.Action) error) error {
	before := map[string]bool{}
	for _, v := range in.Variants {
		of, err := in.Of(v.Name)
		if err != nil {
			return err
		}
		p, err := pipeline.Plan(of, in.Platforms)
		if err != nil {
			return err
		}
		own := slices.DeleteFunc(p.Actions(), func(a *plan.Action) bool { return a.Args == nil || before[a.Key()] })
		for _, a := range own {
			before[a.Key()] = true
		}
		if err := do(v.Name, p, own); err != nil {
			return err
		}
	}
	return nil
}
