package sign

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
)

// A stranger has a certificate for our workflow, of another run than one of ours.
type stranger struct {
	run sigstoretest.Run
	// says is a part of why it is refused.
	says string
	// cosign is set for what cosign's flags can refuse, too.
	cosign bool
}

const (
	ours   = "https://github.com/xavieralpha/derper"
	theirs = "https://github.com/mallory/x"
)

func strangers() map[string]stranger {
	const notOf = ", not of " + ours + " at refs/heads/main"
	own := sigstoretest.RunOf(identity)
	without := func(change func(*sigstoretest.Run)) sigstoretest.Run {
		r := own
		change(&r)
		return r
	}
	list := map[string]stranger{
		"nothing of the run":   {sigstoretest.Run{}, "a repository that its certificate does not name" + notOf, true},
		"no repository":        {without(func(r *sigstoretest.Run) { r.Repository = "" }), "a repository that its certificate does not name" + notOf, true},
		"no ref":               {without(func(r *sigstoretest.Run) { r.Ref = "" }), "for a run of " + ours + notOf, true},
		"no build signer":      {without(func(r *sigstoretest.Run) { r.Signer = "" }), "expected BuildSignerURI to be", false},
		"another build signer": {without(func(r *sigstoretest.Run) { r.Signer = own.Workflow }), "expected BuildSignerURI to be", false},
	}
	for name, at := range map[string]struct{ repository, ref string }{
		"another repository":  {theirs, "refs/heads/main"},
		"a fork":              {"https://github.com/mallory/derper", "refs/heads/main"},
		"a longer name":       {ours + "-x", "refs/heads/main"},
		"another GitHub":      {"https://github.example.com/xavieralpha/derper", "refs/heads/main"},
		"another branch":      {ours, "refs/heads/mallory"},
		"a pull request":      {ours, "refs/pull/7/merge"},
		"a tag of that name":  {ours, "refs/tags/main"},
		"other letters' case": {"https://github.com/XavierAlpha/derper", "refs/heads/main"},
	} {
		// cosign compares the name of the repository, and not the GitHub that has it:
		// that is in the subject.
		list[name] = stranger{sigstoretest.CalledBy(at.repository, at.ref, identity), "was signed by identity " + identity + " of " + sigstoretest.Issuer +
			" for a run of " + at.repository + " at " + at.ref + notOf, name != "another GitHub"}
	}
	return list
}

// ourSet is a small image, and what a run of ours states about it.
func ourSet(t testing.TB) (*attest.Set, v1.ImageIndex) {
	t.Helper()
	b := attesttest.Build(t, nil)
	b.Run = attest.Run{Builder: sigstoretest.RunOf(identity).Workflow}
	return attesttest.Set(t, b), b.Index
}

