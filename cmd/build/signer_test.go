package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
)

// The mistake it guards: a release is found to be signed, and not signed anymore, because
// a stranger whose workflow called ours has signed it. Build release looks as the signer
// of the release does.
func TestSignedByAStranger(t *testing.T) {
	const identity = "https://github.com/xavieralpha/derper/.github/workflows/sign.yml@refs/heads/main"
	fake := sigstoretest.New(t, identity)
	server := registrytest.Memory(t, registrytest.Options{})
	b := attesttest.Build(t, nil)
	digest, err := b.Index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(server.Repository("derper") + "@" + digest.String())
	if err == nil {
		err = remote.WriteIndex(ref, b.Index)
	}
	if err != nil {
		t.Fatal(err)
	}
	repository, err := (&registry.Client{}).Open(t.Context(), ref.String(), registry.Push)
	if err != nil {
		t.Fatal(err)
	}
	signer := func(run sigstoretest.Run) *signFlags {
		t.Helper()
		fake.Certify(run)
		e := standard()
		e.stdout, e.stderr, e.quiet = io.Discard, io.Discard, true
		e.getenv = func(name string) string {
			return map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": fake.TokenURL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": fake.Bearer}[name]
		}
		f := &signFlags{env: &e, keyless: true, sigstoreFiles: sigstoreFiles{root: fake.TrustedRoot, config: fake.SigningConfig}}
		if err := f.makeSigner(context.Background()); err != nil {
			t.Fatal(err)
		}
		return f
	}
	signs := func(f *signFlags, run sigstoretest.Run) {
		t.Helper()
		b.Run = attest.Run{Builder: run.Workflow}
		list, err := attesttest.Set(t, b).Statements()
		if err == nil {
			_, err = sign.Attach(t.Context(), list, f.signer, []*registry.Repository{repository}, func(int, int) {})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	signed := func(f *signFlags, want bool) {
		t.Helper()
		if got, err := f.Signed(t.Context(), []string{ref.String()}); got != want || err != nil {
			t.Errorf("%s: signed: %v, %v; want %v", f, got, err, want)
		}
	}
	our, theirs := sigstoretest.RunOf(identity), sigstoretest.CalledBy("https://github.com/mallory/x", "refs/heads/main", identity)
	us := signer(our)
	signed(us, false)
	mallory := signer(theirs)
	signs(mallory, theirs)
	signed(mallory, true)
	signed(us, false)
	signs(us, our)
	signed(us, true)
	if us.Command() != "build verify-signature --issuer "+sigstoretest.Issuer+" --identity "+identity {
		t.Errorf("the notes of a release say %s", us.Command())
	}
	if !strings.HasSuffix(mallory.Command(), " --signer-repository https://github.com/mallory/x@refs/heads/main") {
		t.Errorf("the notes of a stranger's release say %s", mallory.Command())
	}
}
