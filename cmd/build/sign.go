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

// sigstoreFlags name an instance of Sigstore other than the public one.
type sigstoreFlags struct{ root, config string }

// open reads the instance that the flags name, or fetches the public one.
func (f *sigstoreFlags) open(ctx context.Context) (*sign.Sigstore, error) {
	if f.root == "" && f.config == "" {
		*f = publicSigstore
	}
	if f.root == "" && f.config == "" {
		s, err := sign.PublicSigstore(ctx)
		if err != nil {
			return nil, &codedError{fmt.Errorf("sigstore: %w", err), exitFailed, "check the network, or name the instance's files with --trusted-root and --signing-config"}
		}
		return s, nil
	}
	var s sign.Sigstore
	trusted, err := root.NewTrustedRootFromPath(f.root)
	if err != nil {
		return nil, fmt.Errorf("--trusted-root %s: %w", f.root, err)
	}
	s.Root = trusted
	if f.config != "" {
		if s.Config, err = root.NewSigningConfigFromPath(f.config); err != nil {
			return nil, fmt.Errorf("--signing-config %s: %w", f.config, err)
		}
	}
	return &s, nil
}

// runSign is build sign.
func runSign(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("sign [flags] LAYOUT|REPOSITORY@DIGEST...", signSynopsis, signExample, stdout)
	lockFile := flags.String("lock", lock.File, "the lock `file`")
	key := flags.String("key", "", "sign with the private key in `file`")
	keyless := flags.Bool("keyless", false, "sign as the GitHub workflow that this runs in")
	var repositories []string
	flags.Func("repo", "`repository` to attach to, may be repeated, or a list with commas (default that of the reference; for a layout "+strings.Join(registry.Default, " and ")+")", collect(&repositories))
	var instance sigstoreFlags
	flags.StringVar(&instance.root, "trusted-root", "", "trusted root `file` of another Sigstore than the public one")
	flags.StringVar(&instance.config, "signing-config", "", "signing config `file` of another Sigstore than the public one")
	asJSON := flags.Bool("json", false, "print the result as JSON")
	sources, err := flags.parse(args)
	if err != nil {
		return err
	}
	switch {
	case len(sources) == 0:
		return usageError("sign: names no image")
	case (*key == "") == !*keyless:
		return usageError("sign: wants either --key FILE or --keyless")
	case (instance.root == "") != (instance.config == ""):
		return usageError("sign: --trusted-root and --signing-config belong together")
	case *key != "" && instance.root != "":
		return usageError("sign: --trusted-root and --signing-config are for --keyless")
	}
	var signer *sign.Signer
	if *key != "" {
		if signer, err = keySigner(*key, stderr); err != nil {
			return err
		}
	}
	images := make([]*signedImage, len(sources))
	for i, source := range sources {
		if images[i], err = openSigned(ctx, source, repositories); err != nil {
			return err
		}
	}
	var run attest.Run
	if *keyless {
		run = githubRun(os.Getenv)
		if signer, err = keylessSigner(ctx, &instance); err != nil {
			return err
		}
	}
	var results []signResult
	for _, img := range images {
		r, err := signImage(ctx, img, *lockFile, run, signer, stderr)
		if err != nil {
			return err
		}
		results = append(results, *r)
	}
	if *asJSON {
		return printJSON(stdout, results)
	}
	for _, r := range results {
		fmt.Fprintf(stdout, "%s\nsigned by %s\n", r.Index, r.Signer)
		for _, a := range r.Repositories {
			fmt.Fprintf(stdout, "%s: %d attached, %d were there\n", a.Repository, a.Attached, a.Present)
		}
	}
	return nil
}

// signedImage is an image to sign, and where.
type signedImage struct {
	source       string
	index        v1.ImageIndex
	repositories []*registry.Repository
}

