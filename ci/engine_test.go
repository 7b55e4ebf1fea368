//go:build engine

// These tests need a Dagger Engine, which not every machine can have. Whoever has one runs
// them with .ci/engine.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
)

// platforms are those that the tests build; the second is nobody's in a hurry.
const platforms = "linux/amd64,linux/arm64"

// pipe runs the program, which must work, with dir for what it writes.
func pipe(t *testing.T, dir, lockFile, command string, more ...string) (stdout string) {
	t.Helper()
	var out bytes.Buffer
	args := append([]string{command, "--lock", lockFile, "--output", dir + "/dist", "--reports", dir + "/reports"}, more...)
	if code := run(t.Context(), args, &out, os.Stderr); code != cli.ExitOK {
		t.Fatalf("%v: exit code %d", args, code)
	}
	return out.String()
}

// said is what the build step says of itself, as far as it is of use here.
type said struct {
	built
	Actions []struct {
		Action string
		Cached bool
	}
}

func readReport(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestEngineDigests: what the engine builds is what the lock records, and what comes to the
// client is that.
func TestEngineDigests(t *testing.T) {
	dir := t.TempDir()
	pipe(t, dir, checkedIn, "build", "--platform", platforms)
	var s said
	readReport(t, dir+"/reports/build.json", &s)
	l, err := lock.Read(checkedIn)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Platforms) != 2 {
		t.Fatalf("platforms: %v", s.Platforms)
	}
	for _, p := range s.Platforms {
		at := slices.IndexFunc(l.Output().Platforms, func(o lock.PlatformOutput) bool { return string(o.Platform) == p.Platform })
		if at < 0 || l.Output().Platforms[at].Manifest != p.Manifest {
			t.Errorf("%s: manifest %s is not the lock's", p.Platform, p.Manifest)
		}
		if _, err := os.Stat(dir + "/dist/blobs/sha256/" + strings.TrimPrefix(p.Manifest, "sha256:")); err != nil {
			t.Error(err)
		}
	}
	if err := checkBlobs(dir + "/dist"); err != nil {
		t.Error(err)
	}
}

// TestEngineUnchanged: where nothing changed, nothing runs: the reports are those of the run
// before, to the time that was taken.
func TestEngineUnchanged(t *testing.T) {
	dir := t.TempDir()
	pipe(t, dir, checkedIn, "build", "--platform", platforms)
	before, err := os.ReadFile(dir + "/reports/build.json")
	if err != nil {
		t.Fatal(err)
	}
	out := pipe(t, dir, checkedIn, "build", "--platform", platforms)
	after, err := os.ReadFile(dir + "/reports/build.json")
	if err != nil || string(before) != string(after) {
		t.Errorf("the build step ran again (%v)", err)
	}
	if !strings.Contains(out, "(unchanged)") {
		t.Errorf("the layout was written again: %s", out)
	}
}

