package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/delivery"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// attestResult is what build attest says, in JSON.
type attestResult struct {
	Index string         `json:"index"`
	Files []attestedFile `json:"files"`
}

type attestedFile struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

func newAttest(e *env) *cobra.Command {
	var in inputFlags
	var output, scans string
	var to []string
	c := &cobra.Command{
		Use:   "attest [flags] [LAYOUT]",
		Short: "write the SBOMs and the provenance of an image as files",
		Long: `attest writes what there is to say about an image as files: an SPDX SBOM for
each platform and one for the index, and SLSA provenance in an in-toto
statement. Its argument is an OCI layout (./dist if none is named), which must
be what the lock records, whole. With --scans it writes an OpenVEX document,
too: which known vulnerabilities affect the image. The same layout, lock and
scans give the same bytes. Nothing is signed.`,
		Example: "  build attest --output attestations ./dist\n  build attest --scans scans.json --to registry.example.com/derper",
		Args:    cli.AtMostOne("layouts"),
	}
	in.registerLock(c)
	c.Flags().StringVar(&output, "output", "", "`folder` for the files (default attestations, and the suffix of the image's variant, as attestations-nonroot)")
	registerScans(c, &scans, "to write as an OpenVEX document")
	registerTo(c, &to, "that the OpenVEX document names", publishedIn)
	out := newPrinter(e, c)
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if to != nil && scans == "" {
			return cli.Usage("attest: --to is for --scans")
		}
		return cmp.Or(checkRepositories(to), checkLayout(c, args))
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		dir := argument(args, "./dist")
		index, err := registry.OpenIndex(c.Context(), dir)
		if err != nil {
			return explain(err, layoutHints(dir))
		}
		set, err := e.makeSet(c.Context(), in.lockFile, dir, index, attest.Run{})
		if err != nil {
			return err
		}
		if output == "" {
			output = delivery.LayoutOf("attestations", set.Variant())
		}
		var document []byte
		if scans != "" {
			if len(to) == 0 {
				to = registry.Default
			}
			report, err := readScans(scans, in.lockFile, set.Variant().Name)
			if err == nil {
				document, err = report.Document(set.Subjects, to)
			}
			if err != nil {
				return fmt.Errorf("attest: %w", err)
			}
		}
		result, err := writeSet(set, document, output)
		if err != nil {
			return fmt.Errorf("attest: %w", err)
		}
		return out.print(result, "{{range .Files}}{{.Digest}}  {{.Name}}\n{{end}}")
	}
	return c
}

// writeSet writes what is stated about an image into a folder. The OpenVEX document may be
// nil.
func writeSet(set *attest.Set, document []byte, folder string) (*attestResult, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	result := &attestResult{Index: set.Subjects[0].Descriptor.Digest.String()}
	add := func(name string, data []byte) error {
		name = filepath.Join(folder, name)
		result.Files = append(result.Files, attestedFile{name, fmt.Sprintf("sha256:%x", sha256.Sum256(data)), len(data)})
		return atomicfile.Write(name, data)
	}
	err := add("provenance.json", set.Provenance)
	for i, s := range set.Subjects {
		err = errors.Join(err, add(cmp.Or(s.Platform.Slug(), "index")+".spdx.json", set.SBOMs[i]))
	}
	if document != nil {
		err = errors.Join(err, add("openvex.json", document))
	}
	return result, err
}

// makeSet makes what is stated about an image. Nothing but the image that the lock records
// is read.
func (e *env) makeSet(ctx context.Context, lockFile, source string, index v1.ImageIndex, run attest.Run) (*attest.Set, error) {
	whole := self() + " --platform all"
	recorded := hints{
		{is(image.ErrForeign), "name a layout that " + whole + " made"},
		{as[*lock.Difference], "attest what this lock builds, " + whole + ", or name the lock of that image with --lock"},
		{is(lock.ErrNoOutputs), "name the lock of the release with --lock, or record what a build gives with " + whole + " --update-lock"},
	}
	l, err := readLock(lockFile)
	if err != nil {
		return nil, err
	}
	if err := attest.Recorded(l, index); err != nil {
		return nil, explain(fmt.Errorf("attest: %s: %s: %w", source, lockFile, err), recorded)
	}
	display := e.display()
	defer display.Close()
	task := display.Start("read "+source, "")
	set, err := attest.Make(ctx, attest.Build{Lock: l, Index: index, Run: run})
	task.End(err)
	return set, explain(err, recorded)
}
