package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	reference "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
)

// cosignVersion is the cosign that must be able to read what is pushed.
const cosignVersion = "v3.1.3"

// cosignProgram is the real cosign, compiled once and kept in the user's cache.
var cosignProgram = sync.OnceValues(func() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(user, "derper-test", "tools")
	name := filepath.Join(dir, "cosign-"+cosignVersion)
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "install-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.Command("go", "install", "github.com/sigstore/cosign/v3/cmd/cosign@"+cosignVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+tmp, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(err.Error() + ": " + string(out))
	}
	return name, os.Rename(filepath.Join(tmp, "cosign"), name)
})

// A shell runs cosign in a home of its own, and keeps all that it says.
type shell struct {
	t   testing.TB
	env []string
}

func newShell(t testing.TB, env ...string) *shell {
	t.Helper()
	home := t.TempDir()
	return &shell{t, append([]string{"HOME=" + home, "DOCKER_CONFIG=" + home, "PATH=" + os.Getenv("PATH")}, env...)}
}

func (s *shell) cosign(args ...string) (stdout string, err error) {
	s.t.Helper()
	program, err := cosignProgram()
	if err != nil {
		s.t.Fatalf("install cosign: %v", err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = s.env
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", errors.New("cosign " + args[0] + ": " + err.Error() + ": " + stderr.String())
	}
	return out.String(), nil
}

// payloads are the statements in what cosign verify-attestation prints, an envelope a
// line.
func payloads(t testing.TB, stdout string) [][]byte {
	t.Helper()
	var list [][]byte
	for line := range strings.Lines(stdout) {
		var envelope struct{ Payload []byte }
		if err := json.Unmarshal([]byte(line), &envelope); err != nil {
			t.Fatal(err)
		}
		list = append(list, envelope.Payload)
	}
	return list
}

// pushed opens a repository of a test's registry and pushes an image there.
func pushed(t testing.TB, r *registrytest.Registry, name string, index v1.ImageIndex) (w, readable *registry.Repository) {
	t.Helper()
	client := &registry.Client{Keychain: registrytest.Keychain(r), Base: r.Transport}
	w, err := client.Open(t.Context(), r.Repository(name), registry.Push)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := reference.NewDigest(r.Repository(name) + "@" + digest.String())
	if err == nil {
		err = remote.WriteIndex(ref, index, remote.WithTransport(r.Transport), remote.WithAuthFromKeychain(registrytest.Keychain(r)))
	}
	if err != nil {
		t.Fatal(err)
	}
	readable, err = client.Open(t.Context(), r.Repository(name), registry.Pull)
	if err != nil {
		t.Fatal(err)
	}
	return w, readable
}

func statements(t testing.TB, set *attest.Set) []attest.Statement {
	t.Helper()
	list, err := set.Statements()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func attach(t testing.TB, set *attest.Set, signer *Signer, to ...*registry.Repository) []Attached {
	t.Helper()
	last := 0
	results, err := Attach(t.Context(), statements(t, set), signer, to, func(done, total int) {
		if done != last+1 || total != 9*len(to) {
			t.Errorf("step %d of %d after step %d", done, total, last)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// The real cosign verifies what was attached: with its own encrypted key, with an
// Ed25519 key and keyless, on a registry that has the referrers API and on one that has
// not, the index and an image in it. It refuses another key and another identity.
func TestCosign(t *testing.T) {
	need.AWeek(t, "compiling cosign")
	const password = "hush-hush"
	dir := t.TempDir()
	sh := newShell(t, "COSIGN_PASSWORD="+password)
	if _, err := sh.cosign("generate-key-pair", "--output-key-prefix", filepath.Join(dir, "cosign")); err != nil {
		t.Fatal(err)
	}
	encryptedKey, err := os.ReadFile(filepath.Join(dir, "cosign.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(encryptedKey, func() ([]byte, error) { return []byte(password), nil })
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	publicFile := func(key crypto.PublicKey) string {
		name := filepath.Join(t.TempDir(), "key.pub")
		if err := os.WriteFile(name, encodePEM(t, "PUBLIC KEY", key, x509.MarshalPKIXPublicKey), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	asWorkflow, fake, _ := keyless(t)
	byKey := func(file string) []string { return []string{"--key", file, "--insecure-ignore-tlog=true"} }
	byIdentity := func(identity string) []string {
		return []string{"--trusted-root", fake.TrustedRoot, "--certificate-identity", identity, "--certificate-oidc-issuer", sigstoretest.Issuer}
	}
	documented := append([]string{"--trusted-root", fake.TrustedRoot}, documentedFlags(t)...)
	set, index := ourSet(t)
	b := attesttest.Build(t, nil) // which is the same
	for where, r := range map[string]*registrytest.Registry{"distribution": registrytest.Distribution(t, registrytest.Options{}), "with referrers": registrytest.Memory(t, registrytest.Options{})} {
		for how, test := range map[string]struct {
			signer      *Signer
			trust, with []string
		}{
			"cosign":  {newSigner(t, key), byKey(filepath.Join(dir, "cosign.pub")), byKey(publicFile(newKey(t).Public()))},
			"ed25519": {newSigner(t, ed), byKey(publicFile(ed.Public())), byKey(publicFile(newKey(t).Public()))},
			"keyless": {asWorkflow, documented, byIdentity("https://github.com/mallory/derper")},
		} {
			t.Run(where+", "+how, func(t *testing.T) {
				sh.t = t
				w, _ := pushed(t, r, how, index)
				attach(t, set, test.signer, w)
				document := known(t, b, 0, []*registry.Repository{w}, "GO-1")
				if _, err := Attach(t.Context(), []attest.Statement{document}, test.signer, []*registry.Repository{w}, func(int, int) {}); err != nil {
					t.Fatal(err)
				}
				for i, subject := range set.Subjects[:2] {
					ref := w.String() + "@" + subject.Descriptor.Digest.String()
					out, err := sh.cosign(append([]string{"verify", ref}, test.trust...)...)
					if err != nil || !strings.Contains(out, subject.Descriptor.Digest.String()) {
						t.Errorf("verify %s: %v: %s", ref, err, out)
					}
					for name, want := range map[string][]byte{"slsaprovenance1": set.Provenance, "spdxjson": set.SBOMs[i], "openvex": document.Payload} {
						out, err := sh.cosign(append([]string{"verify-attestation", "--type", name, ref}, test.trust...)...)
						if err != nil {
							t.Error(err)
							continue
						}
						got := payloads(t, out)
						if name == "spdxjson" {
							want = mustStatement(t, set, attest.SPDX, i)
						}
						if len(got) != 1 || !bytes.Equal(got[0], want) {
							t.Errorf("verify-attestation --type %s %s: %d statements, or another than was attached", name, ref, len(got))
						}
					}
					if out, err := sh.cosign(append([]string{"verify", ref}, test.with...)...); err == nil {
						t.Errorf("cosign trusts %v: %s", test.with, out)
					}
				}
			})
		}
	}
}

// documentedFlags are those of the lines in docs/attestations.md by which anybody
// verifies an image of this project with cosign.
func documentedFlags(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/attestations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, flags, ok := strings.Cut(string(text), "\nwho='")
	flags, _, closed := strings.Cut(flags, "'\n")
	if !ok || !closed || !strings.Contains(flags, identity) {
		t.Fatalf("the flags for cosign: %q", flags)
	}
	return strings.Fields(flags)
}

// The mistake it guards: the documented lines trust whoever calls our workflow. The real
// cosign refuses what a run of another repository signed, or of another branch of ours,
// or with a certificate that does not say; without the repository it trusts a stranger.
func TestCosignOtherRun(t *testing.T) {
	need.AWeek(t, "compiling cosign")
	sh := newShell(t)
	r := registrytest.Memory(t, registrytest.Options{})
	set, index := ourSet(t)
	fake := sigstoretest.New(t, identity)
	byIdentity := []string{"--trusted-root", fake.TrustedRoot, "--certificate-identity", identity, "--certificate-oidc-issuer", sigstoretest.Issuer}
	documented := append([]string{"--trusted-root", fake.TrustedRoot}, documentedFlags(t)...)
	for name, stranger := range strangers() {
		t.Run(name, func(t *testing.T) {
			sh.t = t
			w, _ := pushed(t, r, strings.NewReplacer(" ", "-", "'", "").Replace(strings.ToLower(name)), index)
			plant(t, signerFor(t, fake, stranger.run), statements(t, set), w)
			ref := w.String() + "@" + set.Subjects[0].Descriptor.Digest.String()
			for _, command := range [][]string{{"verify"}, {"verify-attestation", "--type", "slsaprovenance1"}, {"verify-attestation", "--type", "spdxjson"}} {
				if out, err := sh.cosign(slices.Concat(command, documented, []string{ref})...); (err == nil) == stranger.cosign {
					t.Errorf("cosign %s, as documented: %v: %s", command, err, out)
				}
				if out, err := sh.cosign(slices.Concat(command, byIdentity, []string{ref})...); err != nil {
					t.Errorf("cosign %s, by subject and issuer alone: the signature does not hold, so it shows nothing: %v: %s", command, err, out)
				}
			}
		})
	}
}

func mustStatement(t testing.TB, set *attest.Set, typ string, subject int) []byte {
	t.Helper()
	statements, err := set.Statements()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(statements, func(s attest.Statement) bool {
		return s.Type == typ && s.Subjects[0].Platform == set.Subjects[subject].Platform
	})
	return statements[i].Payload
}

// A second run attaches nothing, what one repository lacks is copied from another, and
// a repository that does not have the image gets nothing at all.
func TestAttachAgain(t *testing.T) {
	set, index := ourSet(t)
	user := registrytest.Options{Username: "user", Password: "pass-word"}
	r := registrytest.Distribution(t, user)
	asWorkflow, fake, _ := keyless(t)
	first, _ := pushed(t, r, "first", index)
	if got := attach(t, set, asWorkflow, first); got[0].Attached != 9 || got[0].Present != 0 {
		t.Errorf("first run: %+v", got)
	}
	// Three digests, their SBOMs, and the provenance once for all of them.
	if n := fake.Asked("/api/v2/log/entries"); n != 7 {
		t.Errorf("%d entries in the log, not 7", n)
	}
	// Another job of the same workflow has another key, and is the same identity.
	again, err := NewKeylessSigner(t.Context(), open(t, fake), GitHub{fake.TokenURL, fake.Bearer})
	if err != nil {
		t.Fatal(err)
	}
	r.Forget()
	second, readable := pushed(t, r, "second", index)
	r.Forget()
	got := attach(t, set, again, first, second)
	if got[0].Attached != 0 || got[0].Present != 9 || got[1].Attached != 9 {
		t.Errorf("second run: %+v", got)
	}
	if n := fake.Asked("/api/v2/log/entries"); n != 7 {
		t.Errorf("%d entries in the log after the second run, not 7", n)
	}
	for _, q := range r.Requests() {
		if q.Method != "GET" && q.Method != "HEAD" && strings.Contains(q.Path, "/first/") {
			t.Errorf("the second run changes the first repository: %s", q)
		}
	}
	checked, err := Check(t.Context(), readable, index, again.Trust)
	if err != nil || len(checked) != 3 {
		t.Errorf("the copies do not verify: %v, %+v", err, checked)
	}
	// With a key it is another signer, whose signatures stand beside the others.
	if got := attach(t, set, newSigner(t, newKey(t)), first); got[0].Attached != 9 {
		t.Errorf("another signer: %+v", got)
	}
	if _, err := Check(t.Context(), first, index, asWorkflow.Trust); err != nil {
		t.Errorf("a second signer hides the first: %v", err)
	}

	client := &registry.Client{Keychain: registrytest.Keychain(r), Base: r.Transport}
	empty, err := client.Open(t.Context(), r.Repository("empty"), registry.Push)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Attach(t.Context(), statements(t, set), asWorkflow, []*registry.Repository{first, empty}, func(int, int) {})
	if !errors.Is(err, ErrNotThere) || !strings.Contains(err.Error(), "/empty") {
		t.Errorf("attach where the image is not: %v", err)
	}
}

// What is missing is named: everything, or a single statement of a single image.
func TestCheck(t *testing.T) {
	b := attesttest.Build(t, nil)
	set := attesttest.Set(t, b)
	w, readable := pushed(t, registrytest.Memory(t, registrytest.Options{}), "derper", b.Index)
	signer := newSigner(t, newKey(t))
	list, err := Check(t.Context(), readable, b.Index, signer.Trust)
	if !errors.Is(err, ErrUnverified) || !strings.Contains(err.Error(), "9 of 9 statements are missing") {
		t.Errorf("nothing signed: %v", err)
	}
	if why := list[0].Problems[attest.Signature]; why != "is not attached" {
		t.Errorf("nothing signed: %q", why)
	}
	plant(t, signer, slices.DeleteFunc(statements(t, set), func(s attest.Statement) bool {
		return s.Type == attest.SPDX && s.Subjects[0].Platform == "linux/arm/v7"
	}), w)
	list, err = Check(t.Context(), readable, b.Index, signer.Trust)
	if !errors.Is(err, ErrUnverified) || !strings.Contains(err.Error(), "1 of 9 statements") {
		t.Errorf("one statement missing: %v", err)
	}
	if why := list[2].Problems[attest.SPDX]; why != "is not attached" {
		t.Errorf("the SBOM of linux/arm/v7 is missing: %q", why)
	}
	other := newSigner(t, newKey(t)).Trust
	list, err = Check(t.Context(), readable, b.Index, other)
	if !errors.Is(err, ErrUnverified) || list[1].Problems[attest.SLSA] != "is signed by "+signer.Trust.String()+", not by "+other.String() {
		t.Errorf("another key: %v: %v", err, list[1].Problems)
	}
}

// crane reads what was attached: a manifest with a subject, and a bundle.
func TestCrane(t *testing.T) {
	b := attesttest.Build(t, nil)
	set := attesttest.Set(t, b)
	for name, r := range map[string]*registrytest.Registry{"fallback": registrytest.Distribution(t, registrytest.Options{}), "referrers": registrytest.Memory(t, registrytest.Options{})} {
		w, _ := pushed(t, r, "derper", b.Index)
		attach(t, set, newSigner(t, newKey(t)), w)
		subject := set.Subjects[1].Descriptor
		list, err := w.Artifacts(t.Context(), subject.Digest, func(m *v1.Manifest) bool { return m.ArtifactType == BundleType })
		if err != nil || len(list) != 3 {
			t.Fatalf("%s: %d referrers: %v", name, len(list), err)
		}
		for _, d := range list {
			raw, err := crane.Manifest(w.String() + "@" + d.Digest.String())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m, err := v1.ParseManifest(bytes.NewReader(raw))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if m.Subject == nil || m.Subject.Digest != subject.Digest || m.ArtifactType != BundleType || !slices.Contains(attest.Types, m.Annotations["dev.sigstore.bundle.predicateType"]) {
				t.Errorf("%s: %s", name, raw)
			}
			l, err := crane.PullLayer(w.String() + "@" + m.Layers[0].Digest.String())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if size, err := l.Size(); err != nil || size != m.Layers[0].Size {
				t.Errorf("%s: a bundle of %d bytes, not %d: %v", name, size, m.Layers[0].Size, err)
			}
		}
		if tags, err := crane.ListTags(w.String()); name == "referrers" && err == nil && len(tags) > 0 {
			t.Errorf("a registry with the referrers API has tags: %v", tags)
		}
	}
}
