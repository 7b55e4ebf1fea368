package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
)

const verifySignatureSynopsis = `verify-signature verifies that the index of an image in a registry and each image in it has a signature,
SLSA provenance and an SPDX SBOM, and who signed them: a key, or an identity that an issuer vouched for.
Exit code 1 says that something is missing, or is by somebody else.`

const verifySignatureExample = `  build verify-signature --key cosign.pub registry.example.com/derper:1.102.3
  build verify-signature camllia/derper:1.102.3 --issuer https://token.actions.githubusercontent.com \
    --identity https://github.com/xavieralpha/derper/.github/workflows/sign.yml@refs/heads/main`

// verifySignatureResult is what build verify-signature says, in JSON.
type verifySignatureResult struct {
	Reference string         `json:"reference"`
	Digest    string         `json:"digest"`
	Signer    string         `json:"signer"`
	Verified  bool           `json:"verified"`
	Subjects  []sign.Checked `json:"subjects"`
}

// kinds are what build verify-signature calls the types of statements.
var kinds = map[string]string{attest.Signature: "signature", attest.SLSA: "provenance", attest.SPDX: "SBOM"}

const verifySignatureText = `{{.Reference}}

PLATFORM	DIGEST	SIGNATURE	PROVENANCE	SBOM
{{range $s := .Subjects}}{{or .Platform "index"}}	{{.Digest}}
{{- range $.Types}}	{{if index $s.Verified .}}ok{{else}}NO{{end}}{{end}}
{{end}}
{{range .Reasons}}{{.}}
{{end}}{{if .Verified}}signed by {{.Signer}}
{{end}}`

func runVerifySignature(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("verify-signature [flags] REF", verifySignatureSynopsis, verifySignatureExample, stdout)
	key := flags.String("key", "", "the public key in `file` must have signed it")
	identity := flags.String("identity", "", "this `identity` must have signed it")
	issuer := flags.String("issuer", "", "`URL` of who vouches for the identity")
	var instance sigstoreFlags
	flags.StringVar(&instance.root, "trusted-root", "", "trusted root `file` of another Sigstore than the public one")
	flags.BoolVar(&flags.asJSON, "json", false, "print the result as JSON")
	ref, err := flags.parseOne(args, "images", "")
	if err != nil {
		return err
	}
	if *key == "" && (*identity == "" || *issuer == "") || *key != "" && (*identity != "" || *issuer != "" || instance.root != "") {
		return cli.Usage("verify-signature: wants either --key FILE, or --identity and --issuer")
	}
	trust, err := openTrust(ctx, *key, *identity, *issuer, &instance)
	if err != nil {
		return fmt.Errorf("verify-signature: %w", err)
	}
	result, err := checkSignatures(ctx, ref, trust)
	if err == nil || errors.Is(err, sign.ErrUnverified) {
		if perr := flags.print(result, verifySignatureText); perr != nil {
			return perr
		}
	}
	return err
}

// Types are the types of statements, in the order of the text's columns.
func (*verifySignatureResult) Types() []string { return attest.Types }

// Reasons are why statements are refused: many for the same reason, which is said once.
func (r *verifySignatureResult) Reasons() (lines []string) {
	var reasons []string
	about := map[string][]string{}
	for _, s := range r.Subjects {
		for _, typ := range attest.Types {
			if why := s.Problems[typ]; why != "" {
				if about[why] == nil {
					reasons = append(reasons, why)
				}
				about[why] = append(about[why], kinds[typ]+" of "+cmp.Or(string(s.Platform), "index"))
			}
		}
	}
	for _, why := range reasons {
		what := about[why][0]
		if more := len(about[why]) - 1; more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
		lines = append(lines, what+": "+why)
	}
	return lines
}

// checkSignatures verifies what is signed about an image in a registry. The error is
// sign.ErrUnverified if something is not; the result says what.
func checkSignatures(ctx context.Context, ref string, trust *sign.Trust) (*verifySignatureResult, error) {
	if _, _, err := splitReference(ref); err != nil {
		return nil, err
	}
	keychain, err := credentials([]string{ref})
	if err != nil {
		return nil, err
	}
	result := &verifySignatureResult{Reference: ref, Signer: trust.String()}
	r, err := (&registry.Client{Keychain: keychain}).Open(ctx, ref, registry.Pull)
	var top v1.Descriptor
	if err == nil {
		top, err = r.Resolve(ctx)
	}
	var index v1.ImageIndex
	if err == nil {
		index, err = image.IndexOf(ctx, r, top)
	}
	if err == nil {
		result.Digest = top.Digest.String()
		result.Subjects, err = sign.Check(ctx, r, index, trust)
	}
	if err != nil {
		return result, fmt.Errorf("verify-signature: %w", err)
	}
	result.Verified = true
	return result, nil
}

// openTrust is whom the flags trust.
func openTrust(ctx context.Context, key, identity, issuer string, instance *sigstoreFlags) (*sign.Trust, error) {
	if key == "" {
		s, err := instance.open(ctx)
		if err != nil {
			return nil, err
		}
		return sign.TrustIdentity(s.Root, identity, issuer)
	}
	data, err := os.ReadFile(key)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	public, err := sign.ParsePublicKey(data)
	if err != nil {
		return nil, cli.Failed(fmt.Errorf("--key %s: %w", key, err), "it wants the public key, as cosign.pub")
	}
	return sign.TrustKey(public)
}
