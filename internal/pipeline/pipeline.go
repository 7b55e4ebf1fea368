// Package pipeline carries out a plan: it turns a lock into images and their index.
//
// It promises that an action runs only when its result is not in the cache, that
// nothing is compiled before its inputs are verified, and that a cancelled run
// stops its compilers and leaves only whole results behind. It writes nothing
// outside the cache.
package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// Host is the platform that this program runs on, in the lock's words.
const Host = runtime.GOOS + "/" + runtime.GOARCH

// A Builder builds the images of the first variant of its inputs.
type Builder struct {
	Inputs  lock.Inputs
	Cache   *cache.Cache
	Modules *modproxy.Client
	Display *progress.Display

	mu   sync.Mutex // guards done
	done map[*plan.Action]outcome

	*workshop
}

// workshop is what is made ready for all builds of one command.
type workshop struct {
	fetchMu  sync.Mutex // held while modules are fetched
	tagsSeen sync.Once  // build tags are looked at once

	toolMu  sync.Mutex // guards tool and sources, set when they are first needed
	tool    *toolchain.Toolchain
	sources map[lock.Source]*toolchain.Source
}

// For is a builder of another variant, with what was made ready for this one.
func (b *Builder) For(in lock.Inputs) *Builder {
	return &Builder{Inputs: in, Cache: b.Cache, Modules: b.Modules, Display: b.Display, workshop: b.ready()}
}

func (b *Builder) ready() *workshop {
	if b.workshop == nil {
		b.workshop = &workshop{sources: map[lock.Source]*toolchain.Source{}}
	}
	return b.workshop
}

// A Run says what became of an action.
type Run struct {
	// Action is the action's ID, Key its key.
	Action string `json:"action"`
	Key    string `json:"key"`
	// Cached is set when the result was in the cache.
	Cached bool `json:"cached"`
	// Why says, for one that ran, which of its inputs had changed.
	Why []string `json:"why,omitempty"`
	// Seconds is how long it took, now or when it ran.
	Seconds float64 `json:"seconds"`
}

// outcome is what an action made, and what became of it.
type outcome struct {
	*cache.Result
	Run
}

// A Build is what came out.
type Build struct {
	Index  v1.ImageIndex
	Images []v1.Image // one for each platform
	// Attestations are the manifests of the images' SBOMs and provenance.
	Attestations []v1.Image
	Figures      []Figures // one for each platform
	Output       *lock.Output
	// Runs are in the order of the plan.
	Runs []Run
}

// After adds what was done for an earlier build of the same command: what that has made is
// in the cache for this one.
func (b *Build) After(first *Build) {
	for i, run := range b.Runs {
		j := slices.IndexFunc(first.Runs, func(r Run) bool { return r.Key == run.Key && !r.Cached })
		if run.Cached && j >= 0 {
			b.Runs[i] = first.Runs[j]
		}
	}
	for i := range b.Figures {
		f := &b.Figures[i]
		f.Built, f.Cached, f.Seconds = nil, nil, 0
		for _, run := range b.Runs {
			f.count(run)
		}
	}
}

// count counts an action of the platform.
func (f *Figures) count(run Run) {
	name, mine := strings.CutSuffix(run.Action, " "+string(f.Platform))
	switch {
	case !mine:
	case run.Cached:
		f.Cached = append(f.Cached, name)
	default:
		f.Built = append(f.Built, name)
		f.Seconds += run.Seconds
	}
}

// Figures are what came out for one platform, in figures.
type Figures struct {
	Platform lock.Platform `json:"platform"`
	Manifest string        `json:"manifest"` // digest
	// Compressed is what a pull transfers, Uncompressed what a container's root
	// file system takes; both in bytes.
	Compressed   int64 `json:"compressedBytes"`
	Uncompressed int64 `json:"uncompressedBytes"`
	// Built and Cached name the platform's actions.
	Built  []string `json:"built"`
	Cached []string `json:"cached"`
	// Seconds is what the actions took that ran.
	Seconds float64 `json:"seconds"`
}

// Plan plans the build of the first variant of the lock for some platforms, on this machine.
func Plan(in lock.Inputs, platforms []lock.Platform) (*plan.Plan, error) {
	sources, err := Sources()
	if err != nil {
		return nil, err
	}
	return plan.New(in, sources, platforms, Host)
}

// Build builds the given platforms of the lock, and gives what came out to each use,
// in turn. A blob of the cache that turns out to be corrupt meanwhile was dropped: all
// of it is done once more then, with everything in the cache checked by content.
func (b *Builder) Build(ctx context.Context, platforms []lock.Platform, use ...func(*Build) error) (*Build, error) {
	p, err := Plan(b.Inputs, platforms)
	if err != nil {
		return nil, err
	}
	out, err := b.carryOut(ctx, p, nil, use)
	if errors.Is(err, cache.ErrCorrupt) {
		b.Display.Printf("%v; rebuilding", err)
		defer func(all bool) { b.Cache.VerifyAll = all }(b.Cache.VerifyAll)
		b.Cache.VerifyAll = true
		out, err = b.carryOut(ctx, p, nil, use)
	}
	return out, err
}

