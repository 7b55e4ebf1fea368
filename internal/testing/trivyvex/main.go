// Trivyvex reads an image's OpenVEX document with Trivy's own code, as trivy image --vex oci
// does, and says what becomes of a finding for each of its statements. It finds no
// vulnerabilities itself: Trivy's database of those comes from a registry of its own.
//
// usage: trivyvex REPOSITORY@DIGEST
//
// It prints a line for each statement: the advisory, the module, the status, and whether Trivy
// drops the finding or keeps it. The exit code is 1 if there is no document, and if Trivy keeps
// what does not affect the image, or drops what does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	openvex "github.com/openvex/go-vex/pkg/vex"
	"github.com/package-url/packageurl-go"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/purl"
	"github.com/aquasecurity/trivy/pkg/types"
	"github.com/aquasecurity/trivy/pkg/vex"
	"github.com/aquasecurity/trivy/pkg/vex/oci"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: trivyvex REPOSITORY@DIGEST")
		os.Exit(2)
	}
	if err := check(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "trivyvex: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func check(ctx context.Context, image string) error {
	metadata := types.Metadata{RepoDigests: []string{image}, ImageConfig: v1.ConfigFile{Architecture: "amd64"}}
	about, err := purl.New(purl.TypeOCI, metadata, ftypes.Package{})
	if err != nil {
		return err
	}
	document, err := oci.Discover(ctx, about, ftypes.RegistryOptions{})
	if err != nil {
		return err
	}
	if document == nil || len(document.Statements) == 0 {
		return errors.New("no OpenVEX document, or one that says nothing")
	}
	var wrong []error
	for _, s := range document.Statements {
		module, err := moduleOf(s)
		if err != nil {
			return err
		}
		dropped, err := drops(ctx, image, metadata, string(s.Vulnerability.Name), module)
		if err != nil {
			return err
		}
		said := map[bool]string{true: "dropped", false: "kept"}[dropped]
		fmt.Printf("%s\t%s %s\t%s\t%s\n", s.Vulnerability.Name, module.Name, module.Version, s.Status, said)
		if dropped != (s.Status == openvex.StatusNotAffected || s.Status == openvex.StatusFixed) {
			wrong = append(wrong, fmt.Errorf("%s: %s, and Trivy has %s it", s.Vulnerability.Name, s.Status, said))
		}
	}
	return errors.Join(wrong...)
}

// moduleOf is the module that a statement is about, as Trivy finds it in a program: the package
// URL is Trivy's, and not that of the document.
func moduleOf(s openvex.Statement) (p ftypes.Package, err error) {
	if len(s.Products) == 0 || len(s.Products[0].Subcomponents) == 0 {
		return p, fmt.Errorf("%s: names no module", s.Vulnerability.Name)
	}
	u, err := packageurl.FromString(s.Products[0].Subcomponents[0].ID)
	if err != nil {
		return p, err
	}
	p.Name, p.Version = path.Join(u.Namespace, u.Name), u.Version
	p.ID = p.Name + "@" + p.Version
	trivys, err := purl.New(ftypes.GoBinary, types.Metadata{}, p)
	if err != nil {
		return p, err
	}
	p.Identifier = ftypes.PkgIdentifier{UID: p.ID, PURL: trivys.Unwrap()}
	return p, nil
}

// drops reports whether Trivy drops the finding of an advisory in a program of the image.
func drops(ctx context.Context, image string, metadata types.Metadata, advisory string, module ftypes.Package) (bool, error) {
	report := &types.Report{
		ArtifactName: image, ArtifactType: ftypes.TypeContainerImage, Metadata: metadata,
		Results: types.Results{{
			Target: "usr/local/bin/derper", Type: ftypes.GoBinary, Class: types.ClassLangPkg,
			Packages: []ftypes.Package{module},
			Vulnerabilities: []types.DetectedVulnerability{{
				VulnerabilityID: advisory, PkgID: module.ID, PkgName: module.Name, PkgIdentifier: module.Identifier, InstalledVersion: module.Version,
			}},
		}},
	}
	err := vex.Filter(ctx, report, vex.Options{Sources: []vex.Source{vex.NewSource("oci")}})
	return len(report.Results[0].Vulnerabilities) == 0, err
}
