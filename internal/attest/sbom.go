package attest

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
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

// Identifiers of the elements that a document is about.
const (
	indexID = "Index"
	imageID = "Image"
)

// imageSBOM is the SPDX document of an image.
func imageSBOM(in lock.Inputs, c *content) ([]byte, error) {
	doc := newDocument(in, imageID, c.subject)
	img := doc.Packages[0]
	img.FilesAnalyzed = true
	img.PackageVerificationCode = &common.PackageVerificationCode{Value: verificationCode(c.files)}
	img.PackageLicenseDeclared = image.Annotations(in)["org.opencontainers.image.licenses"]
	packages := map[common.ElementID]*spdx.Package{}
	for _, f := range c.files {
		for _, m := range f.madeOf(in) {
			packages[moduleID(m)] = cmp.Or(packages[moduleID(m)], modulePackage(in, c.files, m))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(packages)) {
		doc.Packages = append(doc.Packages, packages[id])
		relate(doc, imageID, common.TypeRelationshipContains, id)
	}
	for _, f := range c.files {
		e := fileElement(f)
		doc.Files = append(doc.Files, e)
		relate(doc, imageID, common.TypeRelationshipContains, e.FileSPDXIdentifier)
		how := common.TypeRelationshipGeneratedFrom
		for _, m := range f.madeOf(in) {
			relate(doc, e.FileSPDXIdentifier, how, moduleID(m))
			how = common.TypeRelationshipDependsOn
		}
	}
	return encode(doc, " ")
}

// madeOf are the modules that a file comes from: first the one that it is generated from.
func (f *file) madeOf(in lock.Inputs) []debug.Module {
	switch {
	case f.name == caBundle || f.name == leftOut:
		return []debug.Module{{Path: lock.RootsModule, Version: in.Roots.Version, Sum: in.Roots.Sum}}
	case f.info == nil:
		return nil
	}
	list := []debug.Module{f.info.Main, {Path: stdlibPath, Version: in.Go.Version}}
	if f.info.Main.Path == derper.Module {
		list[0].Version = "" // this project's own has none
	}
	for _, m := range f.info.Deps {
		list = append(list, *cmp.Or(m.Replace, m))
	}
	return list
}

// indexSBOM is the SPDX document of an index: its images, and where their documents are.
func indexSBOM(in lock.Inputs, subjects []Subject, documents [][]byte) ([]byte, error) {
	doc := newDocument(in, indexID, subjects[0])
	for i, s := range subjects[1:] {
		id, sum := elementID(imageID, string(s.Platform)), sha1.Sum(documents[i+1])
		doc.Packages = append(doc.Packages, imagePackage(in, id, s))
		relate(doc, indexID, common.TypeRelationshipContains, id)
		relate(doc, id, common.TypeRelationshipVariantOf, indexID)
		doc.ExternalDocumentReferences = append(doc.ExternalDocumentReferences, spdx.ExternalDocumentRef{
			DocumentRefID: common.DocumentID(id),
			URI:           namespace(in, s),
			Checksum:      common.Checksum{Algorithm: common.SHA1, Value: hex.EncodeToString(sum[:])},
		})
	}
	return encode(doc, " ")
}

// newDocument begins the document about a subject, which is its first package.
func newDocument(in lock.Inputs, id common.ElementID, about Subject) *spdx.Document {
	doc := &spdx.Document{
		SPDXVersion:       spdx.Version,
		DataLicense:       spdx.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      strings.Replace(about.name(in), ":", " ", 1),
		DocumentNamespace: namespace(in, about),
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: derper.Module}},
			// Not when it was made: the same image has the same document.
			Created: in.Tailscale.Time.UTC().Format("2006-01-02T15:04:05Z"),
		},
		Packages: []*spdx.Package{imagePackage(in, id, about)},
	}
	relate(doc, doc.SPDXIdentifier, common.TypeRelationshipDescribe, id)
	return doc
}

// namespace is the URI of the document about a subject.
func namespace(in lock.Inputs, about Subject) string {
	return in.Source + "/spdx/sha256/" + about.Descriptor.Digest.Hex
}

