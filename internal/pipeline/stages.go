package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/ctxio"
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
			files, err = b.base(ctx, bundle, pp.Compile, work)
		case plan.Entrypoint:
			files = []image.File{b.file(ctx, "entrypoint", 0o755, pp.Entrypoint, a.Name)}
		case plan.Files:
			files, err = image.Entries(b.Inputs.Variant().Files)
		default:
			files = []image.File{b.file(ctx, "usr/local/bin/"+a.Name, 0o755, pp.Compiled(a.Name), a.Name)}
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
func (b *Builder) prepare(ctx context.Context) (_ *toolchain.Toolchain, _ *toolchain.Source, err error) {
	b.toolMu.Lock()
	defer b.toolMu.Unlock()
	if b.tool == nil {
		unlock, err := b.Cache.Lock(ctx, "toolchain", func() { b.Display.Printf("toolchain: waiting for another build that fetches it") })
		if err != nil {
			return nil, nil, err
		}
		defer unlock()
		task := b.Display.Start("toolchain "+b.Inputs.Go.Version, "B")
		defer func() { task.End(err) }()
		b.tool, err = toolchain.Install(ctx, b.Modules, b.Inputs.Go, Host, b.Cache.Dir(), task.Set, b.Display.Printf)
		if err != nil {
			return nil, nil, err
		}
		b.source = b.tool.Source(b.Inputs.Tailscale)
	}
	return b.tool, b.source, nil
}

// compilePrograms makes programs of the release.
func (b *Builder) compilePrograms(ctx context.Context, a *plan.Action, work string) (_ *cache.Result, err error) {
	_, source, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	packages, err := b.fetch(ctx, source, a, work)
	if err != nil {
		return nil, err
	}
	task := b.Display.Start(a.ID(), "packages")
	defer func() { task.End(err) }()
	task.Set(0, int64(packages))
	programs, err := source.Install(ctx, a.Env, a.Args, work, func(line string) {
		if !strings.Contains(line, " ") {
			task.Step()
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
	tool, _, err := b.prepare(ctx)
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

// base is the lowest layer: what programs expect of a system, CA roots, licences.
func (b *Builder) base(ctx context.Context, bundle *plan.Action, compile []*plan.Action, work string) ([]image.File, error) {
	files := append(image.Etc(),
		b.file(ctx, "etc/ssl/certs/ca-certificates.crt", 0o644, bundle, "ca-certificates.crt"),
		b.file(ctx, "usr/share/ca-certificates/left-out.txt", 0o644, bundle, "left-out.txt"),
		b.file(ctx, "usr/share/licenses/"+lock.RootsModule+"@"+b.Inputs.Roots.Version+"/LICENSE", 0o644, bundle, "LICENSE"),
		image.Text("usr/share/licenses/"+derper.Module+"/LICENSE", string(derper.Licence)),
	)
	tool, source, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	linked := map[module.Version]bool{}
	for _, a := range compile {
		if _, err := b.fetch(ctx, source, a, work); err != nil {
			return nil, err
		}
		for _, program := range b.result(a).Blobs {
			modules, err := source.Linked(b.Cache.Path(program))
			if err != nil {
				return nil, cmp.Or(b.Cache.Verify(program), err) // what is corrupt says nothing
			}
			for _, m := range modules {
				linked[m] = true
			}
		}
	}
	for m := range linked {
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
	for _, name := range []string{"LICENSE", "PATENTS"} {
		f, err := image.OnDisk("usr/share/licenses/"+b.Inputs.Go.Version+"/"+name, 0o644, filepath.Join(tool.Root(), name))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}