// openSigned opens an image, from a layout or from a registry.
func openSigned(ctx context.Context, source string, repositories []string) (*signedImage, error) {
	img := &signedImage{source: source}
	references := repositories
	var from v1.Descriptor
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		if img.index, err = openLayout(source); err != nil {
			return nil, err
		}
		if len(repositories) == 0 {
			repositories = registry.Default
			references = repositories
		}
	} else {
		repository, identifier, err := splitReference(source)
		if err != nil {
			return nil, err
		}
		if from.Digest, err = v1.NewHash(identifier); err != nil {
			return nil, usageError("sign: %s names a tag, which may move: name the digest, REPOSITORY@sha256:...", source)
		}
		references = append([]string{source}, repositories...)
		if len(repositories) == 0 {
			repositories = []string{repository}
		}
	}
	keychain, err := credentials(references)
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

// signImage signs one image.
func signImage(ctx context.Context, img *signedImage, lockFile string, run attest.Run, signer *sign.Signer, stderr io.Writer) (*signResult, error) {
	set, err := makeSet(ctx, lockFile, img.source, img.index, run, stderr)
	if err != nil {
		return nil, err
	}
	statements, err := set.Statements()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	display := progress.New(stderr)
	defer display.Close()
	task := display.Start("sign "+img.source, "statements")
	attached, err := sign.Attach(ctx, statements, signer, img.repositories, func(done, total int) { task.Set(int64(done), int64(total)) })
	task.End(err)
	if errors.Is(err, sign.ErrNotThere) {
		return nil, &codedError{fmt.Errorf("sign: %w", err), exitFailed, "push it first; what is signed is what is there"}
	}
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return &signResult{set.Subjects[0].Descriptor.Digest.String(), signer.Trust.String(), attached}, nil
}

// keySigner reads a private key.
func keySigner(file string, stderr io.Writer) (*sign.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("sign: --key: %w", err)
	}
	key, err := sign.ParsePrivateKey(data, func() ([]byte, error) {
		if word, ok := os.LookupEnv("COSIGN_PASSWORD"); ok {
			return []byte(word), nil
		}
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return nil, errors.New("is encrypted, and there is nobody to ask for the password")
		}
		fmt.Fprintf(stderr, "password of %s: ", file)
		defer fmt.Fprintln(stderr)
		return term.ReadPassword(int(os.Stdin.Fd()))
	})
	if err != nil {
		return nil, &codedError{fmt.Errorf("sign: --key %s: %w", file, err), exitFailed, "the password comes from COSIGN_PASSWORD, or from the terminal; cosign generate-key-pair makes a key"}
	}
	return sign.NewSigner(key)
}

// keylessSigner signs as the workflow.
func keylessSigner(ctx context.Context, instance *sigstoreFlags) (*sign.Signer, error) {
	tokens := sign.GitHub{URL: os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), Bearer: os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")}
	if tokens.URL == "" || tokens.Bearer == "" {
		return nil, &codedError{errors.New("sign: --keyless: nothing here vouches for who signs"), exitFailed,
			"run it in a job of GitHub Actions that has the permission id-token: write, or sign with --key"}
	}
	s, err := instance.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	signer, err := sign.NewKeylessSigner(ctx, s, tokens)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return signer, nil
}

// githubRun is what GitHub Actions says of the run, for the provenance.
// Source: https://docs.github.com/actions, default environment variables.
func githubRun(env func(string) string) attest.Run {
	server, repository := env("GITHUB_SERVER_URL"), env("GITHUB_REPOSITORY")
	if server == "" || repository == "" {
		return attest.Run{}
	}
	run := attest.Run{Source: server + "/" + repository, Commit: env("GITHUB_SHA")}
	if workflow := env("GITHUB_WORKFLOW_REF"); workflow != "" {
		run.Builder = server + "/" + workflow
	}
	if id := env("GITHUB_RUN_ID"); id != "" {
		run.Invocation = run.Source + "/actions/runs/" + id + "/attempts/" + env("GITHUB_RUN_ATTEMPT")
	}
	return run
}
