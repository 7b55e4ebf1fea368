package delivery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// A BudgetError says that an image is larger than its variant may be, and what grew.
type BudgetError struct {
	Variant  lock.Variant
	Platform lock.Platform
	Bytes    int64 // what a pull transfers
	// Layers are those that are larger than the lock records, the largest growth first; all
	// of the image, from 0, if it records none.
	Layers []Growth
	// Program is the program that grew most, or the largest one, and File has it.
	Program, File string
	// Packages are what grew in it, if the program that the lock records is still in the
	// cache; otherwise what is largest in it, from 0.
	Packages []Growth
}

// A Growth is a layer or a package that was smaller before.
type Growth struct {
	Name          string
	Before, Bytes int64
}

// named is how many layers and packages an error names.
const named = 5

func (e *BudgetError) Error() string {
	s := fmt.Sprintf("%s: a pull transfers %s, and the budget of the variant %s is %s", e.Platform, progress.Bytes(e.Bytes), e.Variant.Name, progress.Bytes(e.Variant.Budget))
	s += list("; larger than recorded: ", "; layers: ", "layer ", e.Layers)
	return s + list("; what grew most in "+e.Program+": ", "; the largest in "+e.Program+": ", "", e.Packages)
}

// list names the first of a list: what grew, or, if nothing is known of before, what is there.
func list(grew, are, what string, all []Growth) string {
	if len(all) == 0 {
		return ""
	}
	known := slices.ContainsFunc(all, func(g Growth) bool { return g.Before > 0 })
	if known {
		are = grew
	}
	var words []string
	for _, g := range all[:min(len(all), named)] {
		word := what + g.Name + " " + progress.Bytes(g.Bytes)
		switch {
		case g.Before > 0:
			word += " (" + progress.Growth(g.Bytes, g.Before) + ")"
		case known:
			word += " (new)"
		}
		words = append(words, word)
	}
	return are + strings.Join(words, ", ")
}

// withinBudget returns a [BudgetError] for the first image that is larger than the variant may
// be.
func (d *Delivery) withinBudget(ctx context.Context, v lock.Variant, built *pipeline.Build) error {
	for i, f := range built.Figures {
		if v.Budget == 0 || f.Compressed <= v.Budget {
			continue
		}
		e := &BudgetError{Variant: v, Platform: f.Platform, Bytes: f.Compressed}
		now := built.Output.Platforms[i]
		recorded := d.Lock.Outputs
		if d.Before != nil {
			recorded = d.Before
		}
		before, _ := recorded[v.Name].Platform(f.Platform)
		for _, l := range now.Layers {
			n := slices.IndexFunc(before.Layers, func(o lock.Layer) bool { return o.Name == l.Name })
			if g := (Growth{l.Name, at(before.Layers, n).Bytes, l.Bytes}); g.Bytes > g.Before {
				e.Layers = append(e.Layers, g)
			}
		}
		sortGrowth(e.Layers)
		return cmp.Or(d.packages(ctx, e, before, now), error(e))
	}
	return nil
}

// packages says what grew in the program that grew most. The error is ctx's.
func (d *Delivery) packages(ctx context.Context, e *BudgetError, before, now lock.PlatformOutput) error {
	most := int64(-1)
	for _, b := range now.Binaries {
		n := slices.IndexFunc(before.Binaries, func(o lock.Binary) bool { return o.Name == b.Name })
		was := at(before.Binaries, n)
		if was.Digest == b.Digest {
			continue
		}
		weight, err := d.weigh(ctx, b.Digest)
		if err != nil {
			d.Display.Printf("budget: %s: cannot list its packages: %v", b.Name, err)
			continue
		}
		old := &gobinary.Weight{}
		if o, err := d.weigh(ctx, was.Digest); err == nil { // else the cache does not have it
			old = o
		}
		if growth := weight.Bytes - old.Bytes; growth > most {
			most, e.Program, e.File = growth, b.Name, d.Cache.Path(cache.Blob{Digest: b.Digest})
			e.Packages = nil
			for _, c := range gobinary.Changes(old.Parts, weight.Parts) {
				if c.Growth() > 0 {
					e.Packages = append(e.Packages, Growth{c.Name, c.Before, c.Bytes})
				}
			}
		}
	}
	return ctx.Err()
}

// weigh weighs a program in the cache.
func (d *Delivery) weigh(ctx context.Context, digest string) (*gobinary.Weight, error) {
	r, err := d.Cache.Open(cache.Blob{Digest: digest})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return gobinary.Weigh(ctx, r)
}

func sortGrowth(list []Growth) {
	slices.SortStableFunc(list, func(a, b Growth) int { return cmp.Compare(b.Bytes-b.Before, a.Bytes-a.Before) })
}

// at is the element i of s, or a zero one for -1.
func at[T any](s []T, i int) (e T) {
	if i >= 0 {
		e = s[i]
	}
	return e
}
