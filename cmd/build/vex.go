package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/vex"
)

// registerScans registers --scans.
func registerScans(c *cobra.Command, scans *string, use string) {
	c.Flags().StringVar(scans, "scans", "", "what build scan --output wrote to `file`, "+use)
}

// readScans is what a file of build scan says of the image of a lock's variant.
func readScans(file, lockFile, variant string) (*vex.Report, error) {
	l, err := readLock(lockFile)
	if err != nil {
		return nil, err
	}
	scans, err := vex.ReadScans(file)
	if err != nil {
		return nil, cli.Failed(err, self()+" scan --output "+file+" makes it")
	}
	report, err := scans.Report(l.Inputs, variant)
	if err != nil {
		err = cli.Failed(fmt.Errorf("%s: %w", file, err), "scan the programs of this lock: "+self()+" scan --output "+file)
	}
	return report, err
}

// Reassess is the step vex of a release, for an image of the lock.
func (f *signFlags) Reassess(ctx context.Context, lockFile, digest, scans string, repositories []string) error {
	if err := f.makeSigner(ctx); err != nil {
		return err
	}
	source := repositories[0] + "@" + digest
	img, err := f.open(ctx, source, repositories)
	if err != nil {
		return err
	}
	l, err := readLock(lockFile)
	if err == nil {
		err = attest.Recorded(l, img.Index)
	}
	if err != nil {
		return err
	}
	for _, r := range repositories { // whose image it is, the release has said
		if _, err := f.checkSignatures(ctx, r+"@"+digest, f.signer.Trust); err != nil {
			return err
		}
	}
	variant := ""
	for name, index := range l.Indexes() {
		if index == digest {
			variant = name
		}
	}
	subjects, err := attest.Subjects(img.Index)
	if err != nil {
		return err
	}
	report, err := readScans(scans, lockFile, variant)
	if err != nil {
		return err
	}
	statement, err := report.Statement(subjects, names(img))
	if err != nil {
		return err
	}
	_, err = f.attach(ctx, img, []attest.Statement{statement})
	return err
}

// names are the repositories that an image is signed in.
func names(img *sign.Image) (list []string) {
	for _, r := range img.Repositories {
		list = append(list, r.String())
	}
	return list
}

// attach attaches statements about an image, and says where older ones stay.
func (f *signFlags) attach(ctx context.Context, img *sign.Image, statements []attest.Statement) ([]sign.Attached, error) {
	display := f.display()
	defer display.Close()
	task := display.Start("sign "+img.Source, "statements")
	attached, err := sign.Attach(ctx, statements, f.signer, img.Repositories, func(done, total int) { task.Set(int64(done), int64(total)) })
	task.End(err)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	for _, a := range attached {
		if a.Kept > 0 {
			display.Printf("build: sign: %s: the registry does not remove %d older OpenVEX documents: scanners may read these first", a.Repository, a.Kept)
		}
	}
	return attached, nil
}
