package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
)

const attestSynopsis = `attest writes what there is to say about an image as files: an SPDX SBOM for each platform and one for
the index, and SLSA provenance in an in-toto statement. It takes an OCI layout (dist if none is named),
which must be what the lock records. The same layout and lock give the same bytes. Nothing is signed.`

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

func runAttest(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("attest [flags] [LAYOUT]", attestSynopsis, "  build attest --output attestations dist", stdout)
	lockFile := flags.String("lock", lock.File, "the lock `file`")
	output := flags.String("output", "attestations", "`folder` for the files")
	flags.BoolVar(&flags.asJSON, "json", false, "print the result as JSON")
	dir, err := flags.parseOne(args, "layouts", "dist")
	if err != nil {
		return err
	}
	index, err := openLayout(dir)
	if err != nil {
		return err
	}
	set, err := makeSet(ctx, *lockFile, dir, index, attest.Run{}, stderr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*output, 0o755); err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	result := attestResult{Index: set.Subjects[0].Descriptor.Digest.String()}
	add := func(name string, data []byte) error {
		name = filepath.Join(*output, name)
		result.Files = append(result.Files, attestedFile{name, fmt.Sprintf("sha256:%x", sha256.Sum256(data)), len(data)})
		return atomicfile.Write(name, data)
	}
	err = add("provenance.json", set.Provenance)
	for i, s := range set.Subjects {
		err = errors.Join(err, add(cmp.Or(s.Platform.Slug(), "index")+".spdx.json", set.SBOMs[i]))
	}
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	return flags.print(result, "{{range .Files}}{{.Digest}}  {{.Name}}\n{{end}}")
}

// makeSet makes what is stated about an image.
func makeSet(ctx context.Context, lockFile, source string, index v1.ImageIndex, run attest.Run, stderr io.Writer) (*attest.Set, error) {
	l, err := readLock(lockFile)
	if err != nil {
		return nil, err
	}
	display := progress.New(stderr)
	defer display.Close()
	task := display.Start("read "+source, "")
	set, err := attest.Make(ctx, attest.Build{Lock: l, Index: index, Run: run})
	task.End(err)
	return set, explain(err, hints{{as[*lock.Difference], "attest what this lock builds: " + self() + " --platform all"}})
}

// openLayout opens the index of a layout that build wrote.
func openLayout(dir string) (v1.ImageIndex, error) {
	opened, err := image.Open(dir)
	if err != nil {
		return nil, cli.Failed(fmt.Errorf("layout %s: %w", dir, err), "make it with "+self()+" --platform all")
	}
	index, err := opened.Index(context.Background())
	if err != nil {
		return nil, fmt.Errorf("layout %s: %w", dir, err)
	}
	return index, nil
}

// splitReference splits a reference into a repository and a tag or a digest.
func splitReference(ref string) (repository, identifier string, err error) {
	if repository, identifier, err = registry.Split(ref); err != nil {
		err = cli.Usage("%q is neither a layout nor a reference: %w", ref, err)
	}
	return repository, identifier, err
}