// signerFor is a signer as a run of a workflow is one.
func signerFor(t testing.TB, fake *sigstoretest.Sigstore, run sigstoretest.Run) *Signer {
	t.Helper()
	fake.Certify(run)
	s, err := NewKeylessSigner(t.Context(), open(t, fake), GitHub{fake.TokenURL, fake.Bearer})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// plant signs statements and attaches them, without the checks of Attach.
func plant(t testing.TB, signer *Signer, list []attest.Statement, to *registry.Repository) {
	t.Helper()
	for _, s := range list {
		bundle, err := signer.Sign(t.Context(), s.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, subject := range s.Subjects {
			a, err := newArtifact(subject.Descriptor, s.Type, bundle)
			if err == nil {
				_, err = to.Attach(t.Context(), a)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The mistake it guards: whoever calls our workflow signs in our name. What a run signed
// that is not one of our repository, on our branch, counts neither for who verifies nor
// for the signer who checks whether an image is signed. The refusal names the run, and our
// signature is attached beside the other.
func TestStrangers(t *testing.T) {
	set, index := ourSet(t)
	fake := sigstoretest.New(t, identity)
	us := signerFor(t, fake, sigstoretest.RunOf(identity))
	trust, err := TrustIdentity(open(t, fake).Root, Identity{Subject: identity, Issuer: sigstoretest.Issuer})
	if err != nil {
		t.Fatal(err)
	}
	if us.Trust.String() != trust.String() || us.Trust.Flags() != "--issuer "+sigstoretest.Issuer+" --identity "+identity {
		t.Errorf("a signer is %s, %s", us.Trust, us.Trust.Flags())
	}
	list := statements(t, set)
	for name, s := range strangers() {
		them := signerFor(t, fake, s.run)
		for _, statement := range list {
			bundle, err := them.Sign(t.Context(), statement.Payload)
			if err != nil {
				t.Fatal(err)
			}
			for who, trust := range map[string]*Trust{"verifier": trust, "signer": us.Trust} {
				if _, err := trust.Verify(bundle, statement.Subjects[0].Descriptor.Digest); err == nil || !strings.Contains(err.Error(), s.says) {
					t.Errorf("%s, %s: %v, wants %q", name, who, err, s.says)
				}
			}
		}
	}
	w, readable := pushed(t, registrytest.Memory(t, registrytest.Options{}), "derper", index)
	stranger := strangers()["another repository"]
	plant(t, signerFor(t, fake, stranger.run), statements(t, set), w)
	checked, err := Check(t.Context(), readable, index, us.Trust)
	if !errors.Is(err, ErrUnverified) || !strings.Contains(err.Error(), "9 of 9 statements are missing or refused") {
		t.Fatal(err)
	}
	for _, typ := range attest.Types {
		if why := checked[0].Problems[typ]; !strings.Contains(why, stranger.says) {
			t.Errorf("%s: %q, wants %q", typ, why, stranger.says)
		}
	}
	if got := attach(t, set, us, w); got[0].Attached != 9 {
		t.Errorf("we sign: %+v", got)
	}
	if _, err := Check(t.Context(), readable, index, trust); err != nil {
		t.Errorf("what we signed: %v", err)
	}
}

// The mistake it guards: --signer-repository trusts more than it says. It names the
// repository of the run, and the ref where that is another one than the identity's.
func TestSignerRepository(t *testing.T) {
	set, _ := ourSet(t)
	fake := sigstoretest.New(t, identity)
	statement := statements(t, set)[0]
	about := statement.Subjects[0].Descriptor.Digest
	bundleOf := func(run sigstoretest.Run) []byte {
		bundle, err := signerFor(t, fake, run).Sign(t.Context(), statement.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return bundle
	}
	mainOfTheirs, tagOfTheirs := bundleOf(sigstoretest.CalledBy(theirs, "refs/heads/main", identity)), bundleOf(sigstoretest.CalledBy(theirs, "refs/tags/v1", identity))
	our := bundleOf(sigstoretest.RunOf(identity))
	for _, test := range []struct {
		repository string
		bundle     []byte
		trusted    bool
	}{
		{"", our, true},
		{ours, our, true},
		{ours + "@refs/heads/main", our, true},
		{ours + "@refs/tags/v1", our, false},
		{theirs, mainOfTheirs, true},
		{theirs, tagOfTheirs, false},
		{theirs, our, false},
		{theirs + "@refs/tags/v1", tagOfTheirs, true},
		{theirs + "@refs/tags/v1", mainOfTheirs, false},
		{theirs + "@refs/tags/v", tagOfTheirs, false},
	} {
		trust, err := TrustIdentity(open(t, fake).Root, Identity{Subject: identity, Issuer: sigstoretest.Issuer, Repository: test.repository})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Verify(test.bundle, about); (err == nil) != test.trusted || !test.trusted && !errors.Is(err, ErrOtherRun) {
			t.Errorf("%q: %v", test.repository, err)
		}
		if test.repository != "" && !strings.HasSuffix(trust.Flags(), " --signer-repository "+test.repository) {
			t.Errorf("%q: the flags to verify it are %s", test.repository, trust.Flags())
		}
	}
	// Whoever shares a workflow with others trusts the own runs of it, and says so.
	shared := signerFor(t, fake, sigstoretest.CalledBy(theirs, "refs/tags/v1", identity)).Trust
	if _, err := shared.Verify(tagOfTheirs, about); err != nil || !strings.HasSuffix(shared.Flags(), " --signer-repository "+theirs+"@refs/tags/v1") {
		t.Errorf("%s: %v", shared.Flags(), err)
	}
	if _, err := shared.Verify(our, about); !errors.Is(err, ErrOtherRun) {
		t.Errorf("another's run: %v", err)
	}
	for _, id := range []Identity{
		{Subject: ours, Issuer: sigstoretest.Issuer},
		{Subject: "mallory@example.com", Issuer: sigstoretest.Issuer},
		{Subject: ours + "/.github/workflows/sign.yml", Issuer: sigstoretest.Issuer},
		{Subject: ours + "/.github/workflows/sign.yml@", Issuer: sigstoretest.Issuer + "/enterprise"},
		{Subject: identity, Issuer: sigstoretest.Issuer, Repository: "mallory/x"},
		{Subject: identity, Issuer: sigstoretest.Issuer, Repository: theirs + "/"},
	} {
		if _, err := TrustIdentity(open(t, fake).Root, id); err == nil || !strings.Contains(err.Error(), "expected https://") {
			t.Errorf("%+v: %v", id, err)
		}
	}
}

// The mistake it guards: one rebuilder counts as two, since the repository of its runs is
// written out once and not the other time.
func TestOverlaps(t *testing.T) {
	root := open(t, sigstoretest.New(t, identity)).Root
	const other = "https://accounts.example.com"
	trust := func(subject, issuer, repository string) *Trust {
		t.Helper()
		trust, err := TrustIdentity(root, Identity{Subject: subject, Issuer: issuer, Repository: repository})
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	keys := []*Trust{newSigner(t, newKey(t)).Trust, newSigner(t, newKey(t)).Trust}
	whole := trust(identity, sigstoretest.Issuer, "")
	for _, test := range []struct {
		name string
		a, b *Trust
		want bool
	}{
		{"a key", keys[0], keys[0], true},
		{"two keys", keys[0], keys[1], false},
		{"a key and an identity", keys[0], whole, false},
		{"the repository of the identity", whole, trust(identity, sigstoretest.Issuer, ours), true},
		{"and its ref", whole, trust(identity, sigstoretest.Issuer, ours+"@refs/heads/main"), true},
		{"another ref", whole, trust(identity, sigstoretest.Issuer, ours+"@refs/tags/v1"), false},
		{"another repository", whole, trust(identity, sigstoretest.Issuer, theirs), false},
		{"another issuer", whole, trust(identity, other, ours+"@refs/heads/main"), false},
		{"any run", trust("a@example.com", other, ""), trust("a@example.com", other, theirs), true},
	} {
		if test.a.Overlaps(test.b) != test.want || test.b.Overlaps(test.a) != test.want {
			t.Errorf("%s: overlaps: %v, wants %v", test.name, test.a.Overlaps(test.b), test.want)
		}
	}
}

// The mistake it guards: provenance that somebody else's build has, or that is of another
// form, counts because the right workflow signed it.
func TestProvenance(t *testing.T) {
	fake := sigstoretest.New(t, identity)
	about := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
	statement := func(buildType, builder string) []byte {
		return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,`+
			`"predicate":{"buildDefinition":{"buildType":%q},"runDetails":{"builder":{"id":%q}}}}`, about.Hex, attest.SLSA, buildType, builder)
	}
	own := sigstoretest.RunOf(identity)
	unnamed := own
	unnamed.Workflow = ""
	byKey := newSigner(t, newKey(t))
	keyless, silent := signerFor(t, fake, own), signerFor(t, fake, unnamed)
	for _, test := range []struct {
		name               string
		signer             *Signer
		buildType, builder string
		says               string // empty if it counts
	}{
		{"ours", keyless, attest.BuildType, own.Workflow, ""},
		{"another repository's builder", keyless, attest.BuildType, theirs + "/.github/workflows/release.yml@refs/heads/main", "names the builder \"" + theirs},
		{"the workflow that was called", keyless, attest.BuildType, identity, "names the builder"},
		{"anybody's builder", keyless, attest.BuildType, ours + "/tree/main/cmd/build", "names the builder"},
		{"no builder", keyless, attest.BuildType, "", `names the builder ""`},
		{"a certificate without a workflow", silent, attest.BuildType, own.Workflow, `signed in a run of ""`},
		{"another build type", keyless, "https://mobyproject.org/buildkit@v1", own.Workflow, `build type "https://mobyproject.org/buildkit@v1"`},
		{"no build type", keyless, "", own.Workflow, `build type ""`},
		{"a key", byKey, attest.BuildType, "anybody", ""},
		{"a key, another build type", byKey, "https://mobyproject.org/buildkit@v1", "anybody", "is not this project's"},
	} {
		bundle, err := test.signer.Sign(t.Context(), statement(test.buildType, test.builder))
		if err != nil {
			t.Fatal(err)
		}
		_, err = test.signer.Trust.Verify(bundle, about)
		if (test.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, wants %q", test.name, err, test.says)
		}
	}
}

// The mistake it guards: a release is published with signatures that nobody trusts. A
// signer attaches nothing that it would not trust itself.
func TestAttachNothingUntrusted(t *testing.T) {
	set, index := ourSet(t)
	fake := sigstoretest.New(t, identity)
	w, _ := pushed(t, registrytest.Memory(t, registrytest.Options{}), "derper", index)
	silent := sigstoretest.RunOf(identity)
	silent.Repository = ""
	builder := sigstoretest.RunOf(identity)
	builder.Workflow = ours + "/.github/workflows/other.yml@refs/heads/main"
	for says, run := range map[string]sigstoretest.Run{"that its certificate does not name": silent, "names the builder": builder} {
		_, err := Attach(t.Context(), statements(t, set), signerFor(t, fake, run), []*registry.Repository{w}, func(int, int) {})
		if err == nil || !strings.Contains(err.Error(), "what was signed does not count") || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, wants %q", err, says)
		}
	}
}

// The mistake it guards: what others attach to an image takes all the memory, or all
// day. There is a bound on how many bundles are read, and on the size of each.
func TestBounds(t *testing.T) {
	_, index := ourSet(t)
	r := registrytest.Memory(t, registrytest.Options{})
	subject, err := attest.Subjects(index)
	if err != nil {
		t.Fatal(err)
	}
	attachTo := func(w *registry.Repository, bundle []byte) {
		t.Helper()
		a, err := newArtifact(subject[0].Descriptor, attest.Signature, bundle)
		if err == nil {
			_, err = w.Attach(t.Context(), a)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	large, readable := pushed(t, r, "large", index)
	attachTo(large, make([]byte, largestBundle))
	if got, err := Bundles(t.Context(), readable, subject[0].Descriptor.Digest); err != nil || len(got) != 1 {
		t.Errorf("the largest: %d, %v", len(got), err)
	}
	attachTo(large, make([]byte, largestBundle+1))
	r.Forget()
	if _, err := Bundles(t.Context(), readable, subject[0].Descriptor.Digest); !errors.Is(err, ErrTooMuch) || !strings.Contains(err.Error(), "has 1048577 bytes, more than 1048576") {
		t.Errorf("one that is larger: %v", err)
	}
	many, readable := pushed(t, r, "many", index)
	for i := range mostBundles {
		attachTo(many, fmt.Append(nil, i))
	}
	if got, err := Bundles(t.Context(), readable, subject[0].Descriptor.Digest); err != nil || len(got) != mostBundles {
		t.Errorf("the most: %d, %v", len(got), err)
	}
	attachTo(many, []byte("one more"))
	if _, err := Bundles(t.Context(), readable, subject[0].Descriptor.Digest); !errors.Is(err, ErrTooMuch) || !strings.Contains(err.Error(), "more than 64 bundles") {
		t.Errorf("one more: %v", err)
	}
	if _, err := Check(t.Context(), readable, index, newSigner(t, newKey(t)).Trust); !errors.Is(err, ErrTooMuch) {
		t.Errorf("check: %v", err)
	}
}
