package attest

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
)

const noAssertion = "NOASSERTION"

// caBundle is the file that is made from the module of CA roots, and leftOut the list
// of roots that are not in it.
const (
	caBundle = "etc/ssl/certs/ca-certificates.crt"
	leftOut  = "usr/share/ca-certificates/left-out.txt"
)

// Identifiers of a document's elements.
const (
	documentID = "DOCUMENT"
	indexID    = "Index"
	imageID    = "Image"
)

// imageSBOM is the SPDX document of an image.
func imageSBOM(in lock.Inputs, c *content) ([]byte, error) {
	doc := newDocument(in, "derper "+in.Tailscale.Short()+" "+string(c.subject.Platform), c.subject.Descriptor.Digest.Hex)
	img := imagePackage(in, imageID, c.subject.Platform, c.subject.Descriptor.Digest.Hex)
	img.FilesAnalyzed = true
	img.PackageVerificationCode = &common.PackageVerificationCode{Value: verificationCode(c.files)}
	img.PackageLicenseDeclared = image.Annotations(in)["org.opencontainers.image.licenses"]
	doc.Packages = []*spdx.Package{img}
	relate(doc, documentID, common.TypeRelationshipDescribe, imageID)

	// Which elements each program and the bundle come from.
	made := map[string][]related{}
	modules := map[module.Version]*spdx.Package{}
	add := func(m debug.Module) common.ElementID {
		key := module.Version{Path: m.Path, Version: m.Version}
		if modules[key] == nil {
			modules[key] = modulePackage(in, c.files, m)
		}
		return modules[key].PackageSPDXIdentifier
	}
	for _, f := range c.files {
		if f.info == nil {
			continue
		}
		made[f.name] = append(made[f.name],
			related{common.TypeRelationshipGeneratedFrom, add(mainModule(f.info))},
			related{common.TypeRelationshipDependsOn, add(stdlib(in))})
		for _, m := range f.info.Deps {
			made[f.name] = append(made[f.name], related{common.TypeRelationshipDependsOn, add(effective(m))})
		}
	}
	roots := add(debug.Module{Path: lock.RootsModule, Version: in.Roots.Version, Sum: in.Roots.Sum})
	for _, name := range []string{caBundle, leftOut} {
		made[name] = append(made[name], related{common.TypeRelationshipGeneratedFrom, roots})
	}

	for _, p := range modules {
		doc.Packages = append(doc.Packages, p)
	}
	slices.SortFunc(doc.Packages[1:], func(a, b *spdx.Package) int {
		return cmp.Compare(a.PackageSPDXIdentifier, b.PackageSPDXIdentifier)
	})
	for _, p := range doc.Packages[1:] {
		relate(doc, imageID, common.TypeRelationshipContains, p.PackageSPDXIdentifier)
	}
	for _, f := range c.files {
		doc.Files = append(doc.Files, fileElement(f))
		id := elementID("File", f.name)
		relate(doc, imageID, common.TypeRelationshipContains, id)
		for _, r := range made[f.name] {
			relate(doc, id, r.how, r.to)
		}
	}
	return encode(doc, " ")
}

// related is a relationship to an element.
type related struct {
	how string
	to  common.ElementID
}

// indexSBOM is the SPDX document of an index: its images, and where their documents are.
func indexSBOM(in lock.Inputs, subjects []Subject, documents [][]byte) ([]byte, error) {
	index := subjects[0].Descriptor.Digest
	doc := newDocument(in, "derper "+in.Tailscale.Short(), index.Hex)
	doc.Packages = []*spdx.Package{imagePackage(in, indexID, "", index.Hex)}
	relate(doc, documentID, common.TypeRelationshipDescribe, indexID)
	for i, s := range subjects[1:] {
		id, sum := elementID(imageID, string(s.Platform)), sha1.Sum(documents[i+1])
		doc.Packages = append(doc.Packages, imagePackage(in, id, s.Platform, s.Descriptor.Digest.Hex))
		relate(doc, indexID, common.TypeRelationshipContains, id)
		relate(doc, id, common.TypeRelationshipVariantOf, indexID)
		doc.ExternalDocumentReferences = append(doc.ExternalDocumentReferences, spdx.ExternalDocumentRef{
			DocumentRefID: common.DocumentID(id),
			URI:           namespace(s.Descriptor.Digest.Hex),
			Checksum:      common.Checksum{Algorithm: common.SHA1, Value: hex.EncodeToString(sum[:])},
		})
	}
	return encode(doc, " ")
}

// newDocument begins a document about a digest.
func newDocument(in lock.Inputs, name, digest string) *spdx.Document {
	return &spdx.Document{
		SPDXVersion:       spdx.Version,
		DataLicense:       spdx.DataLicense,
		SPDXIdentifier:    documentID,
		DocumentName:      name,
		DocumentNamespace: namespace(digest),
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: derper.Module}},
			// Not when it was made: the same image has the same document.
			Created: in.Tailscale.Time.UTC().Format("2006-01-02T15:04:05Z"),
		},
	}
}

// namespace is the URI of the document about a digest.
func namespace(digest string) string { return image.Source + "/spdx/sha256/" + digest }

func relate(doc *spdx.Document, from common.ElementID, how string, to common.ElementID) {
	doc.Relationships = append(doc.Relationships, &spdx.Relationship{
		RefA:         common.DocElementID{ElementRefID: from},
		RefB:         common.DocElementID{ElementRefID: to},
		Relationship: how,
	})
}

