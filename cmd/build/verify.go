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
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

const verifySynopsis = `verify rebuilds images from nothing and says whether they are, bit for bit, what was rebuilt, and
if not, what differs: from the inside out, a program, a file in a layer, a layer's compression, the
config, the manifest, the index. A REF is a reference in a registry, the folder of an OCI layout, or an
archive. The image itself says which release it claims to be; every sum comes from the Go checksum
database, and no checkout is needed. Without a REF, it rebuilds what the lock has as inputs and
compares with what the lock records.

With --source, the release is also proven from upstream's git repository: that its tag names the commit,
and that the commit's tree is the module. With --attest, what was found is signed and attached to the
image in its registry; with --require N, N of the rebuilders that you name must have done so.

Exit code 0 says that everything asked for was verified, 3 that something differs, 1 that it could not
be found out.`

const verifyExample = `  build verify docker.io/camllia/derper:latest
  build verify --platform host --html report.html ghcr.io/xavieralpha/derper@sha256:...
  build verify --source --require 1 --rebuilder alice.pub camllia/derper
  build verify`

// verifyOptions are the flags of build verify.
type verifyOptions struct {
	lockFile, platforms, cacheDir, html string
	trustCache, asJSON, source          bool
	repository, attest                  string
	require                             int
	rebuilders                          []string
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
	flags.BoolVar(&o.source, "source", false, "also prove that git tag, commit, module and checksum database agree")
	flags.StringVar(&o.repository, "repository", upstreamRepository, "`URL` or folder of tailscale's git repository, for --source")
	flags.StringVar(&o.attest, "attest", "", "sign what was found with the private key in `file`, or as the GitHub workflow that this runs in\nwith the word keyless, and attach it to the image")
	flags.IntVar(&o.require, "require", 0, "pass only when `N` rebuilders attest the same")
	flags.Func("rebuilder", "trust this rebuilder: the `file` of a public key, or IDENTITY,ISSUER; may be repeated", collect(&o.rebuilders))
	refs, err := flags.parse(args)
	if err != nil {
		return err
	}
	if err := o.check(refs); err != nil {
		return err
	}
	v := &verify.Verifier{Fresh: !o.trustCache}
	if o.platforms != "all" {
		// An image is verified without its lock, so each that is known may be asked for.
		if v.Platforms, err = lock.ParsePlatforms(o.platforms, lock.Known); err != nil {
			return usageError("--platform: %w", err)
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
	if v.Keychain, err = imageKeychain(refs); err != nil {
		return err
	}
	if v.Rebuilders, err = openRebuilders(ctx, o); err != nil {
		return err
	}
	var signer *sign.Signer
	if o.attest != "" { // before, too: it may ask for a password
		if signer, err = openSigner(ctx, o.attest, stderr); err != nil {
			return err
		}
	}
	c, remove, err := verifyCache(o)
	if err != nil {
		return err
	}
	defer remove()
	v.Cache, v.Modules, v.Display = c, modules(c), progress.New(stderr)
	c.Warn = v.Display.Printf
	if o.source {
		v.Source = &upstream.Source{Modules: v.Modules, Repository: o.repository, Warn: c.Warn}
	}
	report, err := verifyAll(ctx, v, o.lockFile, refs)
	v.Display.Close()
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if o.html != "" {
		var page bytes.Buffer
		if err := errors.Join(report.WriteHTML(&page), atomicfile.Write(o.html, page.Bytes())); err != nil {
			return fmt.Errorf("--html: %w", err)
		}
	}
	var text strings.Builder
	if err = report.WriteText(&text); err == nil {
		err = addSummary(fenced(text.String()))
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	write := report.WriteText
	if o.asJSON {
		write = report.WriteJSON
	}
	if err := write(stdout); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if signer != nil {
		if err := attestRebuilds(ctx, report, signer, v.Keychain, stderr); err != nil {
			return err
		}
	}
	return verdict(report)
}

// check refuses flags that do not go together.
func (o *verifyOptions) check(refs []string) error {
	switch {
	case o.cacheDir != "" && !o.trustCache:
		return usageError("--cache names what --trust-cache trusts: give both, or none")
	case o.attest != "" && o.trustCache:
		return usageError("--attest says that the image was rebuilt from nothing: it cannot be had with --trust-cache")
	case o.require < 0, (o.require > 0) != (len(o.rebuilders) > 0):
		return usageError("--require and --rebuilder belong together: how many, and of whom")
	case o.require > len(o.rebuilders):
		return usageError("--require %d: only %d are named with --rebuilder", o.require, len(o.rebuilders))
	case len(refs) == 0 && (o.attest != "" || o.require > 0):
		return usageError("--attest and --require are about an image in a registry: name it")
	}
	return nil
}

// openRebuilders is whom the flags trust to have rebuilt an image.
func openRebuilders(ctx context.Context, o verifyOptions) (verify.Rebuilders, error) {
	r := verify.Rebuilders{Require: o.require}
	seen := map[string]bool{}
	for _, word := range o.rebuilders {
		key, identity, issuer := word, "", ""
		if _, err := os.Stat(word); err != nil {
			if before, after, ok := strings.Cut(word, ","); ok {
				key, identity, issuer = "", before, after
			}
		}
		trust, err := openTrust(ctx, key, identity, issuer, &sigstoreFlags{})
		if err != nil {
			return r, fmt.Errorf("verify: --rebuilder %s: %w", word, err)
		}
		if seen[trust.String()] {
			return r, usageError("--rebuilder %s: is named twice", word)
		}
		seen[trust.String()] = true
		r.Trust = append(r.Trust, trust)
	}
	return r, nil
}

// imageKeychain has the credentials for those of these images that are in a registry.
func imageKeychain(refs []string) (authn.Keychain, error) {
	return credentials(slices.DeleteFunc(slices.Clone(refs), func(ref string) bool {
		_, err := os.Stat(ref)
		_, _, perr := registry.Split(ref)
		return err == nil || perr != nil // which is said when it is opened
	}))
}

func openSigner(ctx context.Context, key string, stderr io.Writer) (*sign.Signer, error) {
	if key == "keyless" {
		return keylessSigner(ctx, &sigstoreFlags{})
	}
	return keySigner(key, stderr)
}

// attestRebuilds signs what was found and attaches it to the images.
func attestRebuilds(ctx context.Context, report *verify.Report, signer *sign.Signer, keychain authn.Keychain, stderr io.Writer) error {
	client := &registry.Client{Keychain: keychain}
	for _, s := range report.Subjects {
		if s.Statement == nil {
			fmt.Fprintf(stderr, "%s: not attested: it is in no registry, or was not found out about\n", s.Ref)
			continue
		}
		r, err := client.Open(ctx, s.Ref, registry.Push)
		if err != nil {
			return fmt.Errorf("verify: attest: %w", err)
		}
		done, err := sign.Attach(ctx, []attest.Statement{*s.Statement}, signer, []*registry.Repository{r}, func(int, int) {})
		if err != nil {
			return fmt.Errorf("verify: attest %s: %w", s.Ref, err)
		}
		what := "attached to"
		if done[0].Attached == 0 {
			what = "was there already, attached to"
		}
		fmt.Fprintf(stderr, "%s: attestation by %s %s %s\n", s.Ref, signer.Trust, what, s.Digest)
	}
	return nil
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
	const prefix = "derper-verify-"
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")); err == nil {
		cache.RemoveUnused(left)
	}
	dir, err := os.MkdirTemp("", prefix)
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
		return &codedError{fmt.Errorf("verify: %w", first), exitFailed, verifyHint(first)}
	}
	return fmt.Errorf("verify: %s: nothing that was asked for could be compared", strings.Join(failed, ", "))
}

// verifyHint is what to do about an image that could not be verified.
func verifyHint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "a platform takes about 2 GB while it is rebuilt: set TMPDIR to a folder with more space"
	case errors.Is(err, image.ErrNotFound):
		return "name a reference such as docker.io/camllia/derper:latest, the folder of an OCI layout, or an archive of docker save or skopeo"
	case errors.Is(err, registry.ErrUnreachable):
		return "check the registry's name and the network, or HTTPS_PROXY"
	case errors.Is(err, image.ErrCorrupt):
		return "no container runtime takes it as it is: fetch or push it again"
	case errors.Is(err, image.ErrForeign):
		return "verify is for images that this project's program made: those say what they were made of"
	case errors.Is(err, verify.ErrRebuilders):
		return "ask others to rebuild it: " + self() + " verify --attest KEY REF"
	case errors.Is(err, upstream.ErrRepository):
		return "check the network, or name a copy of the repository with --repository"
	}
	return hintFor(err)
}
