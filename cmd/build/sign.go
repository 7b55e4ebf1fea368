package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"golang.org/x/term"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
)

const signSynopsis = `sign signs an image by digest and attaches to its index and to each of its images, as OCI referrers: the
signature, SLSA provenance, an SPDX SBOM. It takes an OCI layout that was pushed, or references with
digests. What is there already is left as it is. Nothing but the digest counts: no tag is read or moved.
Credentials are those of build push.

With --key it signs with a private key in PEM, cosign's encrypted ones or plain ones, ECDSA P-256 or
Ed25519; the password comes from COSIGN_PASSWORD or is asked for. With --keyless it signs as the workflow
that it runs in, in a job of GitHub Actions that has the permission id-token: write; the signatures are
in a public log.`

const signExample = `  build sign --keyless dist
  build sign --key cosign.key registry.example.com/derper@sha256:...`

// signResult is what build sign says, in JSON.
type signResult struct {
	Index        string          `json:"index"`
	Signer       string          `json:"signer"`
	Repositories []sign.Attached `json:"repositories"`
}

const signText = `{{range .}}{{.Index}}
signed by {{.Signer}}
{{range .Repositories}}{{.Repository}}: {{.Attached}} attached, {{.Present}} were there
{{end}}{{end}}`

// sigstoreFlags name an instance of Sigstore other than the public one.
type sigstoreFlags struct{ root, config string }

// open reads the instance that the flags name, or fetches the public one.
func (f *sigstoreFlags) open(ctx context.Context) (*sign.Sigstore, error) {
	if *f == (sigstoreFlags{}) {
		*f = publicSigstore
	}
	if *f == (sigstoreFlags{}) {
		s, err := sign.PublicSigstore(ctx)
		if err != nil {
			err = cli.Failed(fmt.Errorf("sigstore: %w", err), "check the network, or name the instance's files with --trusted-root and --signing-config")
		}
		return s, err
	}
	trusted, err := root.NewTrustedRootFromPath(f.root)
	if err != nil {
		return nil, fmt.Errorf("--trusted-root %s: %w", f.root, err)
	}
	s := &sign.Sigstore{Root: trusted}
	if f.config != "" {
		if s.Config, err = root.NewSigningConfigFromPath(f.config); err != nil {
			return nil, fmt.Errorf("--signing-config %s: %w", f.config, err)
		}
	}
	return s, nil
}

// signFlags say who signs. They are the Signer of a release.
type signFlags struct {
	sigstoreFlags
	key     string
	keyless bool
	stderr  io.Writer
	signer  *sign.Signer // once it was made
}

