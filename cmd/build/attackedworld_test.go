package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// A hostileWorld is a small release that was built, out of which attacks are made, with
// the cache that it was built in, so that a verification compares only.
type hostileWorld struct {
	release *releasetest.Release
	good    *hostile.Good
	lock    string // with outputs
	inputs  string // the same without
	cache   string
	private string // a key, and a rebuilder's
	public  string
	signer  *sign.Signer
}

func newHostileWorld(t *testing.T) *hostileWorld {
	r := releasetest.New(t, "../..")
	r.Inputs.Platforms = []lock.Platform{"linux/amd64", "linux/arm64"}
	w := &hostileWorld{release: r, lock: r.Lock(t), inputs: r.Lock(t), cache: releasetest.CacheDir(t)}
	dist := filepath.Join(t.TempDir(), "dist")
	if m := program(t, w.around, "image", "--lock", w.lock, "--cache", w.cache, "--platform", "all", "--update-lock", "--output", dist); m.code != cli.ExitOK {
		t.Fatalf("exit code %d\n%s", m.code, m.stderr)
	}
	top, err := layout.ImageIndexFromPath(dist)
	if err != nil {
		t.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	index, err := top.ImageIndex(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	w.good = hostile.NewGood(t, r.Inputs, index)
	w.private, w.public = keyPair(t)
	w.signer = fileSigner(t, w.private)
	return w
}

// around is what the program finds: the release's servers.
func (w *hostileWorld) around(e *env) {
	e.sumDB = sumDBOf(w.release)
	e.getenv = variables(map[string]string{"GOPROXY": w.release.Proxy})
}

// sumDBOf is a release's checksum database, which is asked directly, too, where the module
// proxy does not know: nothing leaves this machine.
func sumDBOf(r *releasetest.Release) string {
	return r.SumDB + " " + r.Proxy + "/sumdb/sum.example.com"
}

// command is the command line for content that an attack made, and what names the
// content in it.
func (w *hostileWorld) command(t *testing.T, name string, a hostile.Attack, c *hostile.Content) (args []string, source string) {
	t.Helper()
	words := strings.Fields(name)
	switch words[0] {
	case "verify":
		// What other revisions of this project say is in rows of its own.
		args = append(slices.Clone(words), "--lock", w.lock, "--this-program")
		switch {
		case strings.Contains(name, "--require"):
			w.attested(t, c)
			source = strings.TrimSuffix(c.Serve(t, nil), ":1") + "@" + c.Index
			args = append(args, "--platform", "linux/amd64", "--rebuilder", w.public)
		case strings.Contains(name, "--attest"):
			source = strings.TrimSuffix(c.Serve(t, nil), ":1") + "@" + c.Index
			return []string{"verify", "--lock", w.lock, "--this-program", "--attest", w.private, "--platform", "linux/amd64", source}, source
		default:
			source = a.Open(t, w.good, c)
		}
		return append(args, "--trust-cache", "--cache", w.cache, source), source
	case "push":
		source = a.Open(t, w.good, c)
		to := strings.TrimSuffix(hostile.Empty(t).Serve(t, nil), ":1")
		return []string{"push", "--lock", w.lock, "--tag", "evil", "--to", to, source}, source
	case "sign":
		source = a.Open(t, w.good, c)
		lockFile := w.lock
		if strings.HasSuffix(name, "without outputs") {
			lockFile = w.inputs
		}
		to := strings.TrimSuffix(c.Serve(t, nil), ":1")
		return []string{"sign", "--lock", lockFile, "--key", w.private, "--to", to, source}, source
	case "attest":
		source = a.Open(t, w.good, c)
		return []string{"attest", "--lock", w.lock, "--output", t.TempDir(), source}, source
	case "test":
		source = a.Open(t, w.good, c)
		return []string{"test", "--platform", "linux/amd64", "--run", noCase, source}, source
	}
	t.Fatalf("no command %q", name)
	return nil, ""
}

// fileSigner signs with a key.
func fileSigner(t *testing.T, private string) *sign.Signer {
	t.Helper()
	data, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.ParsePrivateKey(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sign.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// attested adds a rebuilder's word for the content, as one gives it who was deceived.
func (w *hostileWorld) attested(t *testing.T, c *hostile.Content) {
	t.Helper()
	r := attest.Rebuild{Inputs: w.release.Inputs, Host: "linux/amd64", Passed: []string{"linux/amd64", "linux/arm64", "index"}}
	statement, err := r.Statement(attest.Subject{Descriptor: c.Descriptor()})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := w.signer.Sign(t.Context(), statement.Payload)
	if err != nil {
		t.Fatal(err)
	}
	c.Attach(t, statement.Type, bundle)
}

// noCase lets build test open an image and run nothing of it.
const noCase = "^none$"

// scratch makes an empty cache that has the toolchain and the compiled packages.
func scratch(t *testing.T) func() (string, func() error, error) {
	return func() (string, func() error, error) {
		dir := t.TempDir()
		releasetest.ShareInto(t, dir)
		return dir, func() error { return cache.RemoveAll(dir) }, nil
	}
}
