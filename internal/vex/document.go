package vex

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	openvex "github.com/openvex/go-vex/pkg/vex"
	"github.com/package-url/packageurl-go"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
)

// tooling says what made the document.
var tooling = "https://pkg.go.dev/" + Govulncheck.Path + "@" + Govulncheck.Version + "/cmd/govulncheck"

// Statement is the document as an in-toto statement about all subjects, which scanners read
// when it is signed and attached to each of them as package sign does. Its type is the one that
// cosign verifies with --type openvex; Trivy accepts it, too, and anything below it, such as the
// https://openvex.dev/ns/v0.2.0 of other tools.
//
// What Trivy 0.74 reads with --vex oci (pkg/vex/oci/oci.go, pkg/oci/artifact.go): of the
// digest that an image's reference names, the index for a tag, the referrers with the artifact
// type application/vnd.dev.sigstore.bundle.v0.3+json, each with one layer, a Sigstore bundle in
// JSON whose dsseEnvelope has the payload type application/vnd.in-toto+json. It does not verify
// them. It takes the first OpenVEX document in the registry's order, which need not be the
// newest. If one of the referrers has the annotation in-toto.io/predicate-type with this type,
// it reads only those that have; otherwise it fetches each that lacks the annotation, up to 100.
// A registry that lists the config's media type as an artifact's, as go-containerregistry's does
// in memory, hides all of them from it.
func (r *Report) Statement(subjects []attest.Subject, repositories []string) (attest.Statement, error) {
	doc, err := r.Document(subjects, repositories)
	if err != nil {
		return attest.Statement{}, err
	}
	return attest.About(attest.VEX, doc, r.inputs, subjects...)
}

// Document is the OpenVEX document about an image, in JSON. The subjects are its index and its
// images; the repositories are all those that it is published in, as docker.io/NAME/derper.
//
// Trivy and Grype find a statement when one of its products has the image's package URL, and
// one of its subcomponents the module's, compared part by part as strings. A repository is
// therefore named as go-containerregistry names it (index.docker.io, not docker.io), and the
// standard library has two names: its version is v1.26.8 to Trivy, and 1.26.8 to Grype and in
// our SBOM.
func (r *Report) Document(subjects []attest.Subject, repositories []string) ([]byte, error) {
	doc := &openvex.VEX{
		Metadata: openvex.Metadata{
			Context:   openvex.ContextLocator(),
			Author:    r.inputs.Source,
			Timestamp: &r.Modified,
			Version:   1,
			Tooling:   tooling,
		},
		Statements: []openvex.Statement{},
	}
	var platforms []lock.Platform
	for _, s := range subjects {
		if s.Platform != "" {
			platforms = append(platforms, s.Platform)
		}
	}
	for _, a := range r.Advisories {
		// Images of different platforms can differ; an index is affected if one of them is.
		var about [3][]attest.Subject
		const affected, present, absent = 0, 1, 2
		for _, s := range subjects {
			of := []lock.Platform{s.Platform}
			if s.Platform == "" {
				of = platforms
			}
			i := absent
			if slices.ContainsFunc(of, a.affects) {
				i = affected
			} else if slices.ContainsFunc(of, a.present) {
				i = present
			}
			about[i] = append(about[i], s)
		}
		for i, subjects := range about {
			if len(subjects) == 0 {
				continue
			}
			s := openvex.Statement{Vulnerability: a.vulnerability(), Status: openvex.StatusNotAffected, StatusNotes: a.notes()}
			switch i {
			case affected:
				s.Status, s.ActionStatement = openvex.StatusAffected, a.action()
			case present:
				s.Justification = openvex.VulnerableCodeNotInExecutePath
			case absent:
				s.Justification = openvex.VulnerableCodeNotPresent
			}
			var err error
			if s.Products, err = products(subjects, repositories, a.components()); err != nil {
				return nil, err
			}
			if err := s.Validate(); err != nil {
				return nil, fmt.Errorf("vex: %s: %w", a.ID, err)
			}
			doc.Statements = append(doc.Statements, s)
		}
	}
	// The ID is that of the content without it.
	var b bytes.Buffer
	if err := doc.ToJSON(&b); err != nil {
		return nil, fmt.Errorf("vex: %w", err)
	}
	doc.ID = fmt.Sprintf("%s/openvex/sha256/%x", r.inputs.Source, sha256.Sum256(b.Bytes()))
	b.Reset()
	if err := doc.ToJSON(&b); err != nil {
		return nil, fmt.Errorf("vex: %w", err)
	}
	return b.Bytes(), nil
}

func (a *Advisory) vulnerability() openvex.Vulnerability {
	v := openvex.Vulnerability{ID: "https://pkg.go.dev/vuln/" + a.ID, Name: openvex.VulnerabilityID(a.ID), Description: a.Summary}
	for _, alias := range a.Aliases {
		v.Aliases = append(v.Aliases, openvex.VulnerabilityID(alias))
	}
	return v
}

// notes say what the scans have seen.
func (a *Advisory) notes() string {
	var notes []string
	for _, level := range []Level{Called, Imported, Linked} {
		if names := a.In[level]; names != nil {
			words := [...]string{Called: "called in", Imported: "imported, not called, in", Linked: "not imported in"}
			notes = append(notes, words[level]+" "+strings.Join(names, ", "))
		}
	}
	text := string(Scanned) + ": " + strings.Join(notes, "; ")
	if a.Arches != nil {
		text += "; only vulnerable on " + strings.Join(a.Arches, ", ")
	}
	return text
}

// action says what heals it.
func (a *Advisory) action() string {
	if a.Fixed == "" {
		return "no version of " + a.Module + " has a fix"
	}
	fix := "fixed in " + a.Module + " " + a.Fixed
	if a.Module == Stdlib {
		fix = "fixed in " + goVersion(a.Fixed)
	}
	if a.Remedy == Upstream {
		return fix + ": upstream's to take"
	}
	return fix + ": the next revision has it"
}

// goVersion is a version of Go as its releases are called.
func goVersion(v string) string { return "go" + strings.TrimPrefix(v, "v") }

// components are the package URLs of the module.
func (a *Advisory) components() (list []openvex.Subcomponent) {
	versions := []string{a.Version}
	if a.Module == Stdlib {
		versions = append(versions, strings.TrimPrefix(a.Version, "v"))
	}
	namespace, base := path.Split(strings.ToLower(a.Module))
	for _, v := range versions {
		purl := packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(namespace, "/"), base, v, nil, "")
		list = append(list, openvex.Subcomponent{Component: openvex.Component{ID: purl.String()}})
	}
	return list
}

// products are images in repositories.
func products(subjects []attest.Subject, repositories []string, components []openvex.Subcomponent) (list []openvex.Product, err error) {
	for _, s := range subjects {
		for _, repository := range repositories {
			repo, err := name.NewRepository(strings.TrimPrefix(repository, "http://"))
			if err != nil {
				return nil, fmt.Errorf("vex: %w", err)
			}
			purl := packageurl.NewPackageURL(packageurl.TypeOCI, "", strings.ToLower(path.Base(repo.RepositoryStr())), s.Descriptor.Digest.String(),
				packageurl.QualifiersFromMap(map[string]string{"repository_url": repo.Name()}), "")
			list = append(list, openvex.Product{Component: openvex.Component{ID: purl.String()}, Subcomponents: components})
		}
	}
	return list, nil
}
