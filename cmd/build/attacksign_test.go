package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
)

const hostileIdentity = "https://github.com/xavieralpha/derper/.github/workflows/sign.yml@refs/heads/main"

// A signature is a bundle and what it is attached to.
type signature struct {
	about     v1.Descriptor
	predicate string
	bundle    []byte
}

// A signing is a good image with all its signatures, by one signer, and what an attack
// makes of them.
type signing struct {
	*testing.T
	w          *hostileWorld
	c          *hostile.Content
	statements []attest.Statement
	list       []signature
	sign       func(payload []byte) []byte
	other      []signature // the same by somebody else
}

// signAll signs statements.
func signAll(t *testing.T, statements []attest.Statement, sign func([]byte) []byte) (list []signature) {
	for _, s := range statements {
		bundle := sign(s.Payload)
		for _, about := range s.Subjects {
			list = append(list, signature{about.Descriptor, s.Type, bundle})
		}
	}
	return list
}

// oneSigns is held while a signer signs: it remembers what it has signed.
var oneSigns sync.Mutex

// by is a signer as a function.
func by(t *testing.T, s *sign.Signer) func([]byte) []byte {
	return func(payload []byte) []byte {
		t.Helper()
		oneSigns.Lock()
		defer oneSigns.Unlock()
		bundle, err := s.Sign(context.WithoutCancel(t.Context()), payload)
		if err != nil {
			t.Fatal(err)
		}
		return bundle
	}
}

// edit changes the bundles' JSON.
func (s *signing) edit(change func(i int, bundle map[string]any)) {
	s.Helper()
	for i := range s.list {
		var parsed map[string]any
		if err := json.Unmarshal(s.list[i].bundle, &parsed); err != nil {
			s.Fatal(err)
		}
		change(i, parsed)
		data, err := json.Marshal(parsed)
		if err != nil {
			s.Fatal(err)
		}
		s.list[i].bundle = data
	}
}

// drop removes the signatures that match.
func (s *signing) drop(match func(signature) bool) {
	var kept []signature
	for _, one := range s.list {
		if !match(one) {
			kept = append(kept, one)
		}
	}
	s.list = kept
}

// again signs the payloads anew, after a change.
func (s *signing) again(change func(payload []byte) []byte) {
	for i := range s.statements {
		s.statements[i].Payload = change(bytes.Clone(s.statements[i].Payload))
	}
	s.list = signAll(s.T, s.statements, s.sign)
}

func material(bundle map[string]any) map[string]any {
	return bundle["verificationMaterial"].(map[string]any)
}

func envelope(bundle map[string]any) map[string]any { return bundle["dsseEnvelope"].(map[string]any) }

// flipBase64 turns over a bit of a value in base64.
func flipBase64(m map[string]any, key string) {
	data, _ := base64.StdEncoding.DecodeString(m[key].(string)) // a bundle's
	data[len(data)/2] ^= 1
	m[key] = base64.StdEncoding.EncodeToString(data)
}

// flipEnd is flipBase64 of the last byte.
func flipEnd(m map[string]any, key string) {
	data, _ := base64.StdEncoding.DecodeString(m[key].(string)) // a bundle's
	data[len(data)-1] ^= 1
	m[key] = base64.StdEncoding.EncodeToString(data)
}

// A forgery is one way in which what is signed is wrong.
type forgery struct {
	name, harmless string

	change func(s *signing)
	answer func(s *signing) hostile.Answer
}

