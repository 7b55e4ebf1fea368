package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/vextest"
)

// releasing is a folder to release from: the real lock, for this machine's platform and
// the default variant only, and without outputs.
func releasing(t *testing.T) (lockFile, folder string) {
	t.Helper()
	need.Linux(t)
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	if l.Inputs, err = l.Inputs.Of(lock.Default); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l.Inputs.Platforms, l.Outputs = []lock.Platform{lock.Platform("linux/" + runtime.GOARCH)}, nil
	lockFile = filepath.Join(dir, lock.File)
	if err := l.Write(lockFile); err != nil {
		t.Fatal(err)
	}
	return lockFile, filepath.Join(dir, "release")
}

// newKeyFile makes a private key to sign with.
func newKeyFile(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestRelease stops a release at each of its steps in turn: nothing is tagged, and
// the next run goes on where it stopped.
func TestRelease(t *testing.T) {
	need.Minutes(t, "the real image tested several times")
	aloneWithContainers(t)
	lockFile, folder := releasing(t)
	database := vextest.Database(t)
	one := registrytest.NewProxy(t, registrytest.Distribution(t, registrytest.Options{}))
	two := registrytest.NewProxy(t, registrytest.Memory(t, registrytest.Options{}))
	reached := func(step string) bool {
		parts, err := filepath.Glob(filepath.Join(folder, "journal", step+"*.json"))
		return err == nil && len(parts) > 0
	}
	var stdout, stderr strings.Builder
	do := func(args ...string) int {
		stdout.Reset()
		stderr.Reset()
		return run(context.Background(), append([]string{"release", "--lock", lockFile, "--folder", folder, "--vulndb", database,
			"--to", one.Repository("derper") + "," + two.Repository("me/derper")}, args...), &stdout, &stderr)
	}
	untagged := func(at string) {
		t.Helper()
		for _, r := range []string{one.Repository("derper"), two.Repository("me/derper")} {
			repository, err := name.NewRepository(r)
			if err != nil {
				t.Fatal(err)
			}
			tags, err := remote.List(repository)
			var status *transport.Error
			if err != nil && !(errors.As(err, &status) && status.StatusCode == http.StatusNotFound) {
				t.Fatal(err)
			}
			for _, tag := range tags {
				switch {
				case strings.HasPrefix(tag, "sha256-"): // referrers, where there is no API for them
				case at == "tags" && strings.HasPrefix(tag, "1.102.3-r"):
					// The revision's own tag comes first. Few registries take a new tag
					// back; it names the whole release.
				default:
					t.Errorf("%s refused: %s has the tag %s", at, r, tag)
				}
			}
		}
	}
	key := newKeyFile(t)

	for _, args := range [][]string{{}, {"--key", key, "--unsigned"}, {"--unsigned", "--runner", "podman"}, {"--unsigned", "--channel", "beta"}, {"--unsigned", "--to", "UPPER/case"}} {
		if code := do(args...); code != cli.ExitUsage {
			t.Errorf("%v: exit code %d: %s", args, code, &stderr)
		}
	}

	writes := func(q registrytest.Request) bool {
		return q.Method == "PUT" || q.Method == "POST" || q.Method == "PATCH"
	}
	var written atomic.Int64
	for _, r := range []*registrytest.Proxy{one, two} {
		r.Hook(func(q registrytest.Request) {
			if writes(q) {
				written.Add(1)
			}
		})
	}

	// Without Docker, the tests cannot run, and nothing is pushed that was not tested.
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	if code := do("--key", key, "--runner", "docker"); code != cli.ExitFailed {
		t.Errorf("no Docker: exit code %d: %s", code, &stderr)
	}
	if n := written.Load(); n > 0 {
		t.Errorf("untested, and yet %d requests to write", n)
	}

	for _, at := range []struct {
		step  string
		match func(registrytest.Request) bool
	}{
		{"push", writes},
		{"verify", func(q registrytest.Request) bool {
			return q.Method == "GET" && strings.Contains(q.Path, "/blobs/sha256")
		}},
		{"sign", func(q registrytest.Request) bool { return reached("verify") && writes(q) }},
		{"before", func(q registrytest.Request) bool { return reached("sign") && !writes(q) }},
		{"tags", func(q registrytest.Request) bool { return reached("before") && writes(q) }},
	} {
		one.Refuse(registrytest.Unauthorized, at.match)
		code := do("--key", key)
		if code != cli.ExitFailed || one.Hit() == nil {
			t.Errorf("%s refused: exit code %d, met %v: %s", at.step, code, one.Hit(), &stderr)
		}
		if strings.Contains(stderr.String(), "release: "+at.step+": done") {
			t.Errorf("%s was refused, and is said to be done", at.step)
		}
		if tested := strings.Contains(stderr.String(), "release: test: done"); tested != (at.step == "push") {
			t.Errorf("until %s: tested: %v: what was tested is not tested again", at.step, tested)
		}
		one.Arm(0, "", false)
		untagged(at.step)
	}

	if code := do("--key", key, "--json"); code != cli.ExitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	var result release.Result
	if err := json.Unmarshal([]byte(stdout.String()), &result); err != nil {
		t.Fatal(err)
	}
	if !result.Published || len(result.Repositories) != 2 || strings.Join(result.Tags, " ") != "1.102.3-r1 1.102.3 v1.102.3 1.102 latest" {
		t.Errorf("result: %s", &stdout)
	}
	notes, err := os.ReadFile(result.Notes)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# derper 1.102.3-r1\n", result.Digest, one.Repository("derper"), "verify-signature --key", "Fixable findings: 0. "} {
		if !strings.Contains(string(notes), want) {
			t.Errorf("the notes have no %q:\n%s", want, notes)
		}
	}
	for _, name := range []string{"test-default.xml", "scans.json", "dist/index.json", "journal/record.json"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			t.Error(err)
		}
	}
	if l, err := lock.Read(lockFile); err != nil || l.Outputs == nil || l.Output().Index != result.Digest {
		t.Errorf("the lock does not record what was published: %v", err)
	}

	// Published is published, with and without the folder, and nothing is written.
	written.Store(0)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if code := do("--key", key); code != cli.ExitOK || !strings.HasPrefix(stdout.String(), "nothing to do: 1.102.3-r1 is published\n") {
		t.Errorf("again: exit code %d: %s%s", code, &stdout, &stderr)
	}
	if n := written.Load(); n > 0 {
		t.Errorf("nothing to do, and yet %d requests to write", n)
	}
	// The notes were never written when a release is killed before its last step.
	if _, err := os.Stat(filepath.Join(folder, "notes.md")); err != nil {
		t.Error(err)
	}
}
