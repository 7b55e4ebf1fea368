package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/ctxio"
	"github.com/xavieralpha/derper/internal/features"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/roots"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// layer writes one layer of a platform's image into the cache.
func (b *Builder) layer(bundle *plan.Action, pp *plan.PlatformPlan) runner {
	return func(ctx context.Context, a *plan.Action, work string) (_ *cache.Result, err error) {
		var files []image.File
		switch a.Name {
		case plan.Base:
			files, err = b.base(ctx, bundle)
		case plan.Entrypoint:
			files = []image.File{b.file(ctx, "entrypoint", 0o755, pp.Entrypoint, a.Name)}
			if pp.Flags != nil {
				files = append(files, b.file(ctx, strings.TrimPrefix(setting.File, "/"), 0o644, pp.Flags, plan.Flags))
			}
		case plan.Files:
			files, err = image.Entries(b.Inputs.Variant().Files)
		default:
			compile, below := pp.Compiled(a.Name)
			files, err = b.programs(ctx, compile, below, work)
		}
		if err != nil {
			return nil, err
		}
		task := b.Display.Start(a.ID(), "")
		defer func() { task.End(err) }()
		var size int64
		for _, f := range files {
			size += f.Size
		}
		var diffID string
		blob, err := b.Cache.Write(func(w io.Writer) (err error) {
			diffID, err = image.WriteLayer(w, files, b.Inputs.Tailscale.Time)
			return err
		})
		return &cache.Result{
			Blobs: map[string]cache.Blob{a.Outputs[0]: blob},
			Notes: map[string]string{noteDiffID: diffID, noteSize: fmt.Sprint(size)},
		}, err
	}
}

// attest states what a platform's image holds and how it was made.
func (b *Builder) attest(pp *plan.PlatformPlan) runner {
	return func(ctx context.Context, a *plan.Action, _ string) (_ *cache.Result, err error) {
		task := b.Display.Start(a.ID(), "")
		defer func() { task.End(err) }()
		img, err := image.New(b.Inputs, pp.Platform, b.layers(pp))
		if err != nil {
			return nil, err
		}
		sbom, provenance, err := attest.Image(ctx, b.Inputs, pp.Platform, img)
		if err != nil {
			for _, layer := range pp.Layers { // what is corrupt fails in many ways, before its end
				for _, blob := range b.result(layer).Blobs {
					err = cmp.Or(b.Cache.Verify(blob), err)
				}
			}
			return nil, err
		}
		digest, err := img.Digest()
		if err != nil {
			return nil, err
		}
		r := &cache.Result{Blobs: map[string]cache.Blob{}, Notes: map[string]string{noteManifest: digest.String()}}
		for name, data := range map[string][]byte{plan.SBOM: sbom, plan.Provenance: provenance} {
			if r.Blobs[name], err = b.Cache.Add(bytes.NewReader(data)); err != nil {
				return nil, err
			}
		}
		return r, nil
	}
}

// layers are the layers of a platform's image, lowest first.
func (b *Builder) layers(pp *plan.PlatformPlan) []*image.Layer {
	layers := make([]*image.Layer, len(pp.Layers))
	for i, a := range pp.Layers {
		r := b.result(a)
		blob := r.Blobs[a.Outputs[0]]
		onDisk, _ := strconv.ParseInt(r.Notes[noteSize], 10, 64) // which layer wrote
		layers[i] = &image.Layer{
			Layer: lock.Layer{Name: a.Name, DiffID: r.Notes[noteDiffID], Digest: blob.Digest, Bytes: blob.Size, OnDisk: onDisk},
			Open:  b.Cache.Opener(blob),
		}
	}
	return layers
}

// Notes of a layer's result: its DiffID, and the size of its files in bytes; and of an
// attestation's, the digest of the manifest that it is about.
const (
	noteDiffID   = "diffID"
	noteSize     = "size"
	noteManifest = "manifest"
)

// file is a file of the image, what an action made.
func (b *Builder) file(ctx context.Context, name string, mode fs.FileMode, from *plan.Action, output string) image.File {
	blob := b.result(from).Blobs[output]
	return image.File{Name: name, Mode: mode, Size: blob.Size, Open: func() (io.ReadCloser, error) {
		r, err := b.Cache.Open(blob)
		return struct {
			io.Reader
			io.Closer
		}{ctxio.Reader(ctx, r), r}, err
	}}
}

