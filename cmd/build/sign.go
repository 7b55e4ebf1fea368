package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/delivery"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
)

// signResult is what build sign says, in JSON.
type signResult struct {
	Source       string          `json:"source"` // what was read
	Index        string          `json:"index"`
	Signer       string          `json:"signer"`
	Repositories []sign.Attached `json:"repositories"`
}

const signText = `{{range .}}{{.Source}}
{{.Index}}
signed by {{.Signer}}
{{range .Repositories}}{{.Repository}}: {{.Attached}} attached, {{.Present}} were there{{with .Removed}}, {{.}} older ones removed{{end}}
{{end}}{{end}}`

func newSign(e *env) *cobra.Command {
	var in inputFlags
	var to []string
	var tests string
	f := signFlags{env: e}
	c := &cobra.Command{
		Use:   "sign [flags] LAYOUT|REPOSITORY@DIGEST ...",
		Short: "sign an image; attach signature, SBOMs and provenance",
		Long: `sign signs an image by digest and attaches to its index and to each of its
images, as OCI referrers: the signature, SLSA provenance, an SPDX SBOM. Its
arguments are OCI layouts that were pushed, by paths that begin with ./, ../ or
/, or references with digests. Only what the lock records is signed: the index,
and each image in it. What is there already is left as it is. Nothing but the
digest counts: no tag is read or moved. Credentials are those of build push.
With --tests, what build test found is attached, too, to the very digests that
it tested; results of any other digest are refused.
With --scans it attaches an OpenVEX document, too, and removes older ones.

With --key it signs with a private key in PEM, cosign's encrypted ones or plain
ones, ECDSA P-256 or Ed25519; the password comes from COSIGN_PASSWORD or is
asked for. With --keyless it signs as the workflow that it runs in, in a job of
GitHub Actions that has the permission id-token: write; the signatures are in a
public log.`,
		Example: `  build sign --keyless ./dist
  build sign --key cosign.key registry.example.com/derper@sha256:...
  build sign --key cosign.key --tests tests.json --scans scans.json ./dist`,
		Args: cli.Some("images"),
	}
	in.registerLock(c)
	registerTo(c, &to, "to attach to", "that of the reference; for a layout "+publishedIn)
	f.register(c)
	c.Flags().StringVar(&tests, "tests", "", "also attach the test results in `file`, which build test --results wrote, to the images that were tested")
	registerScans(c, &f.scans, "to attach as an OpenVEX document")
	out := newPrinter(e, c)
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		switch {
		case (f.key == "") == !f.keyless:
			return cli.Usage("sign: expected either --key FILE or --keyless")
		case (f.root == "") != (f.config == ""):
			return cli.Usage("sign: --trusted-root and --signing-config belong together")
		case f.key != "" && f.root != "":
			return cli.Usage("sign: --trusted-root and --signing-config are for --keyless")
		}
		return checkRepositories(to)
	}
	c.RunE = func(c *cobra.Command, sources []string) error {
		ctx := c.Context()
		if err := f.makeSigner(ctx); err != nil {
			return err
		}
		images := make([]*sign.Image, len(sources))
		for i, source := range sources {
			var err error
			if images[i], err = f.open(ctx, source, to); err != nil {
				return err
			}
		}
		tested, err := readTests(tests, images)
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		results := make([]*signResult, len(images))
		for i, img := range images {
			var err error
			if results[i], err = f.sign(ctx, img, in.lockFile, tested[i]); err != nil {
				return err
			}
		}
		return out.print(results, signText)
	}
	return c
}

// open opens an image to sign.
func (f *signFlags) open(ctx context.Context, source string, to []string) (*sign.Image, error) {
	img, err := sign.OpenImage(ctx, source, to, f.credentials)
	if err != nil {
		err = explain(fmt.Errorf("sign: %w", err), layoutHints(source))
	}
	return img, err
}

// sign signs one image, and the results of its tests.
func (f *signFlags) sign(ctx context.Context, img *sign.Image, lockFile string, tests []attest.Tests) (*signResult, error) {
	var run attest.Run
	if f.keyless {
		run = f.attestedRun()
	}
	set, err := f.makeSet(ctx, lockFile, img.Source, img.Index, run)
	if err != nil {
		return nil, err
	}
	statements, err := set.Statements()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	more, err := set.TestStatements(tests)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var document []byte
	if f.scans != "" {
		report, err := readScans(f.scans, lockFile, set.Variant().Name)
		if err != nil {
			return nil, err
		}
		statement, err := report.Statement(set.Subjects, names(img))
		if err == nil {
			document, err = report.Document(set.Subjects, names(img))
		}
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		more = append(more, statement)
	}
	if f.documents != "" {
		if _, err := writeSet(set, document, delivery.LayoutOf(f.documents, set.Variant())); err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
	}
	// Before the last of those by which an image counts as signed: a run that was stopped is
	// done again.
	attached, err := f.attach(ctx, img, slices.Insert(statements, len(statements)-1, more...))
	if err != nil {
		return nil, err
	}
	return &signResult{registry.Describe(img.Source), set.Subjects[0].Descriptor.Digest.String(), f.String(), attached}, nil
}

// attestedRun is what the provenance says of the workflow run.
func (e *env) attestedRun() attest.Run {
	w := e.workflow()
	if e.getenv("GITHUB_SERVER_URL") == "" || w.Repository() == "" {
		return attest.Run{}
	}
	run := attest.Run{Source: w.Repository(), Commit: e.getenv("GITHUB_SHA")}
	if file := e.getenv("GITHUB_WORKFLOW_REF"); file != "" {
		run.Builder = w.Server() + "/" + file
	}
	if address := w.Run(); address != "" {
		run.Invocation = address + "/attempts/" + e.getenv("GITHUB_RUN_ATTEMPT")
	}
	return run
}
