// Package delivery makes the image of a lock into an OCI layout: it builds, compares what
// came out with what the lock records, or records it, and writes the layout.
//
// A layout is written only when the lock agrees with it and it is within the variant's
// budget, so that one that is there always names an image that somebody may publish or
// compare with.
package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// A Delivery is an image that is to be built.
type Delivery struct {
	// Lock is what is built; LockFile is the file that it was read from.
	Lock     *lock.Lock
	LockFile string
	// Platforms are those that are built; to record takes all of the lock.
	Platforms []lock.Platform
	// Layout is the folder for the layout.
	Layout string
	// Record writes what came out into the lock, in place of comparing with it.
	Record bool

	Cache   *cache.Cache
	Modules *modproxy.Client
	Display *progress.Display
}

// Result is what was delivered.
type Result struct {
	*pipeline.Build
	// Written is set if the layout has changed.
	Written bool
}

// Run builds the image. use reads it after the layout is written. The error is a
// *lock.Difference if it is not what the lock records, or a [*BudgetError] if it is too
// large: then lock and layout are as they were.
func (d *Delivery) Run(ctx context.Context, use ...func(*pipeline.Build) error) (*Result, error) {
	if n := len(d.Lock.Inputs.Variants); d.Record && n > 1 {
		return nil, fmt.Errorf("%s: has %d variants, and this program records one", d.LockFile, n)
	}
	if d.Record {
		// As the newest image that was published: what differs from it is the next one.
		d.Lock.Begin()
	}
	result := &Result{}
	first, err := d.build(ctx, result, use)
	if err != nil || !d.Record || first.Revision == d.Lock.Inputs.Revision {
		return result, err
	}
	// It differs from the published image, so it is built as the next revision.
	before := result.Build
	if _, err = d.build(ctx, result, use); err == nil {
		result.After(before)
	}
	return result, err
}

// build builds the lock's inputs as they are, which it returns, and delivers what comes
// out, unless that is to have another revision.
func (d *Delivery) build(ctx context.Context, result *Result, use []func(*pipeline.Build) error) (lock.Inputs, error) {
	in := d.Lock.Inputs
	builder := &pipeline.Builder{Inputs: in, Cache: d.Cache, Modules: d.Modules, Display: d.Display}
	built, err := builder.Build(ctx, d.Platforms, func(built *pipeline.Build) error {
		if err := d.withinBudget(ctx, built); err != nil {
			return err
		}
		if d.Record {
			d.Lock.Outputs = map[string]*lock.Output{in.Variant().Name: built.Output}
			if d.Lock.Revise(); d.Lock.Inputs.Revision != in.Revision {
				return nil
			}
			if err := d.Lock.Write(d.LockFile); err != nil {
				return err
			}
		}
		if err := d.deliver(ctx, built, result); err != nil {
			return err
		}
		for _, use := range use {
			if err := use(built); err != nil {
				return err
			}
		}
		return nil
	})
	result.Build = built
	return in, err
}

// deliver compares an image with the lock and writes it into the layout.
func (d *Delivery) deliver(ctx context.Context, built *pipeline.Build, result *Result) error {
	in := d.Lock.Inputs
	if err := d.Lock.Compare(in.Variant().Name, built.Output); errors.Is(err, lock.ErrNoOutputs) {
		d.Display.Printf("build: %s records no outputs: nothing to compare with", d.LockFile)
	} else if err != nil {
		return err
	}
	unlock, err := cache.LockFolder(ctx, d.Layout, func() { d.Display.Printf("%s: waiting for another build that writes it", d.Layout) })
	if err != nil {
		return err
	}
	defer unlock()
	written, err := image.WriteLayout(d.Layout, in.Tailscale.Short(), built.Index, d.Cache.VerifyAll)
	result.Written = result.Written || written
	return err
}
