package sign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
)

const identity = ours + "/.github/workflows/sign.yml@refs/heads/main"

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t testing.TB, key crypto.Signer) *Signer {
	t.Helper()
	s, err := NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keyless is a signer as a workflow is one, and the instance that it signs with.
func keyless(t testing.TB) (*Signer, *sigstoretest.Sigstore, *Sigstore) {
	t.Helper()
	fake := sigstoretest.New(t, identity)
	instance := open(t, fake)
	s, err := NewKeylessSigner(context.Background(), instance, GitHub{fake.TokenURL, fake.Bearer})
	if err != nil {
		t.Fatal(err)
	}
	return s, fake, instance
}

func open(t testing.TB, fake *sigstoretest.Sigstore) *Sigstore {
	t.Helper()
	trusted, err := root.NewTrustedRootFromPath(fake.TrustedRoot)
	if err != nil {
		t.Fatal(err)
	}
	config, err := root.NewSigningConfigFromPath(fake.SigningConfig)
	if err != nil {
		t.Fatal(err)
	}
	return &Sigstore{trusted, config}
}

func encodePEM(t testing.TB, kind string, key any, marshal func(any) ([]byte, error)) []byte {
	t.Helper()
	der, err := marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	big, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := func(k any) ([]byte, error) { return x509.MarshalECPrivateKey(k.(*ecdsa.PrivateKey)) }
	sealed := func(password string) func(any) ([]byte, error) {
		return func(k any) ([]byte, error) {
			der, err := x509.MarshalPKCS8PrivateKey(k)
			if err != nil {
				return nil, err
			}
			return encrypted.Encrypt(der, []byte(password))
		}
	}
	const word = "correct horse"
	tests := []struct {
		name string
		pem  []byte
		key  crypto.Signer // nil if it is refused
		want string
	}{
		{"cosign's", encodePEM(t, "ENCRYPTED SIGSTORE PRIVATE KEY", key, sealed(word)), key, ""},
		{"older cosign's", encodePEM(t, "ENCRYPTED COSIGN PRIVATE KEY", ed, sealed(word)), ed, ""},
		{"PKCS #8", encodePEM(t, "PRIVATE KEY", ed, x509.MarshalPKCS8PrivateKey), ed, ""},
		{"SEC 1", encodePEM(t, "EC PRIVATE KEY", key, sec1), key, ""},
		{"wrong password", encodePEM(t, "ENCRYPTED SIGSTORE PRIVATE KEY", key, sealed("battery staple")), nil, "the password does not open the key"},
		{"P-384", encodePEM(t, "PRIVATE KEY", big, x509.MarshalPKCS8PrivateKey), nil, "ECDSA key on P-384, wants P-256"},
		{"RSA", encodePEM(t, "PRIVATE KEY", rsaKey, x509.MarshalPKCS8PrivateKey), nil, "*rsa.PublicKey, wants ECDSA P-256 or Ed25519"},
		{"public", encodePEM(t, "PUBLIC KEY", key.Public(), x509.MarshalPKIXPublicKey), nil, "has a PUBLIC KEY, not a private key"},
		{"damaged", encodePEM(t, "PRIVATE KEY", nil, func(any) ([]byte, error) { return []byte("no DER " + word), nil }), nil, "is no PKCS #8 key"},
		{"no PEM", []byte(word), nil, "is no PEM file"},
	}
	for _, test := range tests {
		got, err := ParsePrivateKey(test.pem, func() ([]byte, error) { return []byte(word), nil })
		switch {
		case test.key != nil && (err != nil || !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(test.key.Public())):
			t.Errorf("%s: %v, %v", test.name, got, err)
		case test.key == nil && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, wants %q", test.name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), word) {
			t.Errorf("%s: the error has a secret: %v", test.name, err)
		}
	}
	if _, err := ParsePrivateKey(tests[4].pem, func() ([]byte, error) { return []byte(word), nil }); !errors.Is(err, ErrPassword) {
		t.Errorf("wrong password: %v, not ErrPassword", err)
	}
	if _, err := ParsePublicKey(tests[2].pem); err == nil || !strings.Contains(err.Error(), "not a PUBLIC KEY") {
		t.Errorf("a private key for a public one: %v", err)
	}
}

// edit changes a bundle's JSON.
func edit(t testing.TB, bundle []byte, change func(m map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(bundle, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// refusal is a bundle that must not be trusted.
type refusal struct {
	name   string
	trust  *Trust
	bundle []byte
	about  v1.Hash
	want   string
}

func TestVerify(t *testing.T) {
	ctx := context.Background()
	set := attesttest.Set(t, attesttest.Build(t, nil))
	statements, err := set.Statements()
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asWorkflow, fake, instance := keyless(t)
	otherIdentity, err := TrustIdentity(instance.Root, Identity{Subject: strings.Replace(identity, "xavieralpha", "mallory", 1), Issuer: sigstoretest.Issuer})
	if err != nil {
		t.Fatal(err)
	}
	otherIssuer, err := TrustIdentity(instance.Root, Identity{Subject: identity, Issuer: "https://accounts.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	otherInstance, err := TrustIdentity(open(t, sigstoretest.New(t, identity)).Root, Identity{Subject: identity, Issuer: sigstoretest.Issuer})
	if err != nil {
		t.Fatal(err)
	}
	otherKey := newSigner(t, newKey(t)).Trust
	about := set.Subjects[1].Descriptor.Digest
	var of attest.Statement
	for _, s := range statements {
		if s.Type == attest.SPDX && s.Subjects[0].Platform == set.Subjects[1].Platform {
			of = s
		}
	}
	for name, signer := range map[string]*Signer{"ECDSA": newSigner(t, newKey(t)), "Ed25519": newSigner(t, ed), "keyless": asWorkflow} {
		bundle, err := signer.Sign(ctx, of.Payload)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		v, err := signer.Trust.Verify(bundle, about)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if v.Type != attest.SPDX || !bytes.Equal(v.Statement, of.Payload) || v.Signer != signer.Trust.String() {
			t.Errorf("%s: verified %s of %s, another statement", name, v.Type, v.Signer)
		}
		if name == "keyless" && v.Time.IsZero() {
			t.Error("nobody says when it was signed")
		}
		tampered := edit(t, bundle, func(m map[string]any) {
			payload := bytes.Replace(of.Payload, []byte("example.com/Dep"), []byte("example.com/Ded"), 1)
			m["dsseEnvelope"].(map[string]any)["payload"] = base64.StdEncoding.EncodeToString(payload)
		})
		unsigned := edit(t, bundle, func(m map[string]any) { delete(m["dsseEnvelope"].(map[string]any), "signatures") })
		refused := []refusal{
			{"tampered", signer.Trust, tampered, about, attest.SPDX + " is not what " + signer.Trust.String() + " signed"},
			{"unsigned", signer.Trust, unsigned, about, attest.SPDX + " is not what " + signer.Trust.String() + " signed"},
			{"other digest", signer.Trust, bundle, set.Subjects[2].Descriptor.Digest, attest.SPDX + " is about another digest than " + set.Subjects[2].Descriptor.Digest.String()},
			{"other key", otherKey, bundle, about, "is signed by " + signer.Trust.String() + ", not by " + otherKey.String()},
			{"other identity", otherIdentity, bundle, about, "is signed by " + signer.Trust.String() + ", not by identity https://github.com/mallory/derper"},
			{"no bundle", signer.Trust, []byte("{}"), about, "is no Sigstore bundle"},
		}
		if name == "keyless" {
			unlogged := edit(t, bundle, func(m map[string]any) { delete(m["verificationMaterial"].(map[string]any), "tlogEntries") })
			untimed := edit(t, bundle, func(m map[string]any) {
				delete(m["verificationMaterial"].(map[string]any), "timestampVerificationData")
			})
			for name, b := range map[string][]byte{"not logged": unlogged, "no time": untimed} {
				refused = append(refused, refusal{name, signer.Trust, b, about, "is not what identity " + identity})
			}
			refused = append(refused,
				refusal{"other issuer", otherIssuer, bundle, about, "is signed by " + signer.Trust.String() + ", not by " + otherIssuer.String()},
				refusal{"other instance", otherInstance, bundle, about, "is not what identity " + identity})
		}
		for _, r := range refused {
			if _, err := r.trust.Verify(r.bundle, r.about); err == nil || !strings.Contains(err.Error(), r.want) {
				t.Errorf("%s, %s: %v, wants %q", name, r.name, err, r.want)
			}
		}
	}
	if _, err := TrustIdentity(instance.Root, Identity{Issuer: sigstoretest.Issuer}); err == nil {
		t.Error("anybody whom the issuer knows is trusted")
	}
	if n := fake.Asked("/api/v2/signingCert"); n != 1 {
		t.Errorf("Fulcio was asked for %d certificates, not 1", n)
	}
}

// What goes wrong on the way to a signature is said, and no secret with it.
func TestKeylessFailures(t *testing.T) {
	ctx := context.Background()
	tests := map[string]struct {
		arrange func(*sigstoretest.Sigstore) GitHub
		want    string // empty if it works in the end
	}{
		"GitHub is away for a moment": {func(s *sigstoretest.Sigstore) GitHub {
			s.Break("/token", 1, "oops "+s.Bearer)
			return GitHub{s.TokenURL, s.Bearer}
		}, ""},
		"Fulcio is away for a moment": {func(s *sigstoretest.Sigstore) GitHub {
			s.Break("/api/v2/signingCert", 1, "oops")
			return GitHub{s.TokenURL, s.Bearer}
		}, ""},
		"GitHub refuses": {func(s *sigstoretest.Sigstore) GitHub {
			return GitHub{s.TokenURL, s.Bearer + "x"}
		}, "401 Unauthorized"},
		"no permission": {func(s *sigstoretest.Sigstore) GitHub { return GitHub{} }, "gives this job no ID token"},
		"Fulcio refuses and echoes": {func(s *sigstoretest.Sigstore) GitHub {
			s.Distrust()
			return GitHub{s.TokenURL, s.Bearer}
		}, "no such token"},
	}
	for name, test := range tests {
		fake := sigstoretest.New(t, identity)
		tokens := test.arrange(fake)
		signer, err := NewKeylessSigner(ctx, open(t, fake), tokens)
		if err == nil {
			_, err = signer.Sign(ctx, []byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"x","subject":[{"name":"x","digest":{"sha256":"00"}}],"predicate":{}}`))
		}
		if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, wants %q", name, err, test.want)
		}
		for _, secret := range []string{fake.Bearer, fake.IDToken} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error has a secret: %v", name, err)
			}
		}
	}
}
