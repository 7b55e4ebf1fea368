package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/delivery"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

// realTools are what does the work of a release: this program's other commands.
func (o *releaseOptions) realTools() release.Tools {
	return release.Tools{
		Update: o.updateLock, Compile: o.compilePrograms, Build: o.buildImages, Scan: o.scanPrograms, Test: o.testImage, Verify: o.verifyImage,
		Confirmed: o.confirmed,
	}
}

// updateLock is the step update: the lock that follows on base.
func (o *releaseOptions) updateLock(ctx context.Context, base *lock.Lock) (*lock.Lock, []string, error) {
	next, r, err := o.update(ctx, &updateOptions{
		inputFlags: inputFlags{lockFile: o.LockFile, platforms: "all", cacheDir: o.cacheDir, verifyCache: o.verifyCache},
		Wish:       upstream.Wish{Channel: lock.Channel(o.channel)}, source: o.source, create: true,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(render(o.Log, updateText, r), o.summarize(r)); err != nil || !r.New {
		return base, nil, err
	}
	var changes []string
	for _, f := range r.Flags {
		changes = append(changes, f.String())
	}
	for _, f := range r.Features {
		changes = append(changes, f.String())
	}
	return next, changes, nil
}

// compilePrograms is the step compile.
func (o *releaseOptions) compilePrograms(ctx context.Context, lockFile string, variants []string, compiled string) error {
	l, err := lock.Read(lockFile)
	if err != nil {
		return err
	}
	d := delivery.Delivery{Lock: l, LockFile: lockFile, Variants: variants, Compiled: compiled}
	return o.equip(&o.inputFlags, &d, func() error { return d.Compile(ctx) })
}

// buildImages is the step build. What comes out is recorded in a lock that has no
// outputs, and compared with any other.
func (o *releaseOptions) buildImages(ctx context.Context, lockFile, compiled, layout string) error {
	l, err := lock.Read(lockFile)
	if err != nil {
		return err
	}
	if o.step == nil {
		compiled = "" // here, verify believes the cache: nothing of other machines comes into it
	}
	var before map[string]*lock.Output
	if old, err := lock.Read(o.LockFile); err == nil { // without one there is nothing to compare with
		before = old.Outputs
	}
	_, err = o.deliver(ctx, &o.inputFlags, delivery.Delivery{
		Before: before, Lock: l, LockFile: lockFile, Platforms: l.Inputs.Platforms, Compiled: compiled, Layout: layout, Record: l.Outputs == nil,
	})
	return err
}

// scanPrograms is the step scan.
func (o *releaseOptions) scanPrograms(ctx context.Context, lockFile, scans string) error {
	l, err := lock.Read(lockFile)
	if err != nil {
		return err
	}
	r, err := o.scan(ctx, &o.inputFlags, l, o.database)
	if err != nil {
		return err
	}
	return r.scans.Write(scans)
}

// testImage is the step test.
func (o *releaseOptions) testImage(ctx context.Context, layout string, platforms []lock.Platform, report string) ([]attest.Tests, error) {
	found, err := o.test(ctx, testOptions{runner: o.Runner, junit: report, timeout: 2 * time.Minute}, layout, platforms, io.Discard)
	if coded, ok := errors.AsType[*cli.Error](err); ok && strings.HasPrefix(coded.Hint, "the log ") {
		coded.Hint = "nothing was pushed; the log of each failed case is above, and " + report + " has all cases"
	}
	if err != nil {
		return nil, err
	}
	return found.Tests(verify.ThisProgram().Version), nil
}

// verifyImage is the step verify: everything that the registries serve is read, and
// compared with what the inputs give here.
func (o *releaseOptions) verifyImage(ctx context.Context, l *lock.Lock, references []string) error {
	keychain, err := o.credentials(o.Repositories)
	if err != nil {
		return err
	}
	// As a step of its own it trusts nothing that was built before, but in a cache that is
	// named, and proves the source, too.
	v := &verifyOptions{inputFlags: o.inputFlags, trustCache: o.step == nil || o.cacheDir != "", prove: o.step != nil, source: o.source}
	report, err := o.verify(ctx, v, &verify.Verifier{Lock: l, Keychain: keychain, Fresh: !v.trustCache}, references)
	if err != nil {
		return err
	}
	if report.Verdict != verify.Verified {
		_ = report.WriteText(o.Log)
	}
	return verdict(report)
}
