package sign

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
)

// FuzzVerifyKey guards that nothing is verified but what the key signed: it signed one
// statement, about one digest. The bundle is as it is given or, if it is empty, one with that
// statement and that signature.
func FuzzVerifyKey(f *testing.F) {
	signer := newSigner(f, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	about := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":"` + about.Hex + `"}}],"predicateType":"https://example.com/x","predicate":{}}`)
	bundle, err := signer.Sign(context.Background(), statement)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := signer.Trust.Verify(bundle, about); err != nil {
		f.Fatal(err)
	}
	var signature string
	edit(f, bundle, func(m map[string]any) {
		signature = m["dsseEnvelope"].(map[string]any)["signatures"].([]any)[0].(map[string]any)["sig"].(string)
	})
	form := strings.NewReplacer(signature, "SIGNATURE", base64.StdEncoding.EncodeToString(statement), "STATEMENT").Replace(string(bundle))
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bundle, []byte{}, []byte{})
	f.Add([]byte{}, statement, sig)
	f.Add([]byte{}, statement, []byte{})
	f.Add(edit(f, bundle, func(m map[string]any) { delete(m, "verificationMaterial") }), []byte{}, []byte{})
	f.Add(edit(f, bundle, func(m map[string]any) {
		envelope := m["dsseEnvelope"].(map[string]any)
		envelope["signatures"] = append(envelope["signatures"].([]any), envelope["signatures"].([]any)[0])
	}), []byte{}, []byte{})
	other := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("2", 64)}
	f.Fuzz(func(t *testing.T, bundle, payload, sig []byte) {
		if len(bundle) == 0 {
			bundle = []byte(strings.NewReplacer("SIGNATURE", base64.StdEncoding.EncodeToString(sig), "STATEMENT", base64.StdEncoding.EncodeToString(payload)).Replace(form))
		}
		v, err := signer.Trust.Verify(bundle, about)
		if err != nil {
			return
		}
		if !bytes.Equal(v.Statement, statement) {
			t.Errorf("verifies what the key did not sign: %s", v.Statement)
		}
		if _, err := signer.Trust.Verify(bundle, other); err == nil {
			t.Error("verifies what is about another digest")
		}
	})
}

// FuzzVerifyIdentity guards that nothing is verified but what the identity signed: it signed
// one statement, which is a public bundle of the public Sigstore, for good.
//
// It may have less than 10,000 executions a second: a bundle of which only something changes
// that is not signed, such as a space, is verified to its end, which is some five signatures
// and takes a millisecond or more.
func FuzzVerifyIdentity(f *testing.F) {
	const identity, issuer = "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main", "https://token.actions.githubusercontent.com"
	// Source: sigstore-go v1.3.0, pkg/testing/data, Apache-2.0.
	public, err := os.ReadFile("testdata/public/bundle.json")
	if err != nil {
		f.Fatal(err)
	}
	trusted, err := root.NewTrustedRootFromPath("testdata/public/trusted_root.json")
	if err != nil {
		f.Fatal(err)
	}
	trust, err := TrustIdentity(trusted, Identity{Subject: identity, Issuer: issuer})
	if err != nil {
		f.Fatal(err)
	}
	var b struct {
		DSSEEnvelope struct{ Payload []byte }
	}
	var s struct {
		Subject []struct{ Digest map[string]string }
	}
	if err := json.Unmarshal(public, &b); err != nil {
		f.Fatal(err)
	}
	if err := json.Unmarshal(b.DSSEEnvelope.Payload, &s); err != nil {
		f.Fatal(err)
	}
	about := v1.Hash{Algorithm: "sha512", Hex: s.Subject[0].Digest["sha512"]}
	// signed reports whether the signature of a bundle holds: the statement is then refused
	// for what it says, since it is another project's.
	signed := func(data []byte) bool {
		_, err := trust.Verify(data, about)
		return err == nil || strings.Contains(err.Error(), "build type")
	}
	if !signed(public) {
		f.Fatal("the bundle of the corpus does not verify")
	}
	f.Add(public)
	for _, part := range []string{"tlogEntries", "certificate", "x509CertificateChain"} {
		f.Add(edit(f, public, func(m map[string]any) { delete(m["verificationMaterial"].(map[string]any), part) }))
	}
	f.Fuzz(func(t *testing.T, bundle []byte) {
		got := b
		if signed(bundle) && (json.Unmarshal(bundle, &got) != nil || !bytes.Equal(got.DSSEEnvelope.Payload, b.DSSEEnvelope.Payload)) {
			t.Errorf("verifies what the identity did not sign: %s", bundle)
		}
	})
}
