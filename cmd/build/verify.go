package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

// verifyOptions are the flags of build verify.
type verifyOptions struct {
	inputFlags
	html, source      string
	attest, attestTo  string
	trustCache, prove bool
	thisProgram       bool
	builder           string
	require           int
	rebuilders        []string
	rebuilderFolder   string
}

// newVerify is build verify. The report goes to stdout, as text or as JSON.
func newVerify(e *env) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify [flags] [REF ...]",
		Short: "rebuild an image and say whether it is the same, bit for bit",
		Long: `verify rebuilds images from nothing and says whether they are, bit for bit, what
was rebuilt, and if not, what differs: from the inside out, a program, a file in
a layer, a layer's compression, the config, the manifest, the index. A REF is a
reference in a registry, or the path of an OCI layout or of an archive, which
begins with ./, ../ or /, or ends in .tar. The image itself says which release
it claims to be; every sum comes from the Go checksum database, and no checkout
is needed. Without a REF, it rebuilds what the lock has as inputs, all variants
or those of --variant, and compares with what the lock records. An image says
itself which variant it is; the lock at hand, or else this program, must know
it.

What this program makes otherwise is compared once more: with what the revision
of this project makes whose release the image is. The git tag of its version
leads to it; its source is checked against the checksum database, compiled, and
only builds, without network or secrets; this program compares and judges. The
report says which revision built. With --this-program, there is no other one. A
fork that keeps this module's path has no such tag: --builder DIR names a
checkout of it at the commit that built.

With --source, the release is also proven from upstream's git repository: that
its tag names the commit, and that the commit's tree is the module. With
--attest, what was found is signed and attached to the image in its registry;
with --require N, N of the rebuilders that you name must have done so. Whoever
may not write to the image's repository attaches it to the same digest in
another one, with --attest-to.

Exit code 0 says that everything asked for was verified, 3 that something
differs, 1 that it could not be found out.`,
		Example: `  build verify docker.io/camllia/derper:latest
  build verify --platform host --html report.html ghcr.io/me/derper@sha256:...
  build verify --builder ../fork ghcr.io/me/derper:1.102.3-r1
  build verify --this-program camllia/derper:1.102.3-r1
  build verify --source --require 1 --rebuilder alice.pub camllia/derper
  build verify --require 2 --rebuilders rebuilders camllia/derper
  build verify`,
	}
	f := c.Flags()
	f.StringVar(&o.lockFile, "lock", lock.File, "the lock `file`; where there is one, it must agree about its release")
	o.registerVariants(c, "all")
	o.registerPlatforms(c, "all", "that there should be")
	f.BoolVar(&o.trustCache, "trust-cache", false, "take what was built before, instead of building everything from nothing")
	f.StringVar(&o.cacheDir, "cache", "", "cache `folder` that --trust-cache trusts (default derper in the user cache directory)")
	f.StringVar(&o.html, "html", "", "also write the report to `file`, as one HTML page")
	f.BoolVar(&o.prove, "source", false, "also prove that git tag, commit, module and checksum database agree")
	f.StringVar(&o.source, "source-repo", e.upstream, "`URL` or folder of tailscale's git repository, for --source")
	f.BoolVar(&o.thisProgram, "this-program", false, "compare with what this program makes, and with nothing else")
	f.StringVar(&o.builder, "builder", "", "the `folder` of a checkout whose program builds what this one makes otherwise, for the image of a fork")
	f.StringVar(&o.attest, "attest", "", "sign what was found with the private key in `file`, or as the GitHub workflow that this runs in with the word keyless, and attach it to the image")
	f.StringVar(&o.attestTo, "attest-to", "", "attach it to the digest in this `repository`, which need not have the image (default that of the image)")
	f.IntVar(&o.require, "require", 0, "pass only when `N` rebuilders attest the same")
	f.StringArrayVar(&o.rebuilders, "rebuilder", nil, "trust this rebuilder: the `file` of a public key, or IDENTITY,ISSUER[,REPOSITORY]; may be repeated")
	f.StringVar(&o.rebuilderFolder, "rebuilders", "", "trust the rebuilders in this `folder`, such as rebuilders in this project's repository")
	out := newPrinter(e, c)
	c.PreRunE = func(_ *cobra.Command, refs []string) error { return o.check(refs) }
	c.RunE = func(c *cobra.Command, refs []string) error { return e.runVerify(c.Context(), &o, refs, out) }
	return c
}