// TestEngineEntrypoint: a change in the entrypoint's source has the entrypoint compiled, and
// nothing else.
func TestEngineEntrypoint(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	list, err := exec.Command("git", "-C", "..", "ls-files", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Split(strings.TrimRight(string(list), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("..", name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and not committed yet
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		}
		if err == nil && name == "entrypoint/main.go" {
			data = append(data, fmt.Sprintf("\nvar changed = %q\n\nfunc init() { _ = changed }\n", dir)...)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// The lock records the outputs of the entrypoint as it was.
	l, err := lock.Read(checkedIn)
	if err != nil {
		t.Fatal(err)
	}
	l.Outputs = nil
	if err := l.Write(filepath.Join(dir, lock.File)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	pipe(t, out, lock.File, "build", "--platform", platforms)
	for _, platform := range strings.Split(platforms, ",") {
		var s said
		readReport(t, out+"/reports/"+step{name: "compile " + platform}.report(), &s)
		var ran []string
		for _, a := range s.Actions {
			if !a.Cached {
				ran = append(ran, a.Action)
			}
		}
		if want := []string{"entrypoint " + platform, "layer entrypoint " + platform, "attestation " + platform}; !slices.Equal(ran, want) {
			t.Errorf("%s: %v ran, want %v", platform, ran, want)
		}
	}
}

// TestEngineService: the image runs as a service and does what clients need of it.
func TestEngineService(t *testing.T) {
	dir := t.TempDir()
	pipe(t, dir, checkedIn, "test", "--platform", platforms)
	var probe struct {
		Checks []struct{ Name, Result string }
	}
	readReport(t, dir+"/reports/probe.json", &probe)
	passed := map[string]bool{}
	for _, c := range probe.Checks {
		passed[c.Name] = c.Result == "pass"
	}
	for _, name := range []string{"stun/ipv4", "derp/handshake", "derp/relay"} {
		if !passed[name] {
			t.Errorf("probe: %s did not pass: %v", name, probe.Checks)
		}
	}
	var suite struct{ Passed bool }
	readReport(t, dir+"/reports/test.json", &suite)
	if !suite.Passed {
		t.Error("build test did not pass")
	}
}

// small is a lock of one platform, with what a build of it gives.
func small(t *testing.T) (file, digest string) {
	t.Helper()
	l, err := lock.Read(checkedIn)
	if err != nil {
		t.Fatal(err)
	}
	recorded := l.Output().Platforms
	l.Inputs.Platforms, l.Outputs = []lock.Platform{"linux/" + lock.Platform(runtime.GOARCH)}, nil
	dir := t.TempDir()
	file = filepath.Join(dir, lock.File)
	if err := l.Write(file); err != nil {
		t.Fatal(err)
	}
	pipe(t, dir, file, "build")
	var s said
	readReport(t, dir+"/reports/build.json", &s)
	l.Outputs = map[string]*lock.Output{lock.Default: {Index: s.Digest}}
	for _, p := range recorded {
		if p.Platform == l.Inputs.Platforms[0] {
			l.Output().Platforms = append(l.Output().Platforms, p)
		}
	}
	if err := l.Write(file); err != nil {
		t.Fatal(err)
	}
	return file, s.Digest
}

// loopbackRegistry is a registry on this machine's loopback. It hands each request to
// watch before it answers it.
func loopbackRegistry(t *testing.T, watch func(*http.Request)) (repository name.Repository) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watch(r)
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	repository, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/derper")
	if err != nil {
		t.Fatal(err)
	}
	return repository
}

// TestEngineRelease: a release goes to a registry on this machine's loopback, with the digest
// that was built; the second time there is nothing to do.
func TestEngineRelease(t *testing.T) {
	file, digest := small(t)
	repository := loopbackRegistry(t, func(*http.Request) {})
	dir := t.TempDir()
	for _, published := range []bool{true, false} {
		pipe(t, dir, file, "release", "--", "--unsigned", "--to", repository.Name())
		var r struct{ Needed bool }
		if readReport(t, dir+"/reports/release-update.json", &r); r.Needed != published {
			t.Errorf("needed: %v, want %v", r.Needed, published)
		}
		head, err := remote.Head(repository.Tag("latest"))
		if err != nil {
			t.Fatal(err)
		}
		if head.Digest.String() != digest {
			t.Errorf("latest is %s, want %s", head.Digest, digest)
		}
	}
	for _, name := range []string{"release/notes.md", "release/test-default.xml", "attestations/provenance.json", "attestations/index.spdx.json"} {
		if _, err := os.Stat(filepath.Join(dir, "reports", name)); err != nil {
			t.Error(err)
		}
	}
}

// TestEngineKilled: a client that is killed in the middle of a push leaves nothing published,
// and the next run publishes.
func TestEngineKilled(t *testing.T) {
	file, digest := small(t)
	reached, over := make(chan struct{}), make(chan struct{})
	var once sync.Once
	repository := loopbackRegistry(t, func(r *http.Request) {
		if r.Method == http.MethodPatch || r.Method == http.MethodPut {
			once.Do(func() {
				io.Copy(io.Discard, r.Body) // else the server does not look whether anybody is there
				close(reached)
				<-r.Context().Done()
				close(over)
			})
		}
	})
	ci := filepath.Join(t.TempDir(), "ci")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", ci, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), ci, "release", "--lock", file, "--output", dir+"/dist", "--reports", dir+"/reports",
		"--", "--unsigned", "--to", repository.Name())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-reached:
	case err := <-ended:
		t.Fatalf("it ended before it pushed: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	<-over
	if tags, err := remote.List(repository); err == nil && len(tags) > 0 {
		t.Errorf("published by a client that was killed: %v", tags)
	}
	pipe(t, dir, file, "release", "--", "--unsigned", "--to", repository.Name())
	if head, err := remote.Head(repository.Tag("latest")); err != nil || head.Digest.String() != digest {
		t.Errorf("latest: %v %v, want %s", head, err, digest)
	}
}
