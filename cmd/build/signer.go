package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/sign"
)

// signFlags say who signs. They are the Signer of a release.
type signFlags struct {
	*env
	sigstoreFiles
	key     string
	keyless bool
	scans   string       // a file of build scan
	signer  *sign.Signer // once it was made
	// documents is a folder that also gets what is attached, as files; "" for none.
	documents string
}

func (f *signFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.key, "key", "", "sign with the private key in `file`")
	flags.BoolVar(&f.keyless, "keyless", false, "sign as the GitHub workflow that this runs in")
	flags.StringVar(&f.root, "trusted-root", "", "trusted root `file` of another Sigstore than the public one")
	flags.StringVar(&f.config, "signing-config", "", "signing config `file` of another Sigstore than the public one")
}

// makeSigner makes the signer: from the key, for which it may ask for a password, or
// from a first certificate for this workflow.
func (f *signFlags) makeSigner(ctx context.Context) (err error) {
	switch {
	case f.signer != nil:
	case f.keyless:
		f.signer, err = f.keylessSigner(ctx)
	default:
		f.signer, err = f.keySigner()
	}
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	return nil
}

func (f *signFlags) String() string  { return f.signer.Trust.String() }
func (f *signFlags) Command() string { return "build verify-signature " + f.signer.Trust.Flags() }

// Sign is the step sign of a release.
func (f *signFlags) Sign(ctx context.Context, lockFile, layout string, found release.Findings, repositories []string) error {
	f.scans = found.Scans
	if err := f.makeSigner(ctx); err != nil {
		return err
	}
	img, err := f.open(ctx, layout, repositories)
	if err != nil {
		return err
	}
	_, err = f.sign(ctx, img, lockFile, found.Tests)
	return err
}

// Signed reports whether the step sign was done.
func (f *signFlags) Signed(ctx context.Context, references []string) (bool, error) {
	err := f.makeSigner(ctx)
	for _, ref := range references {
		if err == nil {
			_, err = f.checkSignatures(ctx, ref, f.signer.Trust)
		}
	}
	if errors.Is(err, sign.ErrUnverified) {
		return false, nil
	}
	return err == nil, err
}

// keySigner reads a private key.
func (f *signFlags) keySigner() (*sign.Signer, error) {
	data, err := os.ReadFile(f.key)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	key, err := sign.ParsePrivateKey(data, func() ([]byte, error) {
		if word, ok := os.LookupEnv("COSIGN_PASSWORD"); ok {
			return []byte(word), nil
		}
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return nil, errors.New("is encrypted, and there is nobody to ask for the password")
		}
		fmt.Fprintf(f.stderr, "password of %s: ", f.key)
		defer fmt.Fprintln(f.stderr)
		return term.ReadPassword(int(os.Stdin.Fd()))
	})
	if err != nil {
		return nil, cli.Failed(fmt.Errorf("--key %s: %w", f.key, err), "the password comes from COSIGN_PASSWORD, or from the terminal; cosign generate-key-pair makes a key")
	}
	return sign.NewSigner(key)
}

// keylessSigner signs as the workflow.
func (f *signFlags) keylessSigner(ctx context.Context) (*sign.Signer, error) {
	tokens := sign.GitHub{URL: f.getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), Bearer: f.getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")}
	if tokens.URL == "" || tokens.Bearer == "" {
		return nil, cli.Failed(errors.New("--keyless: no OIDC identity token in this environment"),
			"run it in a job of GitHub Actions that has the permission id-token: write, or sign with --key")
	}
	s, err := f.sigstore(ctx, f.sigstoreFiles)
	if err != nil {
		return nil, err
	}
	return sign.NewKeylessSigner(ctx, s, tokens)
}
