package sign

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// An Identity is who signs without a key.
type Identity struct {
	// Subject is what the certificate is for, in GitHub Actions the workflow that the
	// job is written in: https://github.com/OWNER/REPOSITORY/.github/workflows/FILE@REF.
	Subject string
	// Issuer is the OpenID provider that vouched for it.
	Issuer string
	// Repository is whose run it must have been, URL or URL@REF. On GitHub anybody may
	// call a workflow that can be called, and then the certificate is for that workflow,
	// while the run, and the code that it checks out, is the caller's. Empty stands for
	// the repository and the ref of the subject; of other issuers nothing is required
	// then.
	Repository string
}

// githubIssuer vouches for workflows on GitHub, an enterprise's own below it.
const githubIssuer = "https://token.actions.githubusercontent.com"

func isGitHub(issuer string) bool { return strings.HasPrefix(issuer+"/", githubIssuer+"/") }

// workflow is the subject of a certificate for a workflow: its repository and its ref.
// Source: https://github.com/sigstore/fulcio/blob/main/docs/oidc.md.
var workflow = regexp.MustCompile(`^(https://[^/@]+/[^/@]+/[^/@]+)/\.github/workflows/[^/@]+@(.+)$`)

// run is what the subject or Repository say of the run, as far as they do.
func (id Identity) run() (run, error) {
	repository, ref, _ := strings.Cut(id.Repository, "@")
	if repository != "" && !strings.HasPrefix(repository, "https://") || strings.HasSuffix(repository, "/") {
		return run{}, fmt.Errorf("%s is no repository: expected https://HOST/OWNER/REPOSITORY, and @REF after it where that differs", id.Repository)
	}
	if !isGitHub(id.Issuer) {
		return run{repository, ref}, nil
	}
	own := workflow.FindStringSubmatch(id.Subject)
	if own == nil {
		return run{}, fmt.Errorf("identity %s is no workflow: expected https://github.com/OWNER/REPOSITORY/.github/workflows/FILE@REF", id.Subject)
	}
	return run{cmp.Or(repository, own[1]), cmp.Or(ref, own[2])}, nil
}

// certificate is what a certificate must say. That it says nothing is not enough.
// Source: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md.
func (id Identity) certificate() (want verify.CertificateIdentity, err error) {
	if id.Subject == "" || id.Issuer == "" {
		return want, errors.New("expected both an identity and its issuer")
	}
	r, err := id.run()
	if err != nil {
		return want, err
	}
	extensions := certificate.Extensions{SourceRepositoryURI: r.repository, SourceRepositoryRef: r.ref}
	if isGitHub(id.Issuer) {
		extensions.BuildSignerURI = id.Subject
	}
	return verify.NewCertificateIdentity(verify.SubjectAlternativeNameMatcher{SubjectAlternativeName: id.Subject}, verify.IssuerMatcher{Issuer: id.Issuer}, extensions)
}

// identityOf is whom a certificate is for.
func identityOf(cert certificate.Summary) Identity {
	id := Identity{Subject: cert.SubjectAlternativeName, Issuer: cert.Issuer}
	if own, err := id.run(); err == nil && isGitHub(id.Issuer) && cert.SourceRepositoryURI != "" && runOf(cert) != own {
		id.Repository = cert.SourceRepositoryURI + "@" + cert.SourceRepositoryRef
	}
	return id
}

// name is the identity but for the run.
func (id Identity) name() string { return "identity " + id.Subject + " of " + id.Issuer }

func (id Identity) String() string {
	if id.Repository != "" {
		return id.name() + " in " + id.Repository
	}
	return id.name()
}

// flags are the flags of build verify-signature that trust it.
func (id Identity) flags() string {
	flags := "--issuer " + id.Issuer + " --identity " + id.Subject
	if id.Repository != "" {
		flags += " --signer-repository " + id.Repository
	}
	return flags
}

// A run is the repository whose run a certificate is for, and the branch or tag.
type run struct{ repository, ref string }

func runOf(cert certificate.Summary) run {
	return run{cert.SourceRepositoryURI, cert.SourceRepositoryRef}
}

// has reports whether a certificate for the run found is one for r, as far as r says.
func (r run) has(found run) bool {
	return (r.repository == "" || r.repository == found.repository) && (r.ref == "" || r.ref == found.ref)
}

func (r run) String() string {
	switch {
	case r.repository == "":
		return "a repository that its certificate does not name"
	case r.ref == "":
		return r.repository
	}
	return r.repository + " at " + r.ref
}
