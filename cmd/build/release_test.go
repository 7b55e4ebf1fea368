package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// realDir is the folder of realBuild, which TestMain removes; empty before.
var realDir string

// realBuild builds the image of this repository's lock for this machine, once, with
// the user's own cache: minutes when that is empty.
var realBuild = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "derper-test-")
	if err != nil {
		return "", err
	}
	realDir = dir
	out := filepath.Join(dir, "dist")
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"--lock", "../../" + lock.File, "--output", out, "--json"}, &stdout, &stderr); code != cli.ExitOK {
		return "", errors.New(stderr.String())
	}
	return out, nil
})

// realImage is the image that realBuild made, unpacked.
func realImage(t *testing.T) (v1.Image, string) {
	t.Helper()
	need.Linux(t)
	dir, err := realBuild()
	if err != nil {
		t.Fatal(err)
	}
	img := onlyImage(t, dir)
	return img, unpack(t, img)
}

// onlyImage is the image in a layout of one platform.
func onlyImage(t *testing.T, dir string) v1.Image {
	t.Helper()
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Error(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if manifest, err = index.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// unpack writes the regular files of an image's root file system to a folder.
func unpack(t *testing.T, img v1.Image) string {
	t.Helper()
	root := t.TempDir()
	rc := mutate.Extract(img)
	defer rc.Close()
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(root, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o755)
		} else if h.Typeflag == tar.TypeReg {
			var data []byte
			if data, err = io.ReadAll(tr); err == nil {
				err = os.WriteFile(name, data, h.FileInfo().Mode())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestVersions guards that both programs are of the revision that the lock and the
// image's label name.
func TestVersions(t *testing.T) {
	img, root := realImage(t)
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config.Labels["org.opencontainers.image.revision"]; got != l.Inputs.Tailscale.Commit {
		t.Errorf("label names commit %s, the lock %s", got, l.Inputs.Tailscale.Commit)
	}
	for program, want := range map[string]string{
		"derper":     l.Inputs.Tailscale.Long(),
		"tailscaled": l.Inputs.Tailscale.Commit,
	} {
		out, err := exec.Command(filepath.Join(root, "usr/local/bin", program), "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s --version: %v: %s, want %s in it", program, err, out, want)
		}
	}
}

// TestBinariesAreThoseOfGoInstall guards the promise that a program in the image is
// what anybody gets with the command that build plan prints: here with the user's
// own go command, module cache and build cache.
func TestBinariesAreThoseOfGoInstall(t *testing.T) {
	need.Minutes(t, "the real programs compiled again")
	_, root := realImage(t)
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Plan(l.Inputs, []lock.Platform{"linux/" + lock.Platform(runtime.GOARCH)})
	if err != nil {
		t.Fatal(err)
	}
	gopath := t.TempDir()
	command := func(env, args []string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = "../.."
		cmd.Env = append(append(os.Environ(), env...),
			"GOTOOLCHAIN="+l.Inputs.Go.Version, "GOPATH="+gopath, "GOSUMDB=sum.golang.org",
			"GOMODCACHE="+goEnv(t, "GOMODCACHE"), "GOCACHE="+goEnv(t, "GOCACHE"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	command(plan.Settings(p.Platforms[0].Platform), plan.InstallArgs(l.Inputs, l.Inputs.Programs[0]))
	same(t, filepath.Join(gopath, "bin", "derper"), filepath.Join(root, "usr/local/bin/derper"))

	entrypoint := p.Platforms[0].Entrypoint
	out := filepath.Join(gopath, "entrypoint")
	command(entrypoint.Env, append([]string{entrypoint.Args[0], entrypoint.Args[1], "-o", out}, entrypoint.Args[2:]...))
	same(t, out, filepath.Join(root, "entrypoint"))
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func same(t *testing.T, a, b string) {
	t.Helper()
	if x, y := hashFile(t, a), hashFile(t, b); x != y {
		t.Errorf("%s is %s, %s is %s", a, x, b, y)
	}
}

func hashFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// TestNoticesOfAllModules guards that every module that a program links has its
// licence in the image.
func TestNoticesOfAllModules(t *testing.T) {
	_, root := realImage(t)
	for _, program := range []string{"derper", "tailscaled"} {
		out, err := exec.Command("go", "version", "-m", filepath.Join(root, "usr/local/bin", program)).Output()
		if err != nil {
			t.Fatal(err)
		}
		modules := 0
		for _, line := range strings.Split(string(out), "\n") {
			f := strings.Fields(line)
			if len(f) < 3 || f[0] != "dep" && f[0] != "mod" {
				continue
			}
			modules++
			if entries, _ := os.ReadDir(filepath.Join(root, "usr/share/licenses", f[1]+"@"+f[2])); len(entries) == 0 {
				t.Errorf("%s links %s %s, of which the image has no licence", program, f[1], f[2])
			}
		}
		if modules < 10 {
			t.Errorf("go version -m %s names %d modules:\n%s", program, modules, out)
		}
	}
}

// TestOnlyEntrypointChanged guards that a change of the entrypoint rebuilds its
// layer and no other: with a program that is compiled from a changed checkout.
func TestOnlyEntrypointChanged(t *testing.T) {
	if _, err := realBuild(); err != nil {
		t.Fatal(err)
	}
	const file = "../../entrypoint/main.go"
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Another change at each run: the cache keeps what it makes.
	source = fmt.Appendf(source, "\nvar changed = %d\n\nfunc init() { changed = 0 }\n", time.Now().UnixNano())
	program := changedProgram(t, file, string(source))
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	recorded := l.Output()
	l.Outputs = nil // so that the change is no difference
	changedLock := filepath.Join(t.TempDir(), lock.File)
	if err := l.Write(changedLock); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "dist")
	stdout, err := exec.Command(program, "--lock", changedLock, "--output", out, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var r imageResult
	if err := json.Unmarshal(stdout, &r); err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Actions {
		if ran, want := !a.Cached, strings.Contains(a.Action, "entrypoint") || strings.HasPrefix(a.Action, "attestation ") || strings.HasPrefix(a.Action, "flags "); ran != want {
			t.Errorf("%s: ran %v, want %v: %v", a.Action, ran, want, a.Why)
		}
	}
	want, ok := recorded.Platform(r.Platforms[0].Platform)
	if !ok {
		t.Fatalf("the lock records nothing for %s", r.Platforms[0].Platform)
	}
	layers, err := onlyImage(t, out).Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if kept, wantKept := digest.String() == want.Layers[i].Digest, want.Layers[i].Name != plan.Entrypoint; kept != wantKept {
			t.Errorf("layer %s: kept its digest %v, want %v", want.Layers[i].Name, kept, wantKept)
		}
	}
}