// elementID makes an identifier of a name. SPDX allows letters, digits, dots and
// hyphens; any other byte, and the hyphen itself, becomes a hyphen and its code, so that
// two names never share an identifier.
func elementID(kind, name string) common.ElementID {
	var b strings.Builder
	b.WriteString(kind + "-")
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "-%02x", c)
		}
	}
	return common.ElementID(b.String())
}

// imagePackage is an image, or with an empty platform the index, as a package.
func imagePackage(in lock.Inputs, id common.ElementID, platform lock.Platform, digest string) *spdx.Package {
	purl := "pkg:oci/derper@sha256%3A" + digest
	if platform != "" {
		purl += "?arch=" + platform.Arch()
		if platform.Variant() != "" {
			purl += "%2F" + platform.Variant()
		}
		purl += "&os=" + platform.OS()
	}
	p := newPackage(id, "derper", in.Tailscale.Short(), "CONTAINER", packageURL(purl, ""))
	p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: digest}}
	return p
}

// newPackage is a package of which only names and places are known. Where an image is
// downloaded is not stated: it may be any registry, and the digest says which image it is.
func newPackage(id common.ElementID, name, version, purpose string, purl *spdx.PackageExternalReference) *spdx.Package {
	return &spdx.Package{
		PackageName:               name,
		PackageSPDXIdentifier:     id,
		PackageVersion:            version,
		PackageDownloadLocation:   noAssertion,
		PackageLicenseConcluded:   noAssertion,
		PackageLicenseDeclared:    noAssertion,
		PackageCopyrightText:      noAssertion,
		PackageExternalReferences: []*spdx.PackageExternalReference{purl},
		PrimaryPackagePurpose:     purpose,
	}
}

func packageURL(purl, comment string) *spdx.PackageExternalReference {
	return &spdx.PackageExternalReference{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl, ExternalRefComment: comment}
}

// modulePackage is a Go module as a package. Its h1 sum is no checksum in SPDX's sense:
// it is over the names and hashes of the module's files, not over an archive. It stands
// in the comment of the package URL, as go.sum has it.
func modulePackage(in lock.Inputs, files []*file, m debug.Module) *spdx.Package {
	p := newPackage(elementID("Module", m.Path+"@"+m.Version), m.Path, m.Version, "LIBRARY", packageURL(modulePURL(m.Path, m.Version), m.Sum))
	p.PackageLicenseDeclared = declared(files, licenceDir+m.Path+"@"+m.Version)
	switch m.Path {
	case derper.Module:
		p.PackageVersion = ""
		p.PackageDownloadLocation = "git+" + image.Source
		p.PackageSourceInfo = "folder entrypoint"
		p.PackageLicenseDeclared = declared(files, licenceDir+m.Path)
	case stdlibPath:
		p.PackageDownloadLocation = "https://go.dev/dl/" + in.Go.Version + ".src.tar.gz"
		p.PackageSourceInfo = "the standard library of module " + lock.ToolchainModule + ", whose h1 sums are in the lock"
		p.PackageLicenseDeclared = declared(files, licenceDir+in.Go.Version)
	default:
		if escaped, err := module.EscapePath(m.Path); err == nil {
			if version, err := module.EscapeVersion(m.Version); err == nil {
				p.PackageDownloadLocation = "https://proxy.golang.org/" + escaped + "/@v/" + version + ".zip"
			}
		}
	}
	return p
}

// stdlibPath is the name of the standard library where it is listed like a module, as
// the Go vulnerability database and scanners do.
const stdlibPath = "stdlib"

func stdlib(in lock.Inputs) debug.Module {
	return debug.Module{Path: stdlibPath, Version: in.Go.Version}
}

// mainModule is the module of a program itself. This project's own has no version.
func mainModule(info *debug.BuildInfo) debug.Module {
	m := info.Main
	if m.Path == derper.Module {
		m.Version = ""
	}
	return m
}

// effective is the module that was compiled, where one stands in for another.
func effective(m *debug.Module) debug.Module {
	if m.Replace != nil {
		return *m.Replace
	}
	return *m
}

// modulePURL is the package URL of a Go module.
// Source: https://github.com/package-url/purl-spec, type golang.
func modulePURL(p, version string) string {
	if p == stdlibPath {
		version = strings.TrimPrefix(version, "go")
	}
	purl := "pkg:golang/" + (&url.URL{Path: strings.ToLower(p)}).EscapedPath()
	if version != "" {
		purl += "@" + strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
	}
	return purl
}

// fileElement is a file of an image.
func fileElement(f *file) *spdx.File {
	e := &spdx.File{
		FileName:           "./" + f.name,
		FileSPDXIdentifier: elementID("File", f.name),
		FileTypes:          []string{"TEXT"},
		Checksums: []common.Checksum{
			{Algorithm: common.SHA1, Value: f.sha1},
			{Algorithm: common.SHA256, Value: f.sha256},
		},
		LicenseConcluded:   noAssertion,
		LicenseInfoInFiles: []string{noAssertion},
		FileCopyrightText:  noAssertion,
	}
	if f.info != nil {
		e.FileTypes = []string{"BINARY"}
		e.FileComment = "program " + path.Base(f.name)
	}
	if len(f.licences) > 0 {
		e.LicenseInfoInFiles = f.licences
	}
	return e
}

// verificationCode is the hash over all files of a package.
// Source: SPDX 2.3, 7.9.
func verificationCode(files []*file) string {
	var sums []string
	for _, f := range files {
		sums = append(sums, f.sha1)
	}
	slices.Sort(sums)
	sum := sha1.Sum([]byte(strings.Join(sums, "")))
	return hex.EncodeToString(sum[:])
}