// Compile runs only these actions of a plan, which compile something. What they make is in
// the cache.
func (b *Builder) Compile(ctx context.Context, p *plan.Plan, only []*plan.Action) error {
	_, err := b.carryOut(ctx, p, only, nil)
	return err
}

// carryOut runs the actions of a plan, each once those are done that it takes from,
// assembles what they make, and has it used; or it runs only some actions, nil for all.
func (b *Builder) carryOut(ctx context.Context, p *plan.Plan, only []*plan.Action, use []func(*Build) error) (*Build, error) {
	b.ready()
	b.done = map[*plan.Action]outcome{}
	// A few go commands at a time. Everything else has one slot for each core.
	compile, work := make(chan struct{}, toolchain.ThisMachine().Commands), make(chan struct{}, runtime.GOMAXPROCS(0))
	made := map[string]chan struct{}{} // of those that run: nobody waits for others
	turns := map[*plan.Action]turn{}
	for _, a := range p.Actions() {
		if only != nil && !slices.Contains(only, a) {
			continue
		}
		if made[a.Result()] != nil {
			return nil, fmt.Errorf("%s: another action has its key", a.ID())
		}
		made[a.Result()] = make(chan struct{})
		turns[a] = newTurn()
	}
	g, gctx := errgroup.WithContext(ctx)
	after := order(p)
	start := func(a *plan.Action, slots chan struct{}, run runner) {
		if made[a.Result()] == nil {
			return
		}
		g.Go(func() error {
			await := []<-chan struct{}{turns[after[a]].over}
			for _, result := range a.Inputs {
				await = append(await, made[result])
			}
			for _, event := range await {
				if event == nil {
					continue // not of an action that runs
				}
				select {
				case <-event:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
			if err := b.do(gctx, a, slots, run); err != nil {
				return cmp.Or(gctx.Err(), fmt.Errorf("%s: %w", a.ID(), err))
			}
			turns[a].end()
			close(made[a.Result()])
			return nil
		})
	}
	start(p.Roots, compile, b.roots)
	for _, pp := range p.Platforms {
		for _, a := range pp.Compile {
			start(a, compile, b.compilePrograms(turns[a].end))
		}
		if pp.Flags != nil {
			start(pp.Flags, work, b.flags(pp))
		}
		start(pp.Entrypoint, compile, b.compileEntrypoint)
		for _, a := range pp.Layers {
			start(a, work, b.layer(p.Roots, pp))
		}
		start(pp.Attestation, work, b.attest(pp))
	}
	if err := g.Wait(); err != nil || only != nil {
		return nil, err
	}
	out, err := b.assemble(p)
	for _, use := range use {
		if err == nil {
			err = use(out)
		}
	}
	return out, err
}

// A runner runs an action, with a folder of its own to work in.
type runner func(ctx context.Context, a *plan.Action, work string) (*cache.Result, error)

// do gets an action's result from the cache, or runs it in one of the slots.
func (b *Builder) do(ctx context.Context, a *plan.Action, slots chan struct{}, run runner) error {
	key := a.Key()
	if found, err := b.cached(a); found || err != nil {
		return err
	}
	unlock, err := b.Cache.Lock(ctx, key, func() { b.Display.Printf("%s: waiting for another build that makes it", a.ID()) })
	if err != nil {
		return err
	}
	defer unlock()
	if found, err := b.cached(a); found || err != nil {
		return err
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	work, err := b.Cache.TempDir()
	if err != nil {
		return err
	}
	defer cache.RemoveAll(work)
	why := b.why(a)
	began := time.Now()
	r, err := run(ctx, a, work)
	if err != nil {
		return err
	}
	r.Action, r.Time, r.Seconds = a.JSON(), time.Now().UTC(), time.Since(began).Seconds()
	if err := b.Cache.Put(key, a.ID(), r); err != nil {
		return err
	}
	b.record(a, r, false, why)
	return nil
}

// cached reports whether an action's result is in the cache.
func (b *Builder) cached(a *plan.Action) (bool, error) {
	r, err := b.Cache.Get(a.Key())
	if r != nil {
		b.record(a, r, true, nil)
	}
	return r != nil, err
}

// result is what an action made that is done.
func (b *Builder) result(a *plan.Action) *cache.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done[a].Result
}

// why says what makes an action run.
func (b *Builder) why(a *plan.Action) []string {
	last := b.Cache.Latest(a.ID())
	if last == nil {
		return []string{"never ran with this cache"}
	}
	old := new(plan.Action)
	if err := json.Unmarshal(last, old); err != nil {
		return []string{"the record of its last run is damaged"}
	}
	if old.Key() == a.Key() {
		return []string{"its result is no longer in the cache"}
	}
	return a.Changes(old)
}

func (b *Builder) record(a *plan.Action, r *cache.Result, cached bool, why []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[a] = outcome{r, Run{a.ID(), a.Key(), cached, why, r.Seconds}}
}
