package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/verify"
)

const verifySynopsis = `verify rebuilds images from nothing and says whether they are, bit for bit, what was rebuilt, and
if not, what differs: from the inside out, a program, a file in a layer, a layer's compression, the
config, the manifest, the index. A REF is a reference in a registry, the folder of an OCI layout, or an
archive. The image itself says which release it claims to be; every sum comes from the Go checksum
database, and no checkout is needed. Without a REF, it rebuilds what the lock has as inputs and
compares with what the lock records.

Exit code 0 says that everything asked for was verified, 3 that something differs, 1 that it could not
be found out.`

const verifyExample = `  build verify docker.io/camllia/derper:latest
  build verify --platform host --html report.html ghcr.io/xavieralpha/derper@sha256:…
  build verify`

// verifyOptions are the flags of build verify.
type verifyOptions struct {
	lockFile, platforms, cacheDir, html string
	trustCache, asJSON                  bool
}

// runVerify is build verify. The report goes to stdout, as text or as JSON.
func runVerify(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o verifyOptions
	flags := newFlags("verify [flags] [REF ...]", verifySynopsis, verifyExample, stdout)
	flags.StringVar(&o.lockFile, "lock", lock.File, "the lock `file`; where there is one, it must agree about its release")
	flags.StringVar(&o.platforms, "platform", "all", "`platforms`, separated by commas; host is this machine's, all is every one that there should be")
	flags.BoolVar(&o.trustCache, "trust-cache", false, "take what was built before, instead of building everything from nothing")
	flags.StringVar(&o.cacheDir, "cache", "", "cache `folder` that --trust-cache trusts; default is derper in the user cache directory")
	flags.StringVar(&o.html, "html", "", "also write the report to `file`, as one HTML page")
	flags.BoolVar(&o.asJSON, "json", false, "print the report as JSON")
	refs, err := flags.parse(args)
	if err != nil {
		return err
	}
	if o.cacheDir != "" && !o.trustCache {
		return usageError("--cache names what --trust-cache trusts: give both, or none")
	}
	v := &verify.Verifier{Fresh: !o.trustCache}
	if o.platforms != "all" {
		if v.Platforms, err = verifyPlatforms(o.platforms); err != nil {
			return err
		}
	}
	if v.Lock, err = lockAtHand(o.lockFile, len(refs) > 0); err != nil {
		return err
	}
	if o.html != "" { // before, and not after minutes of work
		if _, err := os.Stat(filepath.Dir(o.html)); err != nil {
			return usageError("--html: %w", err)
		}
	}
	c, remove, err := verifyCache(o)
	if err != nil {
		return err
	}
	defer remove()
	v.Cache, v.Modules, v.Display = c, modules(c), progress.New(stderr)
	c.Warn = v.Display.Printf
	report, err := verifyAll(ctx, v, o.lockFile, refs)
	v.Display.Close()
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if o.html != "" {
		var page bytes.Buffer
		if err := errors.Join(report.WriteHTML(&page), writeFile(o.html, page.Bytes())); err != nil {
			return fmt.Errorf("--html: %w", err)
		}
	}
	write := report.WriteText
	if o.asJSON {
		write = report.WriteJSON
	}
	if err := write(stdout); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return verdict(report)
}

func verifyAll(ctx context.Context, v *verify.Verifier, lockFile string, refs []string) (*verify.Report, error) {
	if len(refs) > 0 {
		return v.References(ctx, refs)
	}
	report, err := v.Locked(ctx, lockFile)
	if errors.Is(err, lock.ErrNoOutputs) {
		return nil, &codedError{fmt.Errorf("%s: %w", lockFile, err), exitFailed, "record them: " + self() + " --platform all --update-lock"}
	}
	return report, err
}

// verifyPlatforms reads --platform. An image is verified without its lock, so each
// that is known may be asked for.
func verifyPlatforms(list string) ([]lock.Platform, error) {
	var chosen []lock.Platform
	for _, word := range strings.Split(list, ",") {
		if word = strings.TrimSpace(word); word == "host" {
			word = "linux/" + runtime.GOARCH
		}
		p, err := lock.ParsePlatform(word)
		if err != nil {
			return nil, usageError("--platform: %w", err)
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// lockAtHand reads the lock. It may be missing where an image is verified.
func lockAtHand(name string, optional bool) (*lock.Lock, error) {
	l, err := lock.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		if optional && name == lock.File {
			return nil, nil
		}
		return nil, &codedError{err, exitFailed, "run it in a checkout, name the lock with --lock, or name an image to verify"}
	}
	return l, err
}

// verifyCache is the cache to build in: an empty one of its own, or with
// --trust-cache the one that builds use.
func verifyCache(o verifyOptions) (c *cache.Cache, remove func(), err error) {
	if o.trustCache {
		in := inputFlags{cacheDir: o.cacheDir}
		if c, err = in.openCache(); err != nil {
			return nil, nil, err
		}
		return c, func() { c.Close() }, nil
	}
	dir, err := os.MkdirTemp("", "derper-verify-")
	if err != nil {
		return nil, nil, fmt.Errorf("verify: %w", err)
	}
	if c, err = cache.Open(dir); err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	return c, func() {
		c.Close()
		cache.RemoveAll(dir)
	}, nil
}

// verdict is the report as the program's end.
func verdict(r *verify.Report) error {
	var failed []string
	var first error
	for _, s := range r.Subjects {
		if s.Verdict != verify.Verified {
			failed = append(failed, s.Ref)
			if s.Err != nil && first == nil {
				first = s.Err
			}
		}
	}
	switch {
	case r.Verdict == verify.Verified:
		return nil
	case r.Verdict == verify.Differs:
		return &codedError{fmt.Errorf("verify: %s: differs from what was rebuilt", strings.Join(failed, ", ")), exitDiffers, "the report says what differs, and what that means"}
	case first != nil:
		return &codedError{fmt.Errorf("verify: %w", first), exitFailed, hintFor(first)}
	}
	return fmt.Errorf("verify: %s: nothing that was asked for could be compared", strings.Join(failed, ", "))
}
