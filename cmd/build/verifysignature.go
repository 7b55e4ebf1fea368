package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
)

const verifySignatureText = `{{.Reference}}

PLATFORM	DIGEST	SIGNATURE	PROVENANCE	SBOM
{{range $s := .Subjects}}{{or .Platform "index"}}	{{.Digest}}
{{- range $.Types}}	{{if index $s.Verified .}}ok{{else}}NO{{end}}{{end}}
{{end}}
{{range .Reasons}}{{indent .}}
{{end}}{{if .Verified}}signed by {{.Signer}}
{{with .Variant}}variant {{.}}
{{end}}{{end}}`

const testResultsText = `{{with .Cases}}
PLATFORM	TESTS	PASSED	SKIPPED	FAILED	TESTED BY
{{range $.Subjects}}{{$platform := .Platform}}{{range .Tests}}{{$platform}}	{{.Result}}	{{len .Passed}}	{{len .Skipped}}	{{len .Failed}}	build {{.Version}} {{.Runner}} on {{.Host}}
{{end}}{{end}}
CASE	PASSED ON	SKIPPED ON	FAILED ON
{{range .}}{{.Name}}	{{.Passed}}	{{.Skipped}}	{{.Failed}}
{{end}}{{end}}`

// trustFlags say whose signatures count.
type trustFlags struct{ key, identity, issuer, repository, root string }

func newVerifySignature(e *env) *cobra.Command {
	var t trustFlags
	var tests bool
	c := &cobra.Command{
		Use:   "verify-signature [flags] REF",
		Short: "verify the signatures of an image in a registry",
		Long: `verify-signature verifies that the index of an image in a registry and each
image in it has a signature, SLSA provenance and an SPDX SBOM, and who signed
them: a key, or an identity that an issuer vouched for. Exit code 1 says that
something is missing, or is by somebody else. With --tests, each image must also
have results of tests, signed by the same, in which no case failed; they are
shown.

Anybody's workflow on GitHub can call another repository's, and then signs with
a certificate for that one. So the run must have been one of the identity's own
repository, on its branch, or of the one that --signer-repository names.`,
		Example: `  build verify-signature --key cosign.pub registry.example.com/derper:1.102.3
  build verify-signature --tests camllia/derper:1.102.3 \
    --issuer https://token.actions.githubusercontent.com \
    --identity https://github.com/xavieralpha/derper/.github/workflows/sign.yml@refs/heads/main`,
		Args: cli.One("images"),
	}
	f := c.Flags()
	f.StringVar(&t.key, "key", "", "the public key in `file` must have signed it")
	f.StringVar(&t.identity, "identity", "", "this `identity` must have signed it")
	f.StringVar(&t.issuer, "issuer", "", "`URL` of who vouches for the identity")
	f.StringVar(&t.repository, "signer-repository", "", "`URL` of the repository whose run must have signed it, or URL@REF (default that of the identity)")
	f.StringVar(&t.root, "trusted-root", "", "trusted root `file` of another Sigstore than the public one")
	f.BoolVar(&tests, "tests", false, "also verify that each image was tested, and show the results")
	out := newPrinter(e, c)
	c.PreRunE = func(_ *cobra.Command, args []string) error {
		if t.key == "" && (t.identity == "" || t.issuer == "") || t.key != "" && (t.identity != "" || t.issuer != "" || t.repository != "" || t.root != "") {
			return cli.Usage("verify-signature: expected either --key FILE, or --identity and --issuer")
		}
		if _, _, err := registry.Split(args[0]); err != nil {
			return cli.Usage("verify-signature: %w", err)
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		trust, err := e.openTrust(c.Context(), t)
		if err != nil {
			return fmt.Errorf("verify-signature: %w", err)
		}
		report, err := e.checkSignatures(c.Context(), args[0], trust)
		text := verifySignatureText
		if tests && (err == nil || errors.Is(err, sign.ErrUnverified)) {
			text += testResultsText
			if terr := report.RequireTests(); terr != nil && err == nil {
				err = fmt.Errorf("verify-signature: %w", terr)
			}
		}
		if err == nil || errors.Is(err, sign.ErrUnverified) {
			if perr := out.print(report, text); perr != nil {
				return perr
			}
		}
		return err
	}
	return c
}

// checkSignatures verifies what is signed about an image in a registry. The error is
// sign.ErrUnverified if something is not; the report says what.
func (e *env) checkSignatures(ctx context.Context, ref string, trust *sign.Trust) (*sign.Report, error) {
	keychain, err := e.credentials([]string{ref})
	if err != nil {
		return nil, err
	}
	report, err := sign.CheckReference(ctx, &registry.Client{Keychain: keychain}, ref, trust)
	if err != nil {
		err = fmt.Errorf("verify-signature: %w", err)
	}
	return report, err
}

// openTrust is whom the flags trust.
func (e *env) openTrust(ctx context.Context, t trustFlags) (*sign.Trust, error) {
	if t.key == "" {
		s, err := e.sigstore(ctx, sigstoreFiles{root: t.root})
		if err != nil {
			return nil, err
		}
		return sign.TrustIdentity(s.Root, sign.Identity{Subject: t.identity, Issuer: t.issuer, Repository: t.repository})
	}
	data, err := os.ReadFile(t.key)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	trust, err := trustPEM(data)
	if err != nil {
		return nil, cli.Failed(fmt.Errorf("--key %s: %w", t.key, err), "it is for the public key, as cosign.pub")
	}
	return trust, nil
}

// trustPEM trusts a public key.
func trustPEM(key []byte) (*sign.Trust, error) {
	public, err := sign.ParsePublicKey(key)
	if err != nil {
		return nil, err
	}
	return sign.TrustKey(public)
}