// forgeries are those that a key and an identity meet alike.
var forgeries = []forgery{
	{name: "nothing is signed", change: func(s *signing) { s.list = nil }},
	{name: "somebody else signed it", change: func(s *signing) { s.list = s.other }},
	{name: "only the index is signed", change: func(s *signing) {
		s.drop(func(one signature) bool { return one.about.Digest.String() != s.c.Index })
	}},
	{name: "one image is not signed", change: func(s *signing) {
		last := s.list[len(s.list)-1].about.Digest
		s.drop(func(one signature) bool { return one.about.Digest == last })
	}},
	{name: "there is no SBOM", change: func(s *signing) { s.drop(func(one signature) bool { return one.predicate == attest.SPDX }) }},
	{name: "there is no provenance", change: func(s *signing) { s.drop(func(one signature) bool { return one.predicate == attest.SLSA }) }},
	{name: "only the provenance is by somebody else", change: func(s *signing) {
		for i, one := range s.list {
			if one.predicate == attest.SLSA {
				s.list[i] = s.other[i]
			}
		}
	}},
	{name: "statements about other images are attached", change: func(s *signing) {
		first, last := s.list[0].about, s.list[len(s.list)-1].about
		for i := range s.list {
			switch s.list[i].about.Digest {
			case first.Digest:
				s.list[i].about = last
			case last.Digest:
				s.list[i].about = first
			}
		}
	}},
	{name: "signatures of the good image on another", change: func(s *signing) {
		good := s.c.Index
		evil := s.w.good.Evil(s, s.c)
		s.c.Edit(s, func(m *v1.IndexManifest) {
			was := m.Manifests[0].Digest.String()
			m.Manifests[0].Digest, m.Manifests[0].Size = evil.Digest, evil.Size
			for _, d := range m.Manifests {
				for name, value := range d.Annotations {
					d.Annotations[name] = strings.ReplaceAll(value, was, evil.Digest.String())
				}
			}
		})
		for i := range s.list {
			if s.list[i].about.Digest.String() == good {
				s.list[i].about = s.c.Descriptor()
			}
		}
	}},
	{name: "a statement was changed after it was signed", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) { flipBase64(envelope(b), "payload") })
	}},
	{name: "a signature was changed", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) {
			flipEnd(envelope(b)["signatures"].([]any)[0].(map[string]any), "sig")
		})
	}},
	{name: "an empty signature", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) { envelope(b)["signatures"].([]any)[0].(map[string]any)["sig"] = "" })
	}},
	{name: "no signature in the envelope", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) { envelope(b)["signatures"] = []any{} })
	}},
	{name: "another type of the payload", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) { envelope(b)["payloadType"] = "text/plain" })
	}},
	{name: "no material to verify with", change: func(s *signing) { s.edit(func(_ int, b map[string]any) { delete(b, "verificationMaterial") }) }},
	{name: "bundles that are no JSON", change: func(s *signing) {
		for i := range s.list {
			s.list[i].bundle = []byte("evil\x1b[2J")
		}
	}},
	{name: "bundles of an unknown version", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle.v9+json" })
	}},
	{name: "a signed statement that is about nothing", change: func(s *signing) { s.again(setSubjects(s.T, func(any) any { return []any{} })) }},
	{name: "a signed statement that is about SHA-512", change: func(s *signing) {
		s.again(setSubjects(s.T, func(list any) any {
			for _, one := range list.([]any) {
				one.(map[string]any)["digest"] = map[string]any{"sha512": strings.Repeat("0", 128)}
			}
			return list
		}))
	}},
	{name: "a referrer that is not there", change: func(s *signing) { s.c.Refer(s.c.Index, hostile.Digest([]byte("evil"))) }},
	{name: "300 referrers", change: func(s *signing) {
		for range 300 {
			s.c.Refer(s.c.Index, s.c.Put(append([]byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json"`), bytes.Repeat([]byte(" "), len(s.c.Blobs))...)))
		}
	}},
	{name: "a list of referrers without an end", answer: func(s *signing) hostile.Answer {
		return func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, "/referrers/") {
				return false
			}
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			w.Write([]byte(`{"manifests":[`))
			for {
				if _, err := w.Write(bytes.Repeat([]byte("  "), 1<<15)); err != nil {
					return true
				}
			}
		}
	}},
	{name: "a bundle that is said to have 8 EB", answer: func(s *signing) hostile.Answer {
		list := s.c.Referrers[s.c.Index]
		m, err := v1.ParseManifest(bytes.NewReader(s.c.Blobs[list[0].Digest.String()]))
		if err != nil {
			s.Fatal(err)
		}
		m.Layers[0].Size = 1 << 62
		data, err := json.Marshal(m)
		if err != nil {
			s.Fatal(err)
		}
		s.c.Referrers[s.c.Index] = nil
		s.c.Refer(s.c.Index, s.c.Put(data))
		return nil
	}},
	{name: "a list of referrers that is a web page", answer: func(*signing) hostile.Answer {
		return func(w http.ResponseWriter, req *http.Request) bool {
			if strings.Contains(req.URL.Path, "/referrers/") {
				w.Header().Set("Content-Type", "text/html")
				w.Write([]byte("verified"))
				return true
			}
			return false
		}
	}},
}

