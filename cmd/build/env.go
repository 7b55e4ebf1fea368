package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

// An env is what the program finds around it: where its output goes, and the places that
// nothing but a test has elsewhere.
type env struct {
	stdout, stderr io.Writer
	quiet          bool
	getenv         func(string) string

	sumDB    string // the checksum database in modproxy's form; empty means sum.golang.org
	upstream string // tailscale's git repository
	// sigstore is the public instance of Sigstore, or the one in two files.
	sigstore func(ctx context.Context, files sigstoreFiles) (*sign.Sigstore, error)
	// scratch makes the empty cache in which an image is rebuilt from nothing.
	scratch func() (dir string, remove func() error, err error)
	// shared are folders of the cache that another revision's program uses, too, instead of
	// a copy.
	shared []string
	// tools are what does the work of a release.
	tools func(*releaseOptions) release.Tools
}

// standard is the environment of the program that people run.
func standard() env {
	return env{getenv: os.Getenv, upstream: upstream.Repository, sigstore: openSigstore, scratch: verify.Scratch, tools: (*releaseOptions).realTools}
}

// display shows what is under way.
func (e *env) display() *progress.Display {
	if e.quiet {
		return progress.Quiet(e.stderr)
	}
	return progress.New(e.stderr)
}

// workflow is the workflow on GitHub that the program may run in.
func (e *env) workflow() github.Workflow { return github.Workflow{Getenv: e.getenv} }

// gitHub is the client for the repository that the workflow runs in.
func (e *env) gitHub() (*github.Client, error) {
	c, err := e.workflow().Client()
	if errors.Is(err, github.ErrNoToken) {
		err = cli.Failed(err, "a workflow sets the one in env:, as ${{ github.token }}; GitHub sets the other")
	}
	return c, err
}

// modules is the client through which modules are fetched. GOPROXY is the one
// variable of Go's that counts, and it decides only about the way.
func (e *env) modules(c *cache.Cache) *modproxy.Client {
	return &modproxy.Client{Proxies: e.getenv("GOPROXY"), SumDB: e.sumDB, Dir: filepath.Join(c.Dir(), "sumdb"), Temp: c.Temp()}
}

// credentials are those for the registries of these references.
func (e *env) credentials(references []string) (authn.Keychain, error) {
	keychain, err := registry.Credentials(references, e.getenv)
	if err != nil {
		return nil, cli.Usage("credentials: %w", err)
	}
	return keychain, nil
}

// sigstoreFiles are the files of another Sigstore than the public one.
type sigstoreFiles struct{ root, config string }

// openSigstore reads an instance of Sigstore from its files, or fetches the public one.
func openSigstore(ctx context.Context, f sigstoreFiles) (*sign.Sigstore, error) {
	if f == (sigstoreFiles{}) {
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

// A printer prints a command's result.
type printer struct {
	*env
	asJSON bool
}

// newPrinter gives a command the flag --json.
func newPrinter(e *env, c *cobra.Command) *printer {
	p := &printer{env: e}
	c.Flags().BoolVar(&p.asJSON, "json", false, "print the result as JSON")
	return p
}

// print prints a result: all of it with --json, otherwise what text, a template, has.
func (p *printer) print(result any, text string) error {
	if !p.asJSON {
		return render(p.stdout, text, result)
	}
	enc := json.NewEncoder(p.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(result)
}

// render writes what a template makes of data. Tabs align columns; with indent, further
// lines of a value look like no line of the template.
func render(w io.Writer, text string, data any) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	t := template.New("").Funcs(template.FuncMap{
		"bytes": progress.Bytes, "growth": progress.Growth, "join": strings.Join, "self": self,
		"indent": func(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") },
	})
	if err := template.Must(t.Parse(text)).Execute(tw, data); err != nil {
		return err
	}
	return tw.Flush()
}
