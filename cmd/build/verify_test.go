package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// verifier runs build verify as a process of its own, and looks that it leaves
// nothing behind.
type verifier struct {
	*builder
	temp string
}

func newVerifier(t *testing.T) *verifier {
	b := newBuilder(t)
	b.run("--platform", "all")
	return &verifier{b, t.TempDir()}
}

func (v *verifier) command(args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	cmd, stdout, stderr := v.builder.command()
	cmd.Args = append([]string{"build", "verify"}, args...)
	cmd.Env = append(cmd.Env, "TMPDIR="+v.temp, "COSIGN_PASSWORD=")
	cmd.Dir = v.temp // no checkout
	return cmd, stdout, stderr
}

func (v *verifier) verify(want int, args ...string) (stdout, stderr string) {
	v.t.Helper()
	cmd, out, errs := v.command(args...)
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != want {
		v.t.Errorf("verify %v: exit code %d, want %d (%v)\n%s\n%s", args, code, want, err, out, errs)
	}
	v.clean()
	return out.String(), errs.String()
}

func (v *verifier) clean() {
	v.t.Helper()
	if left, _ := filepath.Glob(filepath.Join(v.temp, "*")); len(left) > 0 {
		v.t.Errorf("left behind: %v", left)
	}
}

// tampered writes the layout again with another annotation in its first image.
func (v *verifier) tampered() string {
	v.t.Helper()
	top, err := layout.ImageIndexFromPath(v.output)
	if err != nil {
		v.t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		v.t.Fatal(err)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		v.t.Fatal(err)
	}
	if manifest, err = index.IndexManifest(); err != nil {
		v.t.Fatal(err)
	}
	var images []v1.Image
	for _, d := range manifest.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			v.t.Fatal(err)
		}
		images = append(images, img)
	}
	images[0] = imagetest.Annotate(v.t, images[0], "evil", "yes")
	in := v.release.Inputs
	n := len(in.Platforms)
	if index, err = image.Index(in, in.Platforms, images[:n], images[n:]...); err != nil {
		v.t.Fatal(err)
	}
	dir := filepath.Join(v.t.TempDir(), "tampered")
	if _, err := image.WriteLayout(dir, "test", index, false); err != nil {
		v.t.Fatal(err)
	}
	return dir
}

// TestVerifyExitCodes guards that the exit code is the verdict, that what is wrong is
// said once and plainly, and that nothing is left behind.
func TestVerifyExitCodes(t *testing.T) {
	v := newVerifier(t)
	trust := []string{"--trust-cache", "--cache", v.cache, "--lock", v.lock}
	with := func(args ...string) []string { return append(trust[:len(trust):len(trust)], args...) }

	v.verify(cli.ExitOK, with(v.output)...)
	tampered := v.tampered()
	// Its revision might make it so, and is nowhere.
	out, errs := v.verify(cli.ExitFailed, with(v.output, tampered)...)
	if !strings.Contains(out, "1 of 2 verified") || !strings.Contains(errs, "--this-program") {
		t.Errorf("does not say what can be done:\n%s\n%s", out, errs)
	}
	out, errs = v.verify(cli.ExitDiffers, with("--this-program", v.output, tampered)...)
	for _, want := range []string{"FAIL  image  linux/amd64", "differs: manifest (1)", `.annotations.evil: image "yes"`, "1 of 2 verified"} {
		if !strings.Contains(out, want) {
			t.Errorf("does not say %q:\n%s", want, out)
		}
	}
	if want := "build: verify: " + tampered + ": differs from what was rebuilt\nhint: "; !strings.Contains(errs, want) {
		t.Errorf("stderr does not say %q:\n%s", want, errs)
	}
	// The platforms that were not tampered with are as they were.
	v.verify(cli.ExitOK, with("--platform", "linux/arm64", tampered)...)

	half := filepath.Join(t.TempDir(), "half.tar")
	if err := os.WriteFile(half, make([]byte, 700), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"./nowhere", half, t.TempDir(), "127.0.0.1:1/derper:1"} {
		out, errs := v.verify(cli.ExitFailed, with(ref)...)
		if !strings.Contains(out, "\nnot verified: "+ref+": ") || !strings.Contains(errs, "build: verify: "+ref+": ") || !strings.Contains(errs, "\nhint: ") {
			t.Errorf("%s: does not say what is wrong, or what to do:\n%s\n%s", ref, out, errs)
		}
	}
	v.verify(cli.ExitFailed, with("--platform", "linux/s390x", half)...)
	v.verify(cli.ExitUsage, with("--platform", "linux/mips", v.output)...)
	v.verify(cli.ExitUsage, "--cache", v.cache, v.output)
}

// TestVerifyFromNothing guards the main job as anybody does it: no checkout, no cache,
// an image in a registry. What was found is attested, and counts for who comes next.
func TestVerifyFromNothing(t *testing.T) {
	need.Minutes(t, "an empty cache")
	v := newVerifier(t)
	registry := registrytest.Distribution(t, registrytest.Options{})
	ref := registry.Repository("derper") + ":1"
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	top, err := layout.ImageIndexFromPath(v.output)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err == nil {
		err = remote.WriteIndex(tag, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	private, public := keyPair(t)
	host := "linux/" + runtime.GOARCH
	require := []string{"--require", "1", "--rebuilder", public, "--platform", host, "--trust-cache", "--cache", v.cache, ref}
	if _, errs := v.verify(cli.ExitFailed, require...); !strings.Contains(errs, "too few rebuilders attest it: 0 of those trusted, 1 are required") {
		t.Errorf("says:\n%s", errs)
	}
	out, errs := v.verify(cli.ExitOK, "--platform", host, "--attest", private, ref)
	if !strings.Contains(out, ", built from nothing, ") || !strings.Contains(errs, ref+": attestation by key sha256:") {
		t.Errorf("says:\n%s\n%s", out, errs)
	}
	if out, _ := v.verify(cli.ExitOK, require...); !strings.Contains(out, "PASS  rebuilder  key sha256:") {
		t.Errorf("says:\n%s", out)
	}

	// An interrupted one takes its compilers and its cache with it.
	cmd, _, stderr := v.command("--platform", host, ref)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * time.Minute); len(processesOf(v.temp, "compile")) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no compiler was started\n%s", stderr)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != cli.ExitInterrupted {
		t.Errorf("ended with %v, want exit code %d\n%s", err, cli.ExitInterrupted, stderr)
	}
	if said := stderr.String(); !strings.HasSuffix(said, "build: interrupted\n") {
		t.Errorf("says that something was kept, or nothing:\n%s", said)
	}
	v.clean()
}

// keyPair makes the files of a private and a public key.
func keyPair(t *testing.T) (private, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, kind string, der []byte, err error) string {
		if err == nil {
			file = filepath.Join(t.TempDir(), file)
			err = os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	private = write("key.pem", "PRIVATE KEY", secret, err)
	open, err := x509.MarshalPKIXPublicKey(key.Public())
	return private, write("key.pub", "PUBLIC KEY", open, err)
}