// setSubjects changes the subjects of a statement.
func setSubjects(t *testing.T, change func(any) any) func([]byte) []byte {
	return func(payload []byte) []byte {
		t.Helper()
		var s map[string]any
		err := json.Unmarshal(payload, &s)
		if err == nil {
			s["subject"] = change(s["subject"])
			payload, err = json.Marshal(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return payload
	}
}

// impersonations are those that only an identity meets.
var impersonations = []forgery{
	{name: "a key signed it", change: func(s *signing) { s.list = signAll(s.T, s.statements, by(s.T, fileSigner(s.T, newKeyFile(s.T)))) }},
	{name: "it is in no log", change: func(s *signing) { s.edit(func(_ int, b map[string]any) { delete(material(b), "tlogEntries") }) }},
	{name: "the log's entry is of another signature", change: func(s *signing) {
		var first any
		s.edit(func(i int, b map[string]any) {
			if i == 0 {
				first = material(b)["tlogEntries"]
			}
			material(b)["tlogEntries"] = first
		})
		s.drop(func(one signature) bool { return bytes.Equal(one.bundle, s.list[0].bundle) })
	}},
	{name: "another root of the log's tree in the proof", harmless: "the root that counts is the one that the log signed", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) {
			flipBase64(material(b)["tlogEntries"].([]any)[0].(map[string]any)["inclusionProof"].(map[string]any), "rootHash")
		})
	}},
	{name: "the log did not sign its tree", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) {
			proof := material(b)["tlogEntries"].([]any)[0].(map[string]any)["inclusionProof"].(map[string]any)
			checkpoint := proof["checkpoint"].(map[string]any)
			text := checkpoint["envelope"].(string)
			checkpoint["envelope"] = text[:strings.Index(text, "\n\n")+2]
		})
	}},
	{name: "there is no timestamp", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) { delete(material(b), "timestampVerificationData") })
	}},
	{name: "the timestamp is of another signature", change: func(s *signing) {
		var first any
		s.edit(func(i int, b map[string]any) {
			if i == 0 {
				first = material(b)["timestampVerificationData"]
			}
			material(b)["timestampVerificationData"] = first
		})
		s.list = s.list[1:]
	}},
	{name: "the certificate is of another key", change: func(s *signing) {
		mine := map[int]any{}
		s.edit(func(i int, b map[string]any) { mine[i] = material(b)["certificate"] })
		s.list, s.other = s.other, s.list
		s.edit(func(i int, b map[string]any) { material(b)["certificate"] = mine[i] })
	}},
	{name: "provenance by another builder", change: func(s *signing) {
		s.again(func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("/release.yml@"), []byte("/evil.yml@")) })
	}},
	{name: "provenance of another build type", change: func(s *signing) {
		s.again(func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(attest.BuildType), []byte("https://example.com/evil"))
		})
	}},
	{name: "the certificate was changed", change: func(s *signing) {
		s.edit(func(_ int, b map[string]any) { flipEnd(material(b)["certificate"].(map[string]any), "rawBytes") })
	}},
}

// signatures are the rows of attacks on who signed an image.
func (w *hostileWorld) signatures(t *testing.T) (rows []encounter) {
	add := func(kind, command string, flags []string, statements []attest.Statement, good, bad []signature, sign func([]byte) []byte, list ...forgery) {
		for _, f := range list {
			rows = append(rows, encounter{kind, f.name, command, f.harmless, func(t *testing.T) met {
				s := &signing{T: t, w: w, c: w.good.Content.Clone(), statements: slices.Clone(statements),
					list: slices.Clone(good), other: slices.Clone(bad), sign: sign}
				if f.change != nil {
					f.change(s)
				}
				for _, one := range s.list {
					s.c.AttachTo(t, one.about, one.predicate, one.bundle)
				}
				var answer hostile.Answer
				if f.answer != nil {
					answer = f.answer(s)
				}
				return verdictOfSignatures(program(t, w.around, append(append([]string{"verify-signature"}, flags...), s.c.Serve(t, answer))...))
			}})
		}
	}
	right := forgery{name: "nothing is wrong", harmless: "or the rows below would prove nothing"}

	statements := w.statements(t, "")
	private, _ := keyPair(t)
	byKey := by(t, w.signer)
	add("Signatures by a key", "verify-signature --key", []string{"--key", w.public}, statements,
		signAll(t, statements, byKey), signAll(t, statements, by(t, fileSigner(t, private))), byKey, append([]forgery{right}, forgeries...)...)

	ours, theirs := sigstoretest.New(t, hostileIdentity), sigstoretest.New(t, hostileIdentity)
	run := sigstoretest.RunOf(hostileIdentity)
	statements = w.statements(t, run.Workflow)
	keyless := by(t, keylessSigner(t, ours, run))
	flags := []string{"--identity", hostileIdentity, "--issuer", sigstoretest.Issuer, "--trusted-root", ours.TrustedRoot}
	add("Signatures by an identity", "verify-signature --identity", flags, statements,
		signAll(t, statements, keyless), signAll(t, statements, by(t, keylessSigner(t, theirs, run))), keyless,
		slices.Concat([]forgery{right}, forgeries, impersonations)...)

	for _, c := range certificates {
		statements := w.statements(t, c.run.Workflow)
		list := signAll(t, statements, by(t, keylessSigner(t, ours, c.run)))
		add("Certificates", "verify-signature --identity", flags, statements, list, nil, nil, forgery{name: c.name})
	}
	ours.Certify(run) // for what is signed anew
	return rows
}

