// Package delivery makes the images of a lock into OCI layouts, one for each variant: it
// builds, compares what came out with what the lock records, or records it, and writes.
//
// A layout is written only when the lock agrees with it and it is within the variant's
// budget, so that one that is there always names an image that somebody may publish or
// compare with.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// A Delivery is images that are to be built, one for each variant.
type Delivery struct {
	// Lock is what is built; LockFile is the file that it was read from.
	Lock     *lock.Lock
	LockFile string
	// Variants are the names of those that are delivered; nil for all of the lock.
	Variants []string
	// Platforms are those that are built; to record takes all of the lock.
	Platforms []lock.Platform
	// Layout is the folder for the layout of the default variant; those of the others end
	// in their suffixes.
	Layout string
	// Record writes what came out into the lock, in place of comparing with it. It builds
	// all variants.
	Record bool
	// Before are the outputs of an earlier lock, by variant, which an image that is over its
	// budget is compared with; those of Lock if nil.
	Before map[string]*lock.Output
	// Compiled is a folder with what [Delivery.Compile] has made on other machines; it may
	// be missing.
	Compiled string

	Cache   *cache.Cache
	Modules *modproxy.Client
	Display *progress.Display

	builder *pipeline.Builder // has what all variants need
}

// Result is what was delivered of a variant.
type Result struct {
	*pipeline.Build
	Variant lock.Variant
	// Layout is the folder; Written is set if it has changed.
	Layout  string
	Written bool
}

// LayoutOf is the folder for the layout of a variant, where base is that of the default.
func LayoutOf(base string, v lock.Variant) string { return base + v.Suffix }

// Run builds the images, in the order of the lock. use reads each after its layout is
// written. The error is a *lock.Difference if one is not what the lock records, or a
// [*BudgetError] if it is too large: then its layout is as it was, and to record, the lock.
func (d *Delivery) Run(ctx context.Context, use ...func(*Result) error) (results []*Result, err error) {
	d.builder = &pipeline.Builder{Cache: d.Cache, Modules: d.Modules, Display: d.Display}
	if err := d.takeCompiled(); err != nil {
		return nil, err
	}
	var before [][]*pipeline.Build
	if d.Record {
		if before, err = d.record(ctx); err != nil {
			return nil, err
		}
	}
	for i, v := range d.Lock.Inputs.Variants {
		if d.Variants != nil && !slices.Contains(d.Variants, v.Name) {
			continue
		}
		r := &Result{Variant: v, Layout: LayoutOf(d.Layout, v)}
		if r.Build, err = d.build(ctx, v, func(built *pipeline.Build) error { return d.deliver(ctx, built, r, use) }); err != nil {
			return nil, err
		}
		for _, builds := range slices.Backward(before) {
			r.After(builds[i])
		}
		results = append(results, r)
	}
	return results, nil
}

// record builds all variants and records what comes out: as the newest image that was
// published, and once more, as the next revision, if any of them differs from it.
func (d *Delivery) record(ctx context.Context) (builds [][]*pipeline.Build, err error) {
	d.Lock.Begin()
	for {
		revision, outputs := d.Lock.Inputs.Revision, map[string]*lock.Output{}
		var these []*pipeline.Build
		for _, v := range d.Lock.Inputs.Variants {
			built, err := d.build(ctx, v, func(built *pipeline.Build) error { return d.withinBudget(ctx, v, built) })
			if err != nil {
				return nil, err
			}
			outputs[v.Name] = built.Output
			these = append(these, built)
		}
		builds, d.Lock.Outputs = append(builds, these), outputs
		if d.Lock.Revise(); d.Lock.Inputs.Revision == revision {
			return builds, d.Lock.Write(d.LockFile)
		}
	}
}

// build builds a variant.
func (d *Delivery) build(ctx context.Context, v lock.Variant, use ...func(*pipeline.Build) error) (*pipeline.Build, error) {
	in, err := d.Lock.Inputs.Of(v.Name)
	if err != nil {
		return nil, err
	}
	built, err := d.builder.For(in).Build(ctx, d.Platforms, use...)
	if err != nil && v.Name != lock.Default && !errors.As(err, new(*lock.Difference)) && !errors.As(err, new(*BudgetError)) { // which name it
		err = fmt.Errorf("variant %s: %w", v.Name, err)
	}
	return built, err
}

// deliver compares an image with the lock, writes it into the layout, and has it used.
func (d *Delivery) deliver(ctx context.Context, built *pipeline.Build, r *Result, use []func(*Result) error) error {
	if err := d.Lock.Compare(r.Variant.Name, built.Output); errors.Is(err, lock.ErrNoOutputs) {
		d.Display.Printf("build: %s records no outputs: nothing to compare with", d.LockFile)
	} else if err != nil {
		return err
	}
	if err := d.withinBudget(ctx, r.Variant, built); err != nil {
		return err
	}
	written, err := d.write(ctx, built, r)
	if err != nil {
		return err
	}
	r.Build, r.Written = built, r.Written || written
	for _, use := range use {
		if err := use(r); err != nil {
			return err
		}
	}
	return nil
}

func (d *Delivery) write(ctx context.Context, built *pipeline.Build, r *Result) (written bool, err error) {
	layout := r.Layout
	unlock, err := cache.LockFolder(ctx, layout, func() { d.Display.Printf("%s: waiting for another build that writes it", layout) })
	if err != nil {
		return false, err
	}
	defer unlock()
	return image.WriteLayout(layout, d.Lock.Inputs.Tailscale.Short()+r.Variant.Suffix, built.Index, d.Cache.VerifyAll)
}