func relate(doc *spdx.Document, from common.ElementID, how string, to common.ElementID) {
	doc.Relationships = append(doc.Relationships, &spdx.Relationship{
		RefA:         common.DocElementID{ElementRefID: from},
		RefB:         common.DocElementID{ElementRefID: to},
		Relationship: how,
	})
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.]`)

// elementID makes an identifier of a name. SPDX allows letters, digits, dots and
// hyphens; any other byte, and the hyphen itself, becomes a hyphen and its code, so that
// two names never share an identifier.
func elementID(kind, name string) common.ElementID {
	return common.ElementID(kind + "-" + notInID.ReplaceAllStringFunc(name, func(s string) string {
		return "-" + strings.ReplaceAll(fmt.Sprintf("% x", s), " ", "-")
	}))
}

func moduleID(m debug.Module) common.ElementID { return elementID("Module", m.Path+"@"+m.Version) }

// imagePackage is an image, or the index, as a package.
func imagePackage(in lock.Inputs, id common.ElementID, s Subject) *spdx.Package {
	purl := "pkg:oci/derper@sha256%3A" + s.Descriptor.Digest.Hex
	if p := s.Platform; p != "" {
		arch := strings.TrimSuffix(p.Arch()+"%2F"+p.Variant(), "%2F")
		purl += "?arch=" + arch + "&os=" + p.OS()
	}
	p := newPackage(id, "derper", in.Version(), "CONTAINER", purl, "")
	p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: s.Descriptor.Digest.Hex}}
	return p
}

// newPackage is a package of which only names and places are known. Where an image is
// downloaded is not stated: it may be any registry, and the digest says which image it is.
func newPackage(id common.ElementID, name, version, purpose, purl, comment string) *spdx.Package {
	return &spdx.Package{
		PackageName:             name,
		PackageSPDXIdentifier:   id,
		PackageVersion:          version,
		PackageDownloadLocation: noAssertion,
		PackageLicenseConcluded: noAssertion,
		PackageLicenseDeclared:  noAssertion,
		PackageCopyrightText:    noAssertion,
		PackageExternalReferences: []*spdx.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl, ExternalRefComment: comment,
		}},
		PrimaryPackagePurpose: purpose,
	}
}

// modulePackage is a Go module as a package. Its h1 sum is no checksum in SPDX's sense:
// it is over the names and hashes of the module's files, not over an archive. It stands
// in the comment of the package URL, as go.sum has it.
func modulePackage(in lock.Inputs, files []*file, m debug.Module) *spdx.Package {
	p := newPackage(moduleID(m), m.Path, m.Version, "LIBRARY", modulePURL(m.Path, m.Version), m.Sum)
	notices := m.Path + "@" + m.Version
	switch m.Path {
	case derper.Module:
		p.PackageVersion = ""
		p.PackageDownloadLocation = "git+" + in.Source
		p.PackageSourceInfo = "folder " + strings.Join(own(files), ", ")
		notices = m.Path
	case stdlibPath:
		p.PackageDownloadLocation = "https://go.dev/dl/" + in.Go.Version + ".src.tar.gz"
		p.PackageSourceInfo = "the standard library of module " + lock.ToolchainModule + ", whose h1 sums are in the lock"
		notices = in.Go.Version
	default:
		escaped, perr := module.EscapePath(m.Path)
		version, verr := module.EscapeVersion(m.Version)
		if perr == nil && verr == nil {
			p.PackageDownloadLocation = "https://proxy.golang.org/" + escaped + "/@v/" + version + ".zip"
		}
	}
	p.PackageLicenseDeclared = declared(files, licenceDir+notices)
	return p
}

// own are the folders of this project from which programs of an image are compiled: their
// names are those of the programs.
func own(files []*file) (folders []string) {
	for _, f := range files {
		if f.info != nil && f.info.Main.Path == derper.Module {
			folders = append(folders, path.Base(f.name))
		}
	}
	return folders
}

// stdlibPath is the name of the standard library where it is listed like a module, as
// the Go vulnerability database and scanners do.
const stdlibPath = "stdlib"

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