// statements are what is signed of the good image, with provenance by a builder.
func (w *hostileWorld) statements(t *testing.T, builder string) []attest.Statement {
	t.Helper()
	l, err := lock.Read(w.lock)
	if err != nil {
		t.Fatal(err)
	}
	index, err := registry.OpenIndex(t.Context(), w.good.Content.Layout(t))
	if err != nil {
		t.Fatal(err)
	}
	set, err := attest.Make(t.Context(), attest.Build{Lock: l, Index: index, Run: attest.Run{Builder: builder}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := set.Statements()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// keylessSigner signs in a run.
func keylessSigner(t *testing.T, fake *sigstoretest.Sigstore, run sigstoretest.Run) *sign.Signer {
	t.Helper()
	fake.Certify(run)
	instance, err := openSigstore(t.Context(), sigstoreFiles{fake.TrustedRoot, fake.SigningConfig})
	if err != nil {
		t.Fatal(err)
	}
	s, err := sign.NewKeylessSigner(t.Context(), instance, sign.GitHub{URL: fake.TokenURL, Bearer: fake.Bearer})
	if err != nil {
		t.Fatalf("%+v: %v", run, err)
	}
	return s
}

// hostileRepository is that of the identity.
const hostileRepository = "https://github.com/xavieralpha/derper"

// certificates are for the right identity and for a run that may be a stranger's: anybody
// may call a public workflow.
var certificates = []struct {
	name string
	run  sigstoretest.Run
}{
	{"the workflow was called by another repository", sigstoretest.CalledBy("https://github.com/mallory/derper", "refs/heads/main", hostileIdentity)},
	{"the workflow was called by a repository with a longer name", sigstoretest.CalledBy(hostileRepository+"-evil", "refs/heads/main", hostileIdentity)},
	{"the workflow was called by a repository with a shorter name", sigstoretest.CalledBy("https://github.com/xavieralpha/derp", "refs/heads/main", hostileIdentity)},
	{"the workflow was called by a repository with a dot in its path", sigstoretest.CalledBy("https://github.com/xavieralpha/./derper", "refs/heads/main", hostileIdentity)},
	{"the workflow was called by the repository of another server", sigstoretest.CalledBy("https://example.com/xavieralpha/derper", "refs/heads/main", hostileIdentity)},
	{"the workflow was called from a branch of somebody's", sigstoretest.CalledBy(hostileRepository, "refs/heads/evil", hostileIdentity)},
	{"the workflow was called from a pull request", sigstoretest.CalledBy(hostileRepository, "refs/pull/1/merge", hostileIdentity)},
	{"the workflow was called from a tag of the branch's name", sigstoretest.CalledBy(hostileRepository, "refs/tags/main", hostileIdentity)},
	{"the certificate names no repository", sigstoretest.Run{Ref: "refs/heads/main", Workflow: hostileRepository + "/.github/workflows/release.yml@refs/heads/main", Signer: hostileIdentity}},
	{"the certificate names no branch", sigstoretest.Run{Repository: hostileRepository, Workflow: hostileRepository + "/.github/workflows/release.yml@refs/heads/main", Signer: hostileIdentity}},
	{"the certificate names another workflow that signs", sigstoretest.Run{Repository: hostileRepository, Ref: "refs/heads/main", Workflow: hostileRepository + "/.github/workflows/release.yml@refs/heads/main", Signer: "https://github.com/mallory/derper/.github/workflows/sign.yml@refs/heads/main"}},
	{"the certificate names no workflow that signs", sigstoretest.Run{Repository: hostileRepository, Ref: "refs/heads/main", Workflow: hostileRepository + "/.github/workflows/release.yml@refs/heads/main"}},
	{"the certificate names no workflow that was started", sigstoretest.Run{Repository: hostileRepository, Ref: "refs/heads/main", Signer: hostileIdentity}},
	{"the certificate names a repository with an escape", sigstoretest.CalledBy("https://github.com/\x1b[2J", "refs/heads/main", hostileIdentity)},
}

// verdictOfSignatures shows the first reason of a report before the error.
func verdictOfSignatures(m met) met {
	for line := range strings.Lines(m.stdout) {
		if _, reason, ok := strings.Cut(line, ": "); ok && m.code != 0 {
			m.stderr = "build: " + reason
			break
		}
	}
	return m
}
