package main

import (
	"context"
	"io"
	"time"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

// releaseTools are the tools of a release. A test has others.
var releaseTools = func(o *releaseOptions) release.Tools {
	return release.Tools{Update: o.updateLock, Build: o.buildImage, Test: o.testImage, Verify: o.verifyImage}
}

// updateLock is the step update: the lock that follows on base.
func (o *releaseOptions) updateLock(ctx context.Context, base *lock.Lock) (*lock.Lock, []string, error) {
	in := inputFlags{lockFile: o.LockFile, platforms: "all", cacheDir: o.cacheDir, verifyCache: o.verifyCache, create: true}
	next, u, _, err := findUpdate(ctx, &in, upstream.Wish{Channel: lock.Channel(o.channel)}, o.upstream, o.Log)
	if err != nil || !u.IsNew() {
		return base, nil, err
	}
	var flags []string
	for _, f := range u.Flags {
		flags = append(flags, f.String())
	}
	return next, flags, nil
}

// buildImage is the step build. What comes out is recorded in a lock that has no
// outputs, and compared with any other.
func (o *releaseOptions) buildImage(ctx context.Context, lockFile, layout string) error {
	l, err := lock.Read(lockFile)
	if err != nil {
		return err
	}
	b := buildOptions{inputFlags: o.inputFlags, lock: l, chosen: l.Inputs.Platforms, output: layout, update: l.Outputs == nil, stderr: o.Log}
	b.lockFile = lockFile
	_, _, err = b.build(ctx)
	return err
}

// testImage is the step test.
func (o *releaseOptions) testImage(ctx context.Context, layout string, platforms []lock.Platform, report string) error {
	return testOptions{runner: o.Runner, junit: report, timeout: 2 * time.Minute}.test(ctx, layout, platforms, io.Discard, o.Log)
}

// verifyImage is the step verify: everything that the registries serve is read, and
// compared with what the inputs give here.
func (o *releaseOptions) verifyImage(ctx context.Context, l *lock.Lock, references []string) error {
	keychain, err := credentials(o.Repositories)
	if err != nil {
		return err
	}
	// On a machine of its own, which has built nothing, the source is proven, too.
	v := verifyOptions{inputFlags: o.inputFlags, trustCache: true, source: o.step != nil, repository: o.upstream}
	report, err := v.verify(ctx, &verify.Verifier{Lock: l, Keychain: keychain}, references, o.Log)
	if err != nil {
		return err
	}
	if report.Verdict != verify.Verified {
		_ = report.WriteText(o.Log)
	}
	return verdict(report)
}
