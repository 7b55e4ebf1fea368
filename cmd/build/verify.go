package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
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
	inputFlags
	html, repository, attest   string
	trustCache, asJSON, source bool
	require                    int
	rebuilders                 []string
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
	flags.Func("rebuilder", "trust this rebuilder: the `file` of a public key, or IDENTITY,ISSUER; may be repeated", func(s string) error {
		o.rebuilders = append(o.rebuilders, s)
		return nil
	})
	refs, err := flags.parse(args, o.check)
	if err != nil {
		return err
	}
	v := &verify.Verifier{Fresh: !o.trustCache}
	if o.platforms != "all" {
		// An image is verified without its lock, so each that is known may be asked for.
		if v.Platforms, err = lock.ParsePlatforms(o.platforms, lock.Known); err != nil {
			return cli.Usage("--platform: %w", err)
		}
	}
	// The lock may be missing where an image is verified.
	v.Lock, err = lock.Read(o.lockFile)
	if errors.Is(err, fs.ErrNotExist) && len(refs) > 0 && o.lockFile == lock.File {
		v.Lock, err = nil, nil
	}
	if err != nil {
		return explain(err, hints{{is(fs.ErrNotExist), "run it in a checkout, name the lock with --lock, or name an image to verify"}})
	}
	if o.html != "" { // before, and not after minutes of work
		if _, err := os.Stat(filepath.Dir(o.html)); err != nil {
			return cli.Usage("--html: %w", err)
		}
	}
	if v.Keychain, err = imageKeychain(refs); err != nil {
		return err
	}
	if v.Rebuilders, err = openRebuilders(ctx, o); err != nil {
		return err
	}
	signs := signFlags{key: o.attest, keyless: o.attest == "keyless", stderr: stderr}
	if o.attest != "" { // before, too: it may ask for a password
		if err := signs.makeSigner(ctx); err != nil {
			return err
		}
	}
	report, err := o.verify(ctx, v, refs, stderr)
	if err != nil {
		return explain(fmt.Errorf("verify: %w", err), verifyHints)
	}
	if o.html != "" {
		var page bytes.Buffer
		if err := errors.Join(report.WriteHTML(&page), atomicfile.Write(o.html, page.Bytes())); err != nil {
			return fmt.Errorf("--html: %w", err)
		}
	}
	var text strings.Builder
	write := report.WriteText
	if o.asJSON {
		write = report.WriteJSON
	}
	err = errors.Join(report.WriteText(&text), addSummary(fenced(text.String())), write(stdout))
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if o.attest != "" {
		if err := attestRebuilds(ctx, report, signs.signer, v.Keychain, stderr); err != nil {
			return err
		}
	}
	return verdict(report)
}

// check refuses flags that do not go together.
func (o *verifyOptions) check(refs []string) error {
	switch {
	case o.cacheDir != "" && !o.trustCache:
		return cli.Usage("--cache names what --trust-cache trusts: give both, or none")
	case o.attest != "" && o.trustCache:
		return cli.Usage("--attest says that the image was rebuilt from nothing: it cannot be had with --trust-cache")
	case o.require < 0, (o.require > 0) != (len(o.rebuilders) > 0):
		return cli.Usage("--require and --rebuilder belong together: how many, and of whom")
	case o.require > len(o.rebuilders):
		return cli.Usage("--require %d: only %d are named with --rebuilder", o.require, len(o.rebuilders))
	case len(refs) == 0 && (o.attest != "" || o.require > 0):
		return cli.Usage("--attest and --require are about an image in a registry: name it")
	}
	return nil
}

// verify verifies images, or the lock if there is none. It builds in an empty cache of
// its own, or with --trust-cache in the one that builds use.
func (o *verifyOptions) verify(ctx context.Context, v *verify.Verifier, refs []string, stderr io.Writer) (report *verify.Report, err error) {
	if !o.trustCache {
		const prefix = "derper-verify-"
		if left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")); err == nil {
			cache.RemoveUnused(left)
		}
		if o.cacheDir, err = os.MkdirTemp("", prefix); err != nil {
			return nil, err
		}
		defer cache.RemoveAll(o.cacheDir)
	}
	v.Display = progress.New(stderr)
	defer v.Display.Close()
	if v.Cache, err = o.openCache(v.Display); err != nil {
		return nil, err
	}
	defer v.Cache.Close()
	v.Modules = modules(v.Cache)
	if o.source {
		v.Source = &upstream.Source{Modules: v.Modules, Repository: o.repository, Warn: v.Display.Printf}
	}
	if len(refs) > 0 {
		return v.References(ctx, refs)
	}
	if report, err = v.Locked(ctx, o.lockFile); errors.Is(err, lock.ErrNoOutputs) {
		err = fmt.Errorf("%s: %w", o.lockFile, err)
	}
	return report, err
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
			return r, cli.Usage("--rebuilder %s: is named twice", word)
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

// verdict is the report as the program's end.
func verdict(r *verify.Report) error {
	var failed []string
	var first error
	for _, s := range r.Subjects {
		if s.Verdict != verify.Verified {
			failed, first = append(failed, s.Ref), cmp.Or(first, s.Err)
		}
	}
	switch {
	case r.Verdict == verify.Verified:
		return nil
	case r.Verdict == verify.Differs:
		return cli.Coded(cli.ExitDiffers, fmt.Errorf("verify: %s: differs from what was rebuilt", strings.Join(failed, ", ")),
			"the report says what differs, and what that means")
	case first != nil:
		return explain(fmt.Errorf("verify: %w", first), verifyHints)
	}
	return fmt.Errorf("verify: %s: nothing that was asked for could be compared", strings.Join(failed, ", "))
}
