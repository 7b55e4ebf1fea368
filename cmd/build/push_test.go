package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/chance"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// pusher runs build push as a process of its own, to two registries.
type pusher struct {
	release    *registrytest.Release
	registries []*registrytest.Registry
	names      []string
}

func (p *pusher) command(args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	args = append([]string{"push", "--lock", p.release.LockFile, "--json"}, args...)
	for _, n := range p.names {
		args = append(args, "--to", n)
	}
	cmd := exec.Command("build", append(args, p.release.Dir)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+filepath.Dir(p.release.LockFile))
	for _, n := range p.names {
		host, _, _ := strings.Cut(n, "/")
		prefix := strings.NewReplacer(".", "_", ":", "_").Replace(host)
		cmd.Env = append(cmd.Env, prefix+"_USERNAME=ann", prefix+"_PASSWORD="+pushPassword)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, &stdout, &stderr
}

const pushPassword = "correct-horse/battery+staple"

// run runs a push that must work.
func (p *pusher) run(t *testing.T, args ...string) registry.Pushed {
	t.Helper()
	cmd, stdout, stderr := p.command(args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("build push: %v\n%s", err, stderr)
	}
	if out := stdout.String() + stderr.String(); strings.Contains(out, pushPassword) || strings.Contains(out, "correct-horse") {
		t.Errorf("the password is in the output:\n%s", out)
	}
	var r registry.Pushed
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("result is not JSON: %v\n%s", err, stdout)
	}
	return r
}

// tags are where the tags of a repository are, by name.
func (p *pusher) tags(t *testing.T, side int) map[string]string {
	t.Helper()
	_, repository, _ := strings.Cut(p.names[side], "/")
	name := p.registries[side].Repository(repository)
	options := []crane.Option{crane.WithAuthFromKeychain(registrytest.Keychain(p.registries...))}
	found := map[string]string{}
	list, err := crane.ListTags(name, options...)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return found // nothing was pushed yet
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range list {
		digest, err := crane.Digest(name+":"+tag, options...)
		if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
			continue // Docker's registry lists a tag that it has begun to write
		}
		if err != nil {
			t.Fatal(err)
		}
		found[tag] = digest
	}
	return found
}