func (f *signFlags) register(flags *flagSet) {
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
func (f *signFlags) Sign(ctx context.Context, lockFile, layout string, repositories []string) error {
	if err := f.makeSigner(ctx); err != nil {
		return err
	}
	img, err := openSigned(ctx, layout, repositories)
	if err != nil {
		return err
	}
	_, err = f.sign(ctx, img, lockFile)
	return err
}

// Signed reports whether the step sign was done.
func (f *signFlags) Signed(ctx context.Context, references []string) (bool, error) {
	err := f.makeSigner(ctx)
	for _, ref := range references {
		if err == nil {
			_, err = checkSignatures(ctx, ref, f.signer.Trust)
		}
	}
	if errors.Is(err, sign.ErrUnverified) {
		return false, nil
	}
	return err == nil, err
}

func runSign(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("sign [flags] LAYOUT|REPOSITORY@DIGEST...", signSynopsis, signExample, stdout)
	lockFile := flags.String("lock", lock.File, "the lock `file`")
	var repositories []string
	flags.Func("repo", "`repository` to attach to, may be repeated, or a list with commas (default that of the reference; for a layout "+strings.Join(registry.Default, " and ")+")", collect(&repositories, registry.CheckName))
	f := signFlags{stderr: stderr}
	f.register(flags)
	flags.BoolVar(&flags.asJSON, "json", false, "print the result as JSON")
	sources, err := flags.parse(args, func(sources []string) error {
		switch {
		case len(sources) == 0:
			return cli.Usage("sign: names no image")
		case (f.key == "") == !f.keyless:
			return cli.Usage("sign: wants either --key FILE or --keyless")
		case (f.root == "") != (f.config == ""):
			return cli.Usage("sign: --trusted-root and --signing-config belong together")
		case f.key != "" && f.root != "":
			return cli.Usage("sign: --trusted-root and --signing-config are for --keyless")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := f.makeSigner(ctx); err != nil {
		return err
	}
	images := make([]*signedImage, len(sources))
	for i, source := range sources {
		if images[i], err = openSigned(ctx, source, repositories); err != nil {
			return err
		}
	}
	results := make([]*signResult, len(images))
	for i, img := range images {
		if results[i], err = f.sign(ctx, img, *lockFile); err != nil {
			return err
		}
	}
	return flags.print(results, signText)
}

// signedImage is an image to sign, and where.
type signedImage struct {
	source       string
	index        v1.ImageIndex
	repositories []*registry.Repository
}

// openSigned opens an image, from a layout or from a registry.
func openSigned(ctx context.Context, source string, repositories []string) (_ *signedImage, err error) {
	img := &signedImage{source: source}
	var references []string
	var from v1.Descriptor
	if info, serr := os.Stat(source); serr == nil && info.IsDir() {
		if img.index, err = openLayout(source); err != nil {
			return nil, err
		}
		if len(repositories) == 0 {
			repositories = registry.Default
		}
	} else {
		repository, identifier, err := splitReference(source)
		if err != nil {
			return nil, err
		}
		if from.Digest, err = v1.NewHash(identifier); err != nil {
			return nil, cli.Usage("sign: %s names a tag, which may move: name the digest, REPOSITORY@sha256:...", source)
		}
		if len(repositories) == 0 {
			repositories = []string{repository}
		}
		references = []string{source}
	}
	keychain, err := credentials(append(references, repositories...))
	if err != nil {
		return nil, err
	}
	client := &registry.Client{Keychain: keychain}
	for _, name := range repositories {
		r, err := client.Open(ctx, name, registry.Push)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		img.repositories = append(img.repositories, r)
	}
	if img.index == nil {
		r, err := client.Open(ctx, source, registry.Pull)
		if err == nil {
			img.index, err = image.IndexOf(ctx, r, from)
		}
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
	}
	return img, nil
}

// sign signs one image.
func (f *signFlags) sign(ctx context.Context, img *signedImage, lockFile string) (*signResult, error) {
	var run attest.Run
	if f.keyless {
		run = githubRun()
	}
	set, err := makeSet(ctx, lockFile, img.source, img.index, run, f.stderr)
	if err != nil {
		return nil, err
	}
	statements, err := set.Statements()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	display := progress.New(f.stderr)
	defer display.Close()
	task := display.Start("sign "+img.source, "statements")
	attached, err := sign.Attach(ctx, statements, f.signer, img.repositories, func(done, total int) { task.Set(int64(done), int64(total)) })
	task.End(err)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return &signResult{set.Subjects[0].Descriptor.Digest.String(), f.String(), attached}, nil
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
	tokens := sign.GitHub{URL: os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), Bearer: os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")}
	if tokens.URL == "" || tokens.Bearer == "" {
		return nil, cli.Failed(errors.New("--keyless: nothing here vouches for who signs"),
			"run it in a job of GitHub Actions that has the permission id-token: write, or sign with --key")
	}
	s, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	return sign.NewKeylessSigner(ctx, s, tokens)
}

// githubRun is what GitHub Actions says of the run, for the provenance.
// Source: https://docs.github.com/actions, default environment variables.
func githubRun() attest.Run {
	server, repository := os.Getenv("GITHUB_SERVER_URL"), os.Getenv("GITHUB_REPOSITORY")
	if server == "" || repository == "" {
		return attest.Run{}
	}
	run := attest.Run{Source: server + "/" + repository, Commit: os.Getenv("GITHUB_SHA")}
	if workflow := os.Getenv("GITHUB_WORKFLOW_REF"); workflow != "" {
		run.Builder = server + "/" + workflow
	}
	if id := os.Getenv("GITHUB_RUN_ID"); id != "" {
		run.Invocation = run.Source + "/actions/runs/" + id + "/attempts/" + os.Getenv("GITHUB_RUN_ATTEMPT")
	}
	return run
}
