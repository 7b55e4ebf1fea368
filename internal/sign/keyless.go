package sign

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/tuf"

	"github.com/xavieralpha/derper/internal/redact"
	"github.com/xavieralpha/derper/internal/retry"
)

// audience is whom an ID token for Fulcio is meant for.
const audience = "sigstore"

// A Sigstore is an instance of Sigstore: whom it trusts, and where its services are.
type Sigstore struct {
	Root   root.TrustedMaterial
	Config *root.SigningConfig
}

// PublicSigstore fetches what the public instance, sigstore.dev, has published of
// itself, verified by TUF from the root of trust that this program is compiled with.
// Nothing is kept on disk.
func PublicSigstore(ctx context.Context) (*Sigstore, error) {
	options := tuf.DefaultOptions().WithDisableLocalCache().WithContext(ctx)
	client, err := tuf.New(options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", options.RepositoryBaseURL, err)
	}
	trusted, err := root.GetTrustedRoot(client)
	if err != nil {
		return nil, fmt.Errorf("%s: trusted root: %w", options.RepositoryBaseURL, err)
	}
	config, err := root.GetSigningConfig(client)
	if err != nil {
		return nil, fmt.Errorf("%s: signing config: %w", options.RepositoryBaseURL, err)
	}
	return &Sigstore{trusted, config}, nil
}

// GitHub gives ID tokens of OpenID Connect: to a job in GitHub Actions with the permission id-token.
// Source: https://docs.github.com/actions, security, OpenID Connect.
type GitHub struct {
	// URL and Bearer are the job's ACTIONS_ID_TOKEN_REQUEST_URL and _TOKEN.
	URL, Bearer string
}

// Token asks GitHub for a token, up to four times: the endpoint fails now and then.
func (g GitHub) Token(ctx context.Context, audience string) (string, error) {
	at, err := url.Parse(g.URL)
	if err != nil || g.URL == "" || g.Bearer == "" {
		return "", errors.New("GitHub gives this job no ID token")
	}
	query := at.Query()
	query.Set("audience", audience)
	at.RawQuery = query.Encode()
	req := (&http.Request{URL: at, Header: http.Header{"Authorization": {"Bearer " + g.Bearer}, "Accept": {"application/json"}}}).WithContext(ctx)
	var answer struct {
		Value string `json:"value"`
	}
	err = retry.Policy{Attempts: 4, Backoff: time.Second}.Do(ctx, func(bool) (again bool, err error) {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			if e, ok := errors.AsType[*url.Error](err); ok {
				err = e.Err // without the URL
			}
			return ctx.Err() == nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, errors.New(resp.Status)
		}
		// What the answer holds is a secret, so no part of it goes into the error.
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil || answer.Value == "" {
			return false, errors.New("the answer has no token")
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("ID token from %s: %w", at.Host, err)
	}
	return answer.Value, nil
}

// NewKeylessSigner signs with a key of its own that lasts as long as the signer, for
// which Fulcio certifies the identity that a token stands for. Every signature is
// logged.
func NewKeylessSigner(ctx context.Context, s *Sigstore, tokens GitHub) (*Signer, error) {
	keys, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return nil, fmt.Errorf("keyless: %w", err)
	}
	now := time.Now()
	fulcio, err := root.SelectService(s.Config.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions, now)
	if err != nil {
		return nil, fmt.Errorf("keyless: no Fulcio: %w", err)
	}
	certs := &certificates{fulcio: sign.NewFulcio(&sign.FulcioOptions{BaseURL: fulcio.URL, Retries: 3}), tokens: tokens}
	certs.secrets.Add(tokens.Bearer)
	signer := &Signer{keys: keys, secrets: &certs.secrets, done: map[[sha256.Size]byte][]byte{}}
	signer.options = sign.BundleOptions{CertificateProvider: certs, CertificateProviderOptions: &sign.CertificateProviderOptions{}, TrustedRoot: s.Root}
	logs, err := root.SelectServices(s.Config.RekorLogURLs(), s.Config.RekorLogURLsConfig(), sign.RekorAPIVersions, now)
	if err != nil {
		return nil, fmt.Errorf("keyless: no Rekor: %w", err)
	}
	for _, l := range logs {
		signer.options.TransparencyLogs = append(signer.options.TransparencyLogs,
			sign.NewRekor(&sign.RekorOptions{BaseURL: l.URL, Version: l.MajorAPIVersion, Retries: 3, Timeout: time.Minute}))
	}
	if urls := s.Config.TimestampAuthorityURLs(); len(urls) > 0 {
		authorities, err := root.SelectServices(urls, s.Config.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, now)
		if err != nil {
			return nil, fmt.Errorf("keyless: no timestamp authority: %w", err)
		}
		for _, a := range authorities {
			signer.options.TimestampAuthorities = append(signer.options.TimestampAuthorities,
				sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: a.URL, Retries: 3, Timeout: time.Minute}))
		}
	}
	// Who one is shows in the first certificate. What was signed before, by the same
	// identity with another key, can then be told from what was not.
	if _, err := certs.GetCertificate(ctx, keys, nil); err != nil {
		return nil, fmt.Errorf("keyless: %w", certs.secrets.Error(err))
	}
	who, err := certificate.SummarizeCertificate(certs.cert)
	if err != nil {
		return nil, fmt.Errorf("keyless: Fulcio's certificate: %w", err)
	}
	signer.Trust, err = TrustIdentity(s.Root, identityOf(who))
	return signer, err
}

// certificates gets certificates from Fulcio, and keeps one for as long as it is valid.
type certificates struct {
	fulcio  *sign.Fulcio
	tokens  GitHub
	cert    *x509.Certificate
	secrets redact.Secrets
}

// margin is what a certificate must still be valid for, so that a signature gets its
// entry in the log in time.
const margin = 3 * time.Minute

// GetCertificate makes certificates a sign.CertificateProvider.
func (c *certificates) GetCertificate(ctx context.Context, keys sign.Keypair, _ *sign.CertificateProviderOptions) ([]byte, error) {
	if c.cert != nil && time.Until(c.cert.NotAfter) > margin {
		return c.cert.Raw, nil
	}
	token, err := c.tokens.Token(ctx, audience)
	if err != nil {
		return nil, err
	}
	c.secrets.Add(token)
	der, err := c.fulcio.GetCertificate(ctx, keys, &sign.CertificateProviderOptions{IDToken: token})
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return der, nil
}
