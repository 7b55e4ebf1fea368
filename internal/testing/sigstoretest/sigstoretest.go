// Package sigstoretest runs an instance of Sigstore on loopback for tests: what GitHub
// Actions, Fulcio, Rekor v2 and a timestamp authority answer, with keys of its own. Its
// certificates, log entries and timestamps are real ones; only who gets a certificate
// is decided by one fixed token.
package sigstoretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
)

// Issuer vouches for identities.
const Issuer = "https://token.actions.githubusercontent.com"

// A Sigstore is a running instance.
type Sigstore struct {
	// TrustedRoot and SigningConfig are files that say whom to trust and where the
	// services are.
	TrustedRoot, SigningConfig string
	// TokenURL and Bearer are what GitHub Actions gives a job.
	TokenURL, Bearer string
	// IDToken is what the job gets for them. With the bearer it is a secret.
	IDToken string
	// Identity is whom Fulcio certifies for the token.
	Identity string

	server *httptest.Server
	fulcio authority
	tsa    authority
	ctLog  *ecdsa.PrivateKey
	rekor  *ecdsa.PrivateKey

	mu     sync.Mutex
	run    Run
	strict bool
	asked  map[string]int // by path
	broken map[string]*broken
}

// authority is a certificate authority.
type authority struct {
	root, cert *x509.Certificate
	key        *ecdsa.PrivateKey
	leaf       *x509.Certificate // of the timestamp authority
	leafKey    *ecdsa.PrivateKey
}

// A Run is the run of a workflow on GitHub that a certificate is for. A field that is
// empty is left out of the certificate.
type Run struct {
	// Repository is the one that has the run, https://github.com/OWNER/NAME, and Ref the
	// branch or tag of it.
	Repository, Ref string
	// Workflow is the URI of the workflow that was started, and Signer that of the one
	// that has the job: the same, or one that was called.
	Workflow, Signer string
}

// RunOf is the run in which release.yml of a repository calls the workflow identity of
// the same repository, or is it.
func RunOf(identity string) Run {
	repository, rest, _ := strings.Cut(identity, "/.github/workflows/")
	_, ref, _ := strings.Cut(rest, "@")
	return CalledBy(repository, ref, identity)
}

// CalledBy is the run in which release.yml of a repository, at a ref, calls the workflow
// identity of any.
func CalledBy(repository, ref, identity string) Run {
	return Run{Repository: repository, Ref: ref, Workflow: repository + "/.github/workflows/release.yml@" + ref, Signer: identity}
}

// Certify makes Fulcio certify the identity for another run from now on.
func (s *Sigstore) Certify(run Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = run
}

// New runs an instance until the test ends. It certifies the given identity, the URI
// of a workflow, for a run of its own repository.
func New(t testing.TB, identity string) *Sigstore {
	t.Helper()
	s := &Sigstore{Identity: identity, run: RunOf(identity), Bearer: "bearer-" + random(), asked: map[string]int{}, broken: map[string]*broken{}}
	s.IDToken = token(identity)
	s.makeKeys(t)
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"GET /token":               s.serveToken,
		"POST /api/v2/signingCert": s.serveFulcio,
		"POST /api/v2/log/entries": s.serveRekor,
		"POST /api/v1/timestamp":   s.serveTimestamp,
	} {
		mux.HandleFunc(path, s.counted(h))
	}
	s.server = httptest.NewServer(mux)
	t.Cleanup(s.server.Close)
	s.TokenURL = s.server.URL + "/token?api-version=2.0"
	s.writeFiles(t)
	return s
}

// Asked is how often a path was asked for: /token, /api/v2/signingCert,
// /api/v2/log/entries, /api/v1/timestamp.
func (s *Sigstore) Asked(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

// Break lets the next n requests for a path fail with status 500 and this answer.
func (s *Sigstore) Break(path string, n int, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[path] = &broken{n, answer}
}

// Distrust lets Fulcio refuse the token, and send it back.
func (s *Sigstore) Distrust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strict = true
}

// broken is a path that does not work for some more requests.
type broken struct {
	left   int
	answer string
}

// counted counts requests, and breaks those that are to be broken.
func (s *Sigstore) counted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		s.asked[req.URL.Path]++
		b := s.broken[req.URL.Path]
		fail := b != nil && b.left > 0
		if fail {
			b.left--
		}
		s.mu.Unlock()
		if fail {
			http.Error(w, b.answer, http.StatusInternalServerError)
			return
		}
		h(w, req)
	}
}

