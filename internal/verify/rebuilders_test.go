package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
)

// TestRebuilders guards that only attestations count that are about this image, of
// all its platforms, by those who are trusted, and each of them once.
func TestRebuilders(t *testing.T) {
	f := newFixture(t)
	for name, start := range map[string]func(testing.TB, registrytest.Options) *registrytest.Registry{
		"distribution":         registrytest.Distribution, // has no referrers API
		"registry with an API": registrytest.Memory,
	} {
		t.Run(name, func(t *testing.T) { testRebuilders(t, f, start(t, registrytest.Options{})) })
	}
}

func testRebuilders(t *testing.T, f *fixture, server *registrytest.Registry) {
	push := func(t *testing.T, repository string, index v1.ImageIndex) string {
		ref, err := name.NewTag(server.Repository(repository) + ":1")
		if err == nil {
			err = remote.WriteIndex(ref, index)
		}
		if err != nil {
			t.Fatal(err)
		}
		return ref.String()
	}
	// attestBy verifies as another rebuilder does, and attaches what it found.
	attestBy := func(t *testing.T, ref string, by *sign.Signer, platforms ...lock.Platform) {
		t.Helper()
		v := f.verifier(t)
		v.Fresh, v.Platforms = true, platforms
		s := f.run(t, v, ref)
		if s.Statement == nil {
			t.Fatalf("nothing to attest:\n%s", text(s))
		}
		attach(t, ref, by, *s.Statement)
	}
	require := func(t *testing.T, ref string, n int, by ...*sign.Signer) *Subject {
		t.Helper()
		v := f.verifier(t)
		v.Rebuilders = Rebuilders{Require: n}
		for _, s := range by {
			v.Rebuilders.Trust = append(v.Rebuilders.Trust, Rebuilder{Trust: s.Trust})
		}
		return f.run(t, v, ref)
	}
	alice, bob, eve := newSigner(t), newSigner(t), newSigner(t)

	t.Run("enough", func(t *testing.T) {
		ref := push(t, "enough", f.index)
		wantError(t, require(t, ref, 1, alice), ErrRebuilders, "0 of those trusted, 1 are required: "+alice.Trust.String()+" has attested nothing")
		attestBy(t, ref, alice)
		s := require(t, ref, 1, alice, bob)
		wantVerified(t, s)
		if says := strings.Join(s.Means, "\n"); !strings.Contains(says, "1 of 2 rebuilders that you trust attest the same") {
			t.Errorf("does not say what others attest:\n%s", says)
		}
		// Twice by the same counts once, and a stranger's does not count.
		attestBy(t, ref, alice, f.platforms...)
		attestBy(t, ref, eve)
		wantError(t, require(t, ref, 2, alice, bob), ErrRebuilders, "1 of those trusted, 2 are required")
		attestBy(t, ref, bob)
		wantVerified(t, require(t, ref, 2, alice, bob))
	})
	t.Run("some platforms", func(t *testing.T) {
		ref := push(t, "some", f.index)
		attestBy(t, ref, alice, f.platforms[0])
		wantError(t, require(t, ref, 1, alice), ErrRebuilders, "attests a rebuild, but not of linux/arm64")
		v := f.verifier(t)
		v.Platforms = f.platforms[:1]
		v.Rebuilders = Rebuilders{Require: 1, Trust: []Rebuilder{{Trust: alice.Trust}}}
		wantVerified(t, f.run(t, v, ref))
	})
	t.Run("an attestation of another image", func(t *testing.T) {
		good := push(t, "good", f.index)
		evil := f.with(imagetest.Annotate(t, f.images[0], "evil", "yes"))
		index := f.indexOf(t, f.platforms, evil)
		bad := push(t, "bad", index)
		v := f.verifier(t)
		v.Fresh = true
		statement := *f.run(t, v, good).Statement
		top, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		// What alice said of the good image, word for word, attached to the bad one.
		statement.Subjects = []attest.Subject{{Descriptor: descriptor(t, index, top)}}
		attach(t, bad, alice, statement)
		wantError(t, require(t, bad, 1, alice), ErrRebuilders, "has attested another image, and that attestation is attached to this one")
	})
	t.Run("one that found a difference", func(t *testing.T) {
		evil := f.with(imagetest.Annotate(t, f.images[0], "evil", "yes"))
		index := f.indexOf(t, f.platforms, evil)
		ref := push(t, "differs", index)
		attestBy(t, ref, alice)
		wantError(t, require(t, ref, 1, alice), ErrRebuilders, "attests that what it rebuilt differs on linux/amd64")
	})
	t.Run("another statement by a rebuilder", func(t *testing.T) {
		ref := push(t, "other", f.index)
		v := f.verifier(t)
		v.Fresh = true
		statement := *f.run(t, v, ref).Statement
		statement.Type = attest.Signature
		statement.Payload = []byte(strings.Replace(string(statement.Payload), attest.TestResult, attest.Signature, 1))
		attach(t, ref, alice, statement)
		wantError(t, require(t, ref, 1, alice), ErrRebuilders, "has attested nothing")
	})
	t.Run("another revision of this project", func(t *testing.T) {
		images := f.with(f.edit(t, "entrypoint", hostile.Replace("entrypoint", func(b []byte) []byte { return hostile.Flip(t, b, "main.main") })))
		index := f.indexOf(t, f.platforms, images)
		ref := push(t, "revision", index)
		top, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		commit := strings.Repeat("0123456789", 4)
		payload := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{"buildDefinition":{"buildType":%q,`+
			`"resolvedDependencies":[{"name":"derper","digest":{"gitCommit":%q}}]}}}`, top.Hex, attest.SLSA, attest.BuildType, commit)
		attach(t, ref, eve, attest.Statement{Type: attest.SLSA, Payload: []byte(payload), Subjects: []attest.Subject{{Descriptor: descriptor(t, index, top)}}})
		wantFirst(t, f.verify(t, ref), LevelBinary, "made by another revision of this project",
			"names commit "+commit, "of which the signature was not verified", "cmd/build@"+commit+" verify "+ref)
	})
	t.Run("attached elsewhere", func(t *testing.T) {
		// Carol may not write to the image's repository, and hers does not have the image.
		ref, carol := push(t, "ours", f.index), newSigner(t)
		v := f.verifier(t)
		v.Fresh = true
		report, err := v.References(t.Context(), []string{ref})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"attached to", "was there already"} {
			var said string
			say := func(format string, args ...any) { said = fmt.Sprintf(format, args...) }
			if err := Attest(t.Context(), report, carol, new(registry.Client), server.Repository("carol"), say); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(said, want) || !strings.Contains(said, "/carol@sha256:") {
				t.Errorf("said %q, want %q", said, want)
			}
		}
		wantError(t, require(t, ref, 1, carol), ErrRebuilders, "has attested nothing")
		who := Rebuilder{carol.Trust, "carol", server.Repository("carol")}
		v = f.verifier(t)
		v.Rebuilders = Rebuilders{1, []Rebuilder{who, {alice.Trust, "alice", "127.0.0.1:1/nowhere"}}}
		s := f.run(t, v, ref)
		wantVerified(t, s)
		if c := s.Rebuilders; c[0].Name != "carol ("+carol.Trust.String()+")" || c[0].Result != Pass || c[1].Result != Skip || !strings.Contains(c[1].Note, "could not be asked: ") {
			t.Errorf("rebuilders: %+v", c)
		}
		if names, err := v.Rebuilders.Confirmed(t.Context(), new(registry.Client), ref, f.platforms); err != nil || !slices.Equal(names, []string{"carol"}) {
			t.Errorf("confirmed by %q, %v", names, err)
		}
		// In that place, too, only what she signed counts.
		who.Trust = bob.Trust
		v.Rebuilders = Rebuilders{1, []Rebuilder{who}}
		wantError(t, f.run(t, v, ref), ErrRebuilders, "carol (key ")
	})
	t.Run("not in a registry", func(t *testing.T) {
		wantError(t, require(t, f.layoutOf(t, f.index), 1, alice), ErrRebuilders, "it is in no registry")
	})
	t.Run("the statement", func(t *testing.T) {
		ref := push(t, "statement", f.index)
		v := f.verifier(t)
		if s := f.run(t, v, ref); s.Statement != nil {
			t.Error("a verification with a cache that was trusted can be attested")
		}
		v.Fresh = true
		first, second := f.run(t, v, ref).Statement, f.run(t, v, ref).Statement
		if string(first.Payload) != string(second.Payload) {
			t.Errorf("the same finding, told in two ways:\n%s\n%s", first.Payload, second.Payload)
		}
		var s struct {
			Subject   []struct{ Digest map[string]string }
			Predicate struct {
				Result      string
				PassedTests []string
			}
		}
		if err := json.Unmarshal(first.Payload, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Subject) != 3 || "sha256:"+s.Subject[0].Digest["sha256"] != f.output.Index || "sha256:"+s.Subject[2].Digest["sha256"] != f.output.Platforms[1].Manifest {
			t.Errorf("is not about the index and its images: %s", first.Payload)
		}
		if s.Predicate.Result != "PASSED" || strings.Join(s.Predicate.PassedTests, ",") != "rebuild linux/amd64,rebuild linux/arm64,rebuild index" {
			t.Errorf("does not say what passed: %s", first.Payload)
		}
	})
}

func descriptor(t *testing.T, index v1.ImageIndex, digest v1.Hash) v1.Descriptor {
	t.Helper()
	mediaType, err := index.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	size, err := index.Size()
	if err != nil {
		t.Fatal(err)
	}
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}
}

func attach(t *testing.T, ref string, by *sign.Signer, statement attest.Statement) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	r, err := (&registry.Client{}).Open(t.Context(), parsed.Context().String(), registry.Push)
	if err == nil {
		_, err = sign.Attach(t.Context(), []attest.Statement{statement}, by, []*registry.Repository{r}, func(int, int) {})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newSigner(t *testing.T) *sign.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sign.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRebuilderSays guards what one rebuilder's attestations come to, in whatever order a
// registry lists them: one of all platforms is enough, and what it says is not covered by
// a lesser one; those of parts do not add up; a difference that was found always counts.
func TestRebuilderSays(t *testing.T) {
	alice := newSigner(t)
	top := v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}}
	l, err := lock.Read("../../versions.json")
	if err != nil {
		t.Fatal(err)
	}
	bundle := func(r attest.Rebuild) []byte {
		t.Helper()
		r.Inputs, r.Host = l.Inputs, "linux/amd64"
		s, err := r.Statement(attest.Subject{Descriptor: top})
		if err != nil {
			t.Fatal(err)
		}
		b, err := alice.Sign(t.Context(), s.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	all, amd, arm := bundle(attest.Rebuild{Passed: []string{"linux/amd64", "linux/arm64"}}), bundle(attest.Rebuild{Passed: []string{"linux/amd64"}}), bundle(attest.Rebuild{Passed: []string{"linux/arm64"}})
	differs := bundle(attest.Rebuild{Passed: []string{"linux/amd64"}, Failed: []string{"linux/arm64"}})
	const same = "attests that it rebuilt the same, bit for bit"
	for _, test := range []struct {
		name    string
		bundles [][]byte
		result  Result
		note    string
	}{
		{"all", [][]byte{all}, Pass, same},
		{"all, then some", [][]byte{all, amd}, Pass, same},
		{"some, then all", [][]byte{amd, all}, Pass, same},
		{"each", [][]byte{amd, arm}, Skip, "attests a rebuild, but not of linux/amd64"},
		{"some", [][]byte{amd}, Skip, "attests a rebuild, but not of linux/arm64"},
		{"all, then a difference", [][]byte{all, differs}, Fail, "attests that what it rebuilt differs on linux/arm64"},
		{"a difference, then all", [][]byte{differs, all}, Fail, "attests that what it rebuilt differs on linux/arm64"},
		{"none", nil, Skip, "has attested nothing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Rebuilder{Trust: alice.Trust}.attested(test.bundles, top.Digest, []lock.Platform{"linux/amd64", "linux/arm64"})
			if c.Result != test.result || c.Note != test.note {
				t.Errorf("%s: %s; want %s: %s", c.Result, c.Note, test.result, test.note)
			}
		})
	}
}

// The mistake it guards: a rebuilder who signs as a workflow is counted for what others
// signed in its name, by calling that workflow.
func TestRebuilderOfAnotherRun(t *testing.T) {
	const identity = "https://github.com/alice/rebuilds/.github/workflows/verify.yml@refs/heads/main"
	fake := sigstoretest.New(t, identity)
	trusted, err := root.NewTrustedRootFromPath(fake.TrustedRoot)
	if err != nil {
		t.Fatal(err)
	}
	config, err := root.NewSigningConfigFromPath(fake.SigningConfig)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := sign.TrustIdentity(trusted, sign.Identity{Subject: identity, Issuer: sigstoretest.Issuer})
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read("../../versions.json")
	if err != nil {
		t.Fatal(err)
	}
	top := v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}}
	s, err := attest.Rebuild{Inputs: l.Inputs, Host: "linux/amd64", Passed: []string{"linux/amd64"}}.Statement(attest.Subject{Descriptor: top})
	if err != nil {
		t.Fatal(err)
	}
	bundle := func(run sigstoretest.Run) []byte {
		t.Helper()
		fake.Certify(run)
		signer, err := sign.NewKeylessSigner(t.Context(), &sign.Sigstore{Root: trusted, Config: config}, sign.GitHub{URL: fake.TokenURL, Bearer: fake.Bearer})
		if err != nil {
			t.Fatal(err)
		}
		b, err := signer.Sign(t.Context(), s.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	alice, mallory := bundle(sigstoretest.RunOf(identity)), bundle(sigstoretest.CalledBy("https://github.com/mallory/x", "refs/heads/main", identity))
	for _, test := range []struct {
		name    string
		bundles [][]byte
		result  Result
		note    string
	}{
		{"a stranger", [][]byte{mallory}, Skip, "has attested nothing that counts: an attestation was signed by " + trust.String() +
			" for a run of https://github.com/mallory/x at refs/heads/main, not of https://github.com/alice/rebuilds at refs/heads/main"},
		{"a stranger, then the rebuilder", [][]byte{mallory, alice}, Pass, "attests that it rebuilt the same, bit for bit"},
		{"the rebuilder, then a stranger", [][]byte{alice, mallory}, Pass, "attests that it rebuilt the same, bit for bit"},
	} {
		c := Rebuilder{Trust: trust}.attested(test.bundles, top.Digest, []lock.Platform{"linux/amd64"})
		if c.Result != test.result || c.Note != test.note {
			t.Errorf("%s: %s: %s; want %s: %s", test.name, c.Result, c.Note, test.result, test.note)
		}
	}
}
