package pipeline

import (
	"context"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/vex"
)

// Scan looks for known vulnerabilities in the source of the entrypoint and of all programs of
// the lock, whatever variants they are in: each of them once. The database is a folder or an
// address, "" for the Go project's.
func (b *Builder) Scan(ctx context.Context, database string) (scans vex.Scans, err error) {
	b.ready()
	tool, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	unlock, err := b.Cache.Lock(ctx, "modules", func() { b.Display.Printf("modules: waiting for another build that fetches them") })
	if err != nil {
		return nil, err
	}
	defer unlock()
	targets := []vex.Target{vex.Entrypoint(tool, b.Inputs.Go)}
	for _, p := range b.Inputs.Programs {
		source, err := b.sourceOf(ctx, p)
		if err != nil {
			return nil, err
		}
		targets = append(targets, vex.Program(b.Inputs, p, source))
	}
	// Each has a folder of its own; the scanner's stays until all are done.
	in := func(what string, do func(work string) error) (err error) {
		work, err := b.Cache.TempDir()
		if err != nil {
			return err
		}
		defer cache.RemoveAll(work)
		task := b.Display.Start(what, "")
		defer func() { task.End(err) }()
		return do(work)
	}
	return scans, in("compile govulncheck "+vex.Govulncheck.Version, func(work string) error {
		scanner, err := vex.NewScanner(ctx, tool, b.Inputs, database, work, nil)
		if err != nil {
			return err
		}
		for _, t := range targets {
			if err := in("scan "+t.Name+" "+string(vex.Scanned), func(work string) error {
				scan, err := scanner.Scan(ctx, t, work, nil)
				scans = append(scans, scan)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
}