// whole checks the pushed release, read with go-containerregistry alone.
func (p *pusher) whole(t *testing.T, side int, digest string) {
	t.Helper()
	_, repository, _ := strings.Cut(p.names[side], "/")
	img, err := crane.Pull(p.registries[side].Repository(repository)+"@"+digest,
		crane.WithAuthFromKeychain(registrytest.Keychain(p.registries...)), crane.WithPlatform(&v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	if err == nil {
		err = validate.Image(img)
	}
	if err != nil {
		t.Fatalf("%s: %v", p.names[side], err)
	}
}

// TestKilledPush guards a push to two registries against kill -9 at random moments,
// and at each moment between the first tag and the last. What is promised, and
// checked: whatever a tag names is whole; a tag is where it was or at the release;
// no tag that moves has moved before those of the version are in place on both
// registries; and running it again completes it, with the blobs that arrived before.
func TestKilledPush(t *testing.T) {
	need.Minutes(t, "many pushes that are killed")
	random := chance.New(t)
	options := registrytest.Options{Username: "ann", Password: pushPassword}
	registries := []*registrytest.Registry{registrytest.Distribution(t, options), registrytest.Memory(t, options)}
	old, next := registrytest.NewRelease(t, "v1.102.2", 20_000), registrytest.NewRelease(t, "v1.102.3", 300_000)
	number := 0
	start := func(t *testing.T) (*pusher, []*registrytest.Proxy) {
		number++
		p := &pusher{release: next, registries: registries}
		var proxies []*registrytest.Proxy
		for _, r := range registries {
			proxy := registrytest.NewProxy(t, r)
			proxy.Immutable(registrytest.RevisionTags, registrytest.Immutabilities["Docker Hub"])
			proxies = append(proxies, proxy)
			p.names = append(p.names, proxies[len(proxies)-1].Repository("derper"+string(rune('a'+number%26))+strings.Repeat("x", number/26)))
		}
		release, err := registry.Read(old.Dir, old.Lock)
		if err != nil {
			t.Fatal(err)
		}
		release.Tags = registry.Tags(old.Lock.Inputs.ImageVersion(), "", lock.Stable)
		c := &registry.Client{Keychain: registrytest.Keychain(proxies[0].Registry, proxies[1].Registry)}
		if _, err := c.Push(t.Context(), registry.Plan{Images: []*registry.Content{release}, Repositories: p.names}); err != nil {
			t.Fatal(err)
		}
		return p, proxies
	}
	calm, proxies := start(t)
	var total atomic.Int64
	for _, proxy := range proxies {
		proxy.Hook(func(registrytest.Request) { total.Add(1) })
	}
	calm.run(t)

	kills := 15
	if need.HasAWeek(t) {
		kills = 50
	}
	nothing, window, completed, inWindow := 0, 0, 0, 0
	judge := func(t *testing.T, p *pusher) (moved int) {
		t.Helper()
		fixed, moving := 0, 0
		for side := range registries {
			tags := p.tags(t, side)
			for _, tag := range []string{"1.102.3-r0", "v1.102.3", "1.102.3", "1.102", "latest"} {
				moves, there := tag != "1.102.3-r0", tag == "1.102" || tag == "latest"
				switch want := map[bool]string{true: old.Lock.Output().Index}[there]; tags[tag] {
				case next.Lock.Output().Index:
					moved++
					if moves {
						moving++
					} else {
						fixed++
					}
				case want:
				default:
					t.Errorf("%s:%s is at %q", p.names[side], tag, tags[tag])
				}
			}
		}
		if moving > 0 && fixed < 2 {
			t.Errorf("%d moving tags have moved, and only %d of 2 tags of the revision are in place", moving, fixed)
		}
		if moved > 0 {
			for side := range registries {
				p.whole(t, side, next.Lock.Output().Index)
			}
		}
		return moved
	}
	again := func(t *testing.T, p *pusher) {
		t.Helper()
		p.run(t)
		if moved := judge(t, p); moved != 10 {
			t.Errorf("running it again: %d of 10 tags at the release", moved)
		}
	}
	for i := range kills {
		// At a request and not at a time, which a busy machine would stretch.
		p, proxies := start(t)
		cmd, _, _ := p.command()
		var seen atomic.Int64
		at := 1 + random.Int64N(total.Load())
		switch {
		case i == 0:
			at = total.Load()
		case i%5 == 0: // those that move tags are the last
			at = total.Load() - random.Int64N(20)
		}
		delay := time.Duration(random.Int64N(int64(2 * time.Millisecond)))
		for _, proxy := range proxies {
			proxy.Hook(func(registrytest.Request) {
				if seen.Add(1) == at {
					time.AfterFunc(delay, func() { cmd.Process.Kill() })
				}
			})
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		for _, proxy := range proxies {
			proxy.Hook(nil)
		}
		switch judge(t, p) {
		case 0:
			nothing++
		case 10:
			completed++
		default:
			window++
		}
		again(t, p)
	}
	t.Logf("%d pushes killed at random moments: %d before a tag moved, %d after all had, %d between; all completed when run again", kills, nothing, completed, window)
	if nothing == kills || completed == kills {
		t.Error("the moments were not spread: the test tested less than it means to")
	}

	// The time between is short: kill at each request in it, before the registry has
	// it. There are 10 that move a tag.
	for n := 1; n <= 10; n++ {
		p, proxies := start(t)
		cmd, _, _ := p.command()
		var mu sync.Mutex
		seen, killed := 0, make(chan struct{})
		for _, proxy := range proxies {
			proxy.Hook(func(q registrytest.Request) {
				if q.Method != "PUT" || !strings.Contains(q.Path, "/manifests/") || strings.Contains(q.Path, "/manifests/sha256:") {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if seen++; seen == n {
					close(killed) // first: it may be gone, and waited for, a moment later
					cmd.Process.Kill()
				}
				if seen >= n {
					panic(http.ErrAbortHandler) // what was on its way does not arrive
				}
			})
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		select {
		case <-killed:
		default:
			t.Fatalf("request %d that moves a tag never came", n)
		}
		moved := judge(t, p)
		if moved >= 10 {
			t.Errorf("killed at request %d of 10, and %d tags moved", n, moved)
		}
		if moved > 0 {
			inWindow++
		}
		for _, proxy := range proxies {
			proxy.Hook(nil)
		}
		again(t, p)
	}
	t.Logf("killed at each of the 10 requests that move a tag: %d with some tags moved and others not; all completed when run again", inWindow)
}

// TestPushRealImage guards the real thing: the image for this machine, built from this
// repository's lock, to two registries over one command; others pull what was built.
func TestPushRealImage(t *testing.T) {
	dir, err := realBuild()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = l.Of(lock.Default); err != nil {
		t.Fatal(err)
	}
	// A lock of this machine's platform only, so that the layout is all of it.
	img := onlyImage(t, dir)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	mine := func(p lock.Platform) bool { return p.Arch() == config.Architecture && p.Variant() == config.Variant }
	l.Inputs.Platforms = slices.DeleteFunc(l.Inputs.Platforms, func(p lock.Platform) bool { return !mine(p) })
	l.Output().Platforms = slices.DeleteFunc(l.Output().Platforms, func(p lock.PlatformOutput) bool { return !mine(p.Platform) })
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	l.Output().Index = list.Manifests[0].Digest.String()
	lockFile := filepath.Join(t.TempDir(), lock.File)
	if err := l.Write(lockFile); err != nil {
		t.Fatal(err)
	}
	options := registrytest.Options{Username: "ann", Password: pushPassword}
	p := &pusher{
		release:    &registrytest.Release{Dir: dir, LockFile: lockFile, Lock: l},
		registries: []*registrytest.Registry{registrytest.Distribution(t, options), registrytest.Memory(t, options)},
	}
	for _, r := range p.registries {
		p.names = append(p.names, r.Repository("derper"))
	}
	began := time.Now()
	report := p.run(t)
	t.Logf("pushed %d bytes to each of two registries in %s", report.Repositories[0].Missing.Bytes, time.Since(began).Round(time.Millisecond))
	for side, r := range p.registries {
		p.whole(t, side, l.Output().Index)
		r.Forget()
	}
	began = time.Now()
	p.run(t)
	for _, r := range p.registries {
		t.Logf("second push, after %s: %v", time.Since(began).Round(time.Millisecond), r.Requests())
		for _, q := range r.Requests() {
			if q.Uploads() {
				t.Errorf("second push uploads: %s", q)
			}
		}
	}
}

// TestPushTLS guards a registry with a CA of its own, named by SSL_CERT_FILE, and
// credentials from Docker's configuration.
func TestPushTLS(t *testing.T) {
	r := registrytest.Distribution(t, registrytest.Options{Username: "ann", Password: pushPassword, TLS: true})
	p := &pusher{release: registrytest.NewRelease(t, "v1.103.1", 1000)}
	home := t.TempDir()
	config := `{"auths":{"` + r.Host + `":{"username":"ann","password":"` + pushPassword + `"}}}`
	if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, says string
		code       int
		env        []string
	}{
		{"no CA", "certificate signed by unknown authority", cli.ExitFailed, []string{"DOCKER_CONFIG=" + home}},
		{"no password", "docker login", cli.ExitFailed, []string{"SSL_CERT_FILE=" + r.CA, "DOCKER_CONFIG=" + t.TempDir()}},
		{"half of the variables", "_PASSWORD is not", cli.ExitUsage, []string{strings.NewReplacer(".", "_", ":", "_").Replace(r.Host) + "_USERNAME=ann"}},
		{"both", r.Repository("derper") + "@" + p.release.Lock.Output().Index, cli.ExitOK, []string{"SSL_CERT_FILE=" + r.CA, "DOCKER_CONFIG=" + home}},
	} {
		cmd := exec.Command("build", "push", "--lock", p.release.LockFile, "--to", r.Repository("derper"), p.release.Dir)
		cmd.Env = append(os.Environ(), test.env...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != test.code || !strings.Contains(string(out), test.says) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", test.name, cmd.ProcessState.ExitCode(), test.code, test.says, out)
		}
		if strings.Contains(string(out), pushPassword) {
			t.Errorf("%s: the password is in the output:\n%s", test.name, out)
		}
	}
}

// TestPushSays guards what build push tells its user: exit codes, reasons, and what to
// do next.
func TestPushSays(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	r := registrytest.Distribution(t, registrytest.Options{})
	release, rebuilt := registrytest.NewRelease(t, "v1.102.3", 1000), registrytest.NewRelease(t, "v1.102.3", 1001)
	partial, next := registrytest.NewRelease(t, "v1.102.3", 1000, "linux/amd64"), registrytest.NewRelease(t, "v1.102.4", 1000)
	older, digest := registrytest.NewRelease(t, "v1.102.2", 1000), release.Lock.Output().Index
	repo := []string{"--to", r.Repository("derper")}
	for _, test := range []struct {
		name string
		args []string
		code int
		out  []string // on stdout if it works, on stderr if not
	}{
		{"a layout that is not there", append(repo, "--lock", release.LockFile, t.TempDir()+"/none"), cli.ExitFailed,
			[]string{"is not an OCI layout", "hint: build all platforms with "}},
		{"one platform of two", append(repo, "--lock", release.LockFile, partial.Dir), cli.ExitFailed,
			[]string{"is incomplete: it lacks linux/arm64", "hint: build all platforms with "}},
		{"a build that is not on record", append(repo, "--lock", release.LockFile, rebuilt.Dir), cli.ExitDiffers,
			[]string{"manifest differs from the lock", "hint: only what the lock records is published"}},
		{"a tag in the repository's name", []string{"--to", r.Repository("derper:latest")}, cli.ExitUsage, []string{"without tag or digest"}},
		{"two ways to choose tags", append(repo, "--lock", release.LockFile, "--channel", "stable", "--tag", "x", release.Dir), cli.ExitUsage, []string{"--channel chooses tags, and so does --tag"}},
		{"no such channel", append(repo, "--lock", release.LockFile, "--channel", "beta", release.Dir), cli.ExitUsage, []string{`--channel: "beta"`}},
		{"a tag for two layouts", append(repo, "--tag", "x", "--lock", release.LockFile, "./a", "./b"), cli.ExitUsage, []string{"--tag names one image, and there are 2 layouts"}},
		{"dry run", append(repo, "--lock", release.LockFile, "--dry-run", release.Dir), cli.ExitOK,
			[]string{r.Repository("derper") + "@" + digest, "missing: 10 blobs (", "5 manifests", digest, "latest      new", "dry run: nothing was uploaded and no tag has moved"}},
		{"push", append(repo, "--lock", release.LockFile, release.Dir), cli.ExitOK,
			[]string{r.Repository("derper") + "@" + digest, "uploaded: 10 blobs", "1.102.3-r0  new", "latest      new"}},
		{"push again", append(repo, "--lock", release.LockFile, release.Dir), cli.ExitOK, []string{"nothing to do: all tags are there", "latest      as it was"}},
		{"another tag", append(repo, "--lock", release.LockFile, "--tag", "edge", release.Dir), cli.ExitOK, []string{"uploaded: nothing", "edge  new"}},
		{"another digest of the version", append(repo, "--lock", rebuilt.LockFile, rebuilt.Dir), cli.ExitFailed,
			[]string{"1.102.3-r0: it names " + digest + " for ever", "hint: nothing was uploaded and no tag has moved; record the image as another revision"}},
		{"an older version", append(repo, "--lock", older.LockFile, older.Dir), cli.ExitFailed,
			[]string{": it is at " + digest + ", version 1.102.3-r0, which is newer", "hint: nothing was uploaded and no tag has moved; --retag moves it all the same"}},
		{"dry run of the next", append(repo, "--lock", next.LockFile, "--dry-run", next.Dir), cli.ExitOK, []string{"latest      from " + digest, "missing: 8 blobs"}},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"push"}, test.args...), &stdout, &stderr)
		said := &stderr
		if test.code == cli.ExitOK {
			said = &stdout
		} else if stdout.Len() > 0 {
			t.Errorf("%s: a failure prints a result: %s", test.name, &stdout)
		}
		if code != test.code {
			t.Errorf("%s: exit code %d, want %d\n%s", test.name, code, test.code, &stderr)
		}
		for _, want := range test.out {
			if !strings.Contains(said.String(), want) {
				t.Errorf("%s: does not say %q:\n%s", test.name, want, said)
			}
		}
	}
}