// prepare makes the toolchain ready, verified in this run.
func (b *Builder) prepare(ctx context.Context) (_ *toolchain.Toolchain, err error) {
	b.toolMu.Lock()
	defer b.toolMu.Unlock()
	if b.tool == nil {
		unlock, err := b.Cache.Lock(ctx, "toolchain", func() { b.Display.Printf("toolchain: waiting for another build that fetches it") })
		if err != nil {
			return nil, err
		}
		defer unlock()
		task := b.Display.Start("toolchain "+b.Inputs.Go.Version, "B")
		defer func() { task.End(err) }()
		b.tool, err = toolchain.Install(ctx, b.Modules, b.Inputs.Go, Host, b.Cache.Dir(), task.Set, b.Display.Printf)
		if err != nil {
			return nil, err
		}
	}
	return b.tool, nil
}

// source is the source of the programs that an action compiles, verified in this run as far
// as it was fetched.
func (b *Builder) source(ctx context.Context, compile *plan.Action) (*toolchain.Source, error) {
	i := slices.IndexFunc(b.Inputs.Programs, func(p lock.Program) bool { return p.Layer() == compile.Name })
	return b.sourceOf(ctx, b.Inputs.Programs[i])
}

// sourceOf is the source of a program.
func (b *Builder) sourceOf(ctx context.Context, p lock.Program) (*toolchain.Source, error) {
	tool, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	from := b.Inputs.SourceOf(p)
	b.toolMu.Lock()
	defer b.toolMu.Unlock()
	if b.sources[from] == nil && from.Own() {
		own, err := toolsSource(b.Inputs.Go)
		if err != nil {
			return nil, err
		}
		b.sources[from] = tool.OwnSource(own)
	}
	if b.sources[from] == nil {
		b.sources[from] = tool.Source(from)
	}
	return b.sources[from], nil
}

// compilePrograms makes the programs of a layer. compiled is called when nothing is left but
// to compile the main packages and to link.
func (b *Builder) compilePrograms(compiled func()) runner {
	return func(ctx context.Context, a *plan.Action, work string) (_ *cache.Result, err error) {
		source, err := b.source(ctx, a)
		if err != nil {
			return nil, err
		}
		go attest.Ready() // not at the end, when there is nothing else to do
		packages, err := b.fetch(ctx, source, a, work)
		if err != nil {
			return nil, err
		}
		if _, tailscales := a.Inputs[lock.TailscaleModule+"@"+b.Inputs.Tailscale.Version]; tailscales {
			b.tagsSeen.Do(func() { b.sayUnknownTags(source) })
		}
		task := b.Display.Start(a.ID(), "packages")
		defer func() { task.End(err) }()
		task.Set(0, int64(packages))
		mains := len(a.Outputs)
		programs, err := source.Install(ctx, a.Env, a.Args, work, func(line string) {
			if strings.Contains(line, " ") {
				return
			}
			task.Step()
			if slices.ContainsFunc(a.Args, func(arg string) bool { return strings.HasPrefix(arg, line+"@") }) {
				if mains--; mains == 0 {
					compiled()
				}
			}
		})
		if err != nil {
			return nil, err
		}
		for _, name := range a.Outputs {
			// Only what the lock pins may have been linked.
			if _, err := source.Linked(programs[name]); err != nil {
				return nil, err
			}
		}
		return b.keep(a, programs)
	}
}

// sayUnknownTags says which build tags of the lock leave nothing out of the release,
// because upstream has removed them. Such a program is what the lock says all the same.
func (b *Builder) sayUnknownTags(source *toolchain.Source) {
	var table features.Table
	tree, err := source.Tree(module.Version{Path: lock.TailscaleModule, Version: b.Inputs.Tailscale.Version})
	if err == nil {
		var list []byte
		if list, err = os.ReadFile(filepath.Join(tree, filepath.FromSlash(features.File))); err == nil {
			table, err = features.Parse(list)
		}
	}
	for _, p := range b.Inputs.Programs {
		unknown := table.Unknown(p.Tags)
		if len(unknown) == 0 {
			continue
		}
		why := fmt.Sprintf("tailscale %s has no such feature", b.Inputs.Tailscale.Version)
		if err != nil {
			why = fmt.Sprintf("which features it has is unknown: %v", err)
		}
		b.Display.Printf("build: %s: build tags that leave nothing out: %s: %s; build update --version %s sets the tags anew",
			p.Name(), strings.Join(unknown, ", "), why, b.Inputs.Tailscale.Version)
	}
}

// fetch makes the modules ready that a compile needs.
func (b *Builder) fetch(ctx context.Context, source *toolchain.Source, a *plan.Action, work string) (packages int, err error) {
	b.fetchMu.Lock()
	defer b.fetchMu.Unlock()
	// One program at a time: another would hash what this one is unpacking.
	unlock, err := b.Cache.Lock(ctx, "modules", func() { b.Display.Printf("modules: waiting for another build that fetches them") })
	if err != nil {
		return 0, err
	}
	defer unlock()
	task := b.Display.Start("modules "+string(a.Platform), "fetched")
	defer func() { task.End(err) }()
	return source.Fetch(ctx, a.Env, a.Args, work, func(string) { task.Step() })
}