// runVerify carries out build verify.
func (e *env) runVerify(ctx context.Context, o *verifyOptions, refs []string, out *printer) error {
	v := &verify.Verifier{Fresh: !o.trustCache}
	var err error
	if o.platforms != "all" {
		// An image is verified without its lock, so each that is known may be asked for.
		if v.Platforms, err = parsePlatforms(o.platforms, lock.Known); err != nil {
			return err
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
	if !o.thisProgram {
		v.Others = &verify.Others{Shared: e.shared}
		if o.builder != "" { // as a path that stays one wherever it is read
			if v.Others.Checkout, err = filepath.Abs(o.builder); err != nil {
				return err
			}
		}
	}
	if len(refs) == 0 {
		if v.Variants, err = o.chosenVariants(v.Lock); err != nil {
			return err
		}
	}
	if o.html != "" { // before, and not after minutes of work
		if _, err := os.Stat(filepath.Dir(o.html)); err != nil {
			return cli.Usage("--html: %w", err)
		}
	}
	if v.Rebuilders, err = e.openRebuilders(ctx, o); err != nil {
		return err
	}
	if v.Keychain, err = e.imageKeychain(append(placesOf(v.Rebuilders, o.attestTo), refs...)); err != nil {
		return err
	}
	signs := signFlags{env: e, key: o.attest, keyless: o.attest == "keyless"}
	if o.attest != "" { // before, too: it may ask for a password
		if err := signs.makeSigner(ctx); err != nil {
			return err
		}
	}
	report, err := e.verify(ctx, o, v, refs)
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
	if out.asJSON {
		write = report.WriteJSON
	}
	err = errors.Join(report.WriteText(&text), e.workflow().AddSummary(github.Fenced(text.String())), write(e.stdout))
	if err == nil && o.attest != "" {
		err = verify.Attest(ctx, report, signs.signer, &registry.Client{Keychain: v.Keychain}, o.attestTo, func(format string, args ...any) {
			fmt.Fprintf(e.stderr, format+"\n", args...)
		})
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return verdict(report)
}

// check refuses flags that do not go together.
func (o *verifyOptions) check(refs []string) error {
	switch {
	case len(refs) > 0 && o.variants != "all":
		return cli.Usage("--variant is for a lock: an image says itself which variant it is")
	case o.cacheDir != "" && !o.trustCache:
		return cli.Usage("--cache names what --trust-cache trusts: give both, or none")
	case o.attest != "" && o.trustCache:
		return cli.Usage("--attest says that the image was rebuilt from nothing: it cannot be had with --trust-cache")
	case o.attest == "" && o.attestTo != "":
		return cli.Usage("--attest-to says where what --attest signs is attached: give both")
	case o.require < 0, (o.require > 0) != (len(o.rebuilders) > 0 || o.rebuilderFolder != ""):
		return cli.Usage("--require and --rebuilder or --rebuilders belong together: how many, and of whom")
	case o.require > len(o.rebuilders) && o.rebuilderFolder == "":
		return cli.Usage("--require %d: rebuilders that are named: %d", o.require, len(o.rebuilders))
	case slices.Contains(o.rebuilders, ""):
		return cli.Usage("--rebuilder names nobody")
	case o.thisProgram && o.builder != "":
		return cli.Usage("--this-program and --builder cannot be combined: one says that no other program builds, the other which one does")
	case len(refs) == 0 && (o.thisProgram || o.builder != ""):
		return cli.Usage("--this-program and --builder are about an image: name it; the lock is of this program's revision")
	case len(refs) == 0 && (o.attest != "" || o.require > 0):
		return cli.Usage("--attest and --require are about an image in a registry: name it")
	}
	if o.attestTo != "" {
		if err := registry.CheckName(o.attestTo); err != nil {
			return cli.Usage("--attest-to: %w", err)
		}
	}
	return nil
}

// verify verifies images, or the lock if there is none. It builds in an empty cache of
// its own, or with --trust-cache in the one that builds use.
func (e *env) verify(ctx context.Context, o *verifyOptions, v *verify.Verifier, refs []string) (report *verify.Report, err error) {
	if !o.trustCache {
		dir, remove, err := e.scratch()
		if err != nil {
			return nil, err
		}
		defer remove()
		o.cacheDir = dir
	}
	v.Display = e.display()
	defer v.Display.Close()
	if v.Cache, err = o.openCache(v.Display); err != nil {
		return nil, err
	}
	defer v.Cache.Close()
	v.Modules = e.modules(v.Cache)
	if o.prove {
		v.Source = &upstream.Source{Modules: v.Modules, Repository: o.source, Warn: v.Display.Printf}
	}
	if len(refs) > 0 {
		return v.References(ctx, refs)
	}
	if report, err = v.Locked(ctx, o.lockFile); errors.Is(err, lock.ErrNoOutputs) {
		err = fmt.Errorf("%s: %w", o.lockFile, err)
	}
	return report, err
}

// imageKeychain has the credentials for those of these images that are in a registry.
func (e *env) imageKeychain(refs []string) (authn.Keychain, error) {
	return e.credentials(slices.DeleteFunc(slices.Clone(refs), func(ref string) bool {
		_, _, err := registry.Split(ref)
		return registry.IsPath(ref) || err != nil // which is said when it is opened
	}))
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
