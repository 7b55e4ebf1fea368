// Package pipeline carries out a plan: it turns a lock into images and their index.
//
// It promises that an action runs only when its result is not in the cache, that
// nothing is compiled before its inputs are verified, and that a cancelled run
// stops its compilers and leaves only whole results behind. It writes nothing
// outside the cache.
package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/roots"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// Host is the platform that this program runs on, in the lock's words.
const Host = runtime.GOOS + "/" + runtime.GOARCH

// A Builder builds images.
type Builder struct {
	Inputs  lock.Inputs
	Cache   *cache.Cache
	Modules *modproxy.Client
	Display *progress.Display

	once    sync.Once
	compile chan struct{} // slots for platforms that compile
	work    chan struct{} // slots for everything else, one for each core

	mu   sync.Mutex
	runs []Run

	fetchMu sync.Mutex // held while modules are fetched

	toolMu sync.Mutex // guards tool and source, set when they are first needed
	tool   *toolchain.Toolchain
	source *toolchain.Source
}

// A Run says what became of an action.
type Run struct {
	Action *plan.Action
	// Cached is set when the result was in the cache.
	Cached bool
	// Why says, for one that ran, which of its inputs had changed.
	Why []string
	// Seconds is how long it took, now or when it ran.
	Seconds float64
}

// A Build is what came out.
type Build struct {
	Index  v1.ImageIndex
	Images []v1.Image // one for each platform
	// Attestations are the manifests of the images' SBOMs and provenance.
	Attestations []v1.Image
	Platforms    []Platform
	Outputs      *lock.Outputs
	// Runs are in the order of the plan.
	Runs []Run
}

// Manifests are all that the index names: the images and their attestations.
func (b *Build) Manifests() []v1.Image { return slices.Concat(b.Images, b.Attestations) }

// A Platform is what came out for one platform, in figures.
type Platform struct {
	Platform lock.Platform
	Manifest string // digest
	// Compressed is what a pull transfers, Uncompressed what a container's root
	// file system takes; both in bytes.
	Compressed, Uncompressed int64
	// Built and Cached name the platform's actions.
	Built, Cached []string
	// Seconds is what the actions took that ran.
	Seconds float64
}

// Sources are the parts of this program that go into the image, by digest.
var Sources = sync.OnceValues(sources)

func sources() (plan.Sources, error) {
	entrypoint, err := derper.EntrypointSource()
	if err != nil {
		return plan.Sources{}, err
	}
	source, err := hashTree(entrypoint)
	if err != nil {
		return plan.Sources{}, err
	}
	etc, err := image.Digest(image.Etc())
	if err != nil {
		return plan.Sources{}, err
	}
	encoder, err := image.Encoder()
	if err != nil {
		return plan.Sources{}, err
	}
	statements, err := attest.Sample()
	if err != nil {
		return plan.Sources{}, err
	}
	return plan.Sources{
		Entrypoint: source, Roots: digest(roots.Source()), Licence: digest(derper.Licence), Etc: etc, Encoder: encoder, Attestation: statements,
	}, nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hashTree is the digest of the names and contents of a tree's files.
func hashTree(tree fs.FS) (string, error) {
	var lines strings.Builder
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		fmt.Fprintf(&lines, "%s  %s\n", digest(data), name)
		return err
	})
	return digest([]byte(lines.String())), err
}

// Plan plans the build of some platforms of the lock on this machine.
func Plan(in lock.Inputs, platforms []lock.Platform) (*plan.Plan, error) {
	sources, err := Sources()
	if err != nil {
		return nil, err
	}
	if in.LayerFormat != lock.LayerFormat {
		return nil, fmt.Errorf("plan: the lock wants layer format %d, this program writes %d; use the program of the revision that wrote the lock", in.LayerFormat, lock.LayerFormat)
	}
	return plan.New(in, sources, platforms, Host)
}

// Build builds the given platforms of the lock.
func (b *Builder) Build(ctx context.Context, platforms []lock.Platform) (*Build, error) {
	p, err := Plan(b.Inputs, platforms)
	if err != nil {
		return nil, err
	}
	b.once.Do(func() {
		// Two platforms at a time: while one links, which keeps a single core
		// busy, the other compiles.
		b.compile = make(chan struct{}, max(2, runtime.NumCPU()/4))
		b.work = make(chan struct{}, runtime.NumCPU())
	})
	out, err := b.carryOut(ctx, p)
	if errors.Is(err, cache.ErrCorrupt) {
		// Found while it was read, and dropped: it is made again now.
		b.Display.Printf("%v: made again", err)
		return b.carryOut(ctx, p)
	}
	return out, err
}

// carryOut runs the actions of a plan and assembles what they make.
func (b *Builder) carryOut(ctx context.Context, p *plan.Plan) (*Build, error) {
	b.runs = nil
	results := make([]*parts, len(p.Platforms))
	g, ctx := errgroup.WithContext(ctx)
	// All platforms share the roots; the first to need them has them made.
	roots := sync.OnceValues(func() (*cache.Result, error) { return b.roots(ctx, p.Roots) })
	for i, pp := range p.Platforms {
		g.Go(func() (err error) {
			results[i], err = b.platform(ctx, pp, roots)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return b.assemble(p, results)
}

// do gets an action's result from the cache, or runs it in one of the slots.
func (b *Builder) do(ctx context.Context, a *plan.Action, slots chan struct{}, run func(ctx context.Context, work string) (*cache.Result, error)) (*cache.Result, error) {
	fail := func(err error) (*cache.Result, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w", a.ID(), err)
	}
	key := a.Key()
	if r, err := b.Cache.Get(key); r != nil || err != nil {
		b.record(a, r, true, nil)
		return r, err
	}
	unlock, err := b.Cache.Lock(ctx, key, func() { b.Display.Printf("%s: waiting for another build that makes it", a.ID()) })
	if err != nil {
		return fail(err)
	}
	defer unlock()
	if r, err := b.Cache.Get(key); r != nil || err != nil {
		b.record(a, r, true, nil)
		return r, err
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	work, err := b.Cache.TempDir()
	if err != nil {
		return fail(err)
	}
	defer cache.RemoveAll(work)
	why := b.why(a)
	began := time.Now()
	r, err := run(ctx, work)
	if err != nil {
		return fail(err)
	}
	r.Action, r.Time, r.Seconds = a.JSON(), time.Now().UTC(), time.Since(began).Seconds()
	if err := b.Cache.Put(key, a.ID(), r); err != nil {
		return fail(err)
	}
	b.record(a, r, false, why)
	return r, nil
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
	if r == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs = append(b.runs, Run{Action: a, Cached: cached, Why: why, Seconds: r.Seconds})
}

// sortedRuns puts what ran into the order of the plan.
func (b *Builder) sortedRuns(p *plan.Plan) []Run {
	place := map[*plan.Action]int{}
	for i, a := range p.Actions() {
		place[a] = i
	}
	sort.Slice(b.runs, func(i, j int) bool { return place[b.runs[i].Action] < place[b.runs[j].Action] })
	return b.runs
}