// compileEntrypoint makes the entrypoint.
func (b *Builder) compileEntrypoint(ctx context.Context, a *plan.Action, work string) (*cache.Result, error) {
	return b.make(ctx, a, func(tool *toolchain.Toolchain) (map[string]string, error) {
		goMod := fmt.Sprintf("module %s\n\ngo %s\n", derper.Module, strings.TrimPrefix(b.Inputs.Go.Version, "go"))
		program, err := tool.Build(ctx, a.Env, a.Args, derper.EntrypointSource(), goMod, work)
		return map[string]string{plan.Entrypoint: program}, err
	})
}

// roots makes the CA bundle.
func (b *Builder) roots(ctx context.Context, a *plan.Action, work string) (*cache.Result, error) {
	return b.make(ctx, a, func(tool *toolchain.Toolchain) (map[string]string, error) {
		return roots.Make(ctx, tool, b.Inputs, a.Env, a.Args, work)
	})
}

// make keeps the files that the toolchain makes of sources of this project.
func (b *Builder) make(ctx context.Context, a *plan.Action, files func(*toolchain.Toolchain) (map[string]string, error)) (_ *cache.Result, err error) {
	tool, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	task := b.Display.Start(a.ID(), "")
	defer func() { task.End(err) }()
	made, err := files(tool)
	if err != nil {
		return nil, err
	}
	return b.keep(a, made)
}

// keep puts files into the cache, as what an action makes.
func (b *Builder) keep(a *plan.Action, files map[string]string) (_ *cache.Result, err error) {
	r := &cache.Result{Blobs: map[string]cache.Blob{}}
	for _, name := range a.Outputs {
		if r.Blobs[name], err = b.Cache.AddFile(files[name]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// base is the lowest layer: what programs expect of a system, CA roots, the licences of what
// is in every image.
func (b *Builder) base(ctx context.Context, bundle *plan.Action) ([]image.File, error) {
	files := append(image.Etc(),
		b.file(ctx, "etc/ssl/certs/ca-certificates.crt", 0o644, bundle, "ca-certificates.crt"),
		b.file(ctx, "usr/share/ca-certificates/left-out.txt", 0o644, bundle, "left-out.txt"),
		b.file(ctx, "usr/share/licenses/"+lock.RootsModule+"@"+b.Inputs.Roots.Version+"/LICENSE", 0o644, bundle, "LICENSE"),
		image.Text("usr/share/licenses/"+derper.Module+"/LICENSE", string(derper.Licence)),
	)
	tool, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"LICENSE", "PATENTS"} {
		f, err := image.OnDisk("usr/share/licenses/"+b.Inputs.Go.Version+"/"+name, 0o644, filepath.Join(tool.Root(), name))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// programs is a layer of programs, with the licences of the modules that they link and that
// nothing in the layers below does. So variants that have the same programs have the same
// layers, whatever else they have.
func (b *Builder) programs(ctx context.Context, compile *plan.Action, below []*plan.Action, work string) (files []image.File, err error) {
	there := map[module.Version]bool{}
	for _, a := range below {
		_, linked, err := b.linked(ctx, a, work)
		if err != nil {
			return nil, err
		}
		for _, m := range linked {
			there[m] = true
		}
	}
	source, linked, err := b.linked(ctx, compile, work)
	if err != nil {
		return nil, err
	}
	for _, name := range compile.Outputs {
		files = append(files, b.file(ctx, "usr/local/bin/"+name, 0o755, compile, name))
	}
	for _, m := range linked {
		if there[m] {
			continue
		}
		there[m] = true
		tree, err := source.Tree(m)
		if err != nil {
			return nil, err
		}
		notices, err := image.Notices(m.String(), tree)
		if err != nil {
			return nil, err
		}
		files = append(files, notices...)
	}
	return files, nil
}

// linked are the modules that compiled programs link, and their source, which is there.
func (b *Builder) linked(ctx context.Context, compile *plan.Action, work string) (source *toolchain.Source, linked []module.Version, err error) {
	if source, err = b.source(ctx, compile); err == nil {
		_, err = b.fetch(ctx, source, compile, work)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, program := range b.result(compile).Blobs {
		modules, err := source.Linked(b.Cache.Path(program))
		if err != nil {
			return nil, nil, cmp.Or(b.Cache.Verify(program), err) // what is corrupt says nothing
		}
		linked = append(linked, modules...)
	}
	return source, linked, nil
}