func (s *Sigstore) makeKeys(t testing.TB) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	var rootKey *ecdsa.PrivateKey
	s.fulcio.root, rootKey, err = ca.GenerateRootCa()
	must(err)
	s.fulcio.cert, s.fulcio.key, err = ca.GenerateFulcioIntermediate(s.fulcio.root, rootKey)
	must(err)
	s.tsa.root, rootKey, err = ca.GenerateRootCa()
	must(err)
	s.tsa.cert, s.tsa.key, err = ca.GenerateTSAIntermediate(s.tsa.root, rootKey)
	must(err)
	for _, key := range []**ecdsa.PrivateKey{&s.tsa.leafKey, &s.ctLog, &s.rekor} {
		*key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
	}
	s.tsa.leaf, err = ca.GenerateTSALeafCert(time.Now().Add(-time.Minute), s.tsa.leafKey, s.tsa.cert, s.tsa.key)
	must(err)
	s.tsa.leaf, err = lasting(s.tsa.leaf, s.tsa.leafKey, s.tsa.cert, s.tsa.key)
	must(err)
}

// lasting is a timestamp authority's certificate that is good for hours. The one that
// it is made of is good for ten minutes, and some tests take longer.
func lasting(short *x509.Certificate, key *ecdsa.PrivateKey, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	c := &x509.Certificate{SerialNumber: short.SerialNumber, NotBefore: short.NotBefore, NotAfter: parent.NotAfter, KeyUsage: short.KeyUsage}
	for _, e := range short.Extensions {
		if e.Critical && e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 37}) { // extended key usage
			c.ExtraExtensions = append(c.ExtraExtensions, e)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// logHost is the name of the log, which stands in its checkpoints.
const logHost = "log.example.com"

// writeFiles writes the trusted root and the signing config.
func (s *Sigstore) writeFiles(t testing.TB) {
	t.Helper()
	from, until := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	log := func(url string, key *ecdsa.PrivateKey) map[string]*root.TransparencyLog {
		id := logID(key)
		return map[string]*root.TransparencyLog{hex.EncodeToString(id): {
			BaseURL: url, ID: id, ValidityPeriodStart: from, ValidityPeriodEnd: until,
			HashFunc: crypto.SHA256, PublicKey: key.Public(), SignatureHashFunc: crypto.SHA256,
		}}
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: s.fulcio.root, Intermediates: []*x509.Certificate{s.fulcio.cert}, ValidityPeriodStart: from, ValidityPeriodEnd: until, URI: s.server.URL,
		}},
		log("https://ct.example.com", s.ctLog),
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: s.tsa.root, Intermediates: []*x509.Certificate{s.tsa.cert}, Leaf: s.tsa.leaf, ValidityPeriodStart: from, ValidityPeriodEnd: until, URI: s.server.URL,
		}},
		log("https://"+logHost, s.rekor))
	if err != nil {
		t.Fatal(err)
	}
	service := func(url string, version uint32) []root.Service {
		return []root.Service{{URL: url, MajorAPIVersion: version, ValidityPeriodStart: from, ValidityPeriodEnd: until, Operator: "example.com"}}
	}
	anyOf := root.ServiceConfiguration{Selector: prototrustroot.ServiceSelector_ANY}
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02,
		service(s.server.URL, 1), nil, service(s.server.URL, 2), anyOf, service(s.server.URL+"/api/v1/timestamp", 1), anyOf)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s.TrustedRoot, s.SigningConfig = filepath.Join(dir, "trusted_root.json"), filepath.Join(dir, "signing_config.json")
	for name, v := range map[string]json.Marshaler{s.TrustedRoot: trusted, s.SigningConfig: config} {
		data, err := v.MarshalJSON()
		if err == nil {
			err = os.WriteFile(name, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// logID is the ID of a log: the hash of its key.
func logID(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

func random() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// token is an ID token in the form of GitHub's. Nobody here checks its signature.
func token(identity string) string {
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	claims := map[string]any{"iss": Issuer, "sub": "repo:xavieralpha/derper:ref:refs/heads/main", "aud": "sigstore", "job_workflow_ref": identity}
	return part(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + part(claims) + "." + part(random())
}
