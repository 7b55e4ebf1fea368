package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/testing/chance"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// builder runs the program as a process of its own on a small release.
type builder struct {
	t       *testing.T
	release *releasetest.Release
	lock    string
	cache   string
	output  string
}

func newBuilder(t *testing.T) *builder {
	r := releasetest.New(t, "../..")
	return &builder{t: t, release: r, lock: r.Lock(t), cache: releasetest.CacheDir(t), output: filepath.Join(t.TempDir(), "dist")}
}

func (b *builder) command(args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	args = append([]string{"--lock", b.lock, "--cache", b.cache, "--output", b.output, "--json"}, args...)
	cmd := exec.Command("build", args...)
	cmd.Env = append(os.Environ(), "GOPROXY="+b.release.Proxy, testSumDB+"="+b.release.SumDB)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, &stdout, &stderr
}

// run runs a build that must work and returns its result.
func (b *builder) run(args ...string) imageResult {
	b.t.Helper()
	cmd, stdout, stderr := b.command(args...)
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("build %v: %v\n%s", args, err, stderr)
	}
	var r imageResult
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		b.t.Fatalf("result is not JSON: %v\n%s", err, stdout)
	}
	return r
}

// validLayout checks that the layout on disk, if there is one, is whole.
func (b *builder) validLayout() (digest string) {
	b.t.Helper()
	if _, err := os.Stat(filepath.Join(b.output, "index.json")); errors.Is(err, os.ErrNotExist) {
		return ""
	}
	path, err := layout.FromPath(b.output)
	if err != nil {
		b.t.Fatal(err)
	}
	top, err := path.ImageIndex()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		b.t.Fatalf("layout: %v", err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		b.t.Fatal(err)
	}
	return manifest.Manifests[0].Digest.String()
}

// TestKilledBuild guards what is on disk against kill -9: after any number of
// killed runs the layout is the old one or the new one, and the next run ends with
// the same digests as one that nobody disturbed.
func TestKilledBuild(t *testing.T) {
	need.Minutes(t, "builds that are killed")
	random := chance.New(t)
	undisturbed := newBuilder(t)
	began := time.Now()
	want := undisturbed.run("--platform", "all")
	took := time.Since(began)

	b := newBuilder(t)
	b.release, b.lock = undisturbed.release, undisturbed.lock
	b.cache = releasetest.CacheDir(t)
	kills := 8
	if need.HasAWeek(t) {
		kills = 20
	}
	killed := 0
	for i := range kills {
		// A layout of one platform is replaced by one of all, and back.
		platform := []string{"all", "linux/arm64"}[i%2]
		cmd, _, _ := b.command("--platform", platform)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(took))))
		_ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
		if err := cmd.Wait(); err != nil {
			killed++
		}
		b.validLayout()
		if i%3 > 0 {
			// So that the next round has something to do; else it goes on from
			// what this one finished.
			results, _ := filepath.Glob(filepath.Join(b.cache, "actions", "*.json"))
			for _, name := range results {
				os.Remove(name)
			}
		}
	}
	t.Logf("killed %d of %d runs", killed, kills)
	if killed == 0 {
		t.Error("no run was killed before its end: the test tested nothing")
	}
	got := b.run("--platform", "all")
	if got.Digest != want.Digest {
		t.Errorf("index after kills is %s, want %s", got.Digest, want.Digest)
	}
	if on := b.validLayout(); on != want.Digest {
		t.Errorf("layout has index %s, want %s", on, want.Digest)
	}
	for _, left := range []string{filepath.Join(b.cache, "tmp", "*"), filepath.Join(b.output, ".derper-tmp*")} {
		if names, _ := filepath.Glob(left); len(names) > 0 {
			t.Errorf("left behind: %v", names)
		}
	}
}

// TestTwoBuildsAtOnce guards two builds that share a cache and an output: both
// work, and nothing is made twice.
func TestTwoBuildsAtOnce(t *testing.T) {
	b := newBuilder(t)
	var results [2]imageResult
	var wg sync.WaitGroup
	for i := range results {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i] = b.run("--platform", "all")
		}()
	}
	wg.Wait()
	if results[0].Digest != results[1].Digest {
		t.Errorf("two builds at once gave %s and %s", results[0].Digest, results[1].Digest)
	}
	for i, a := range results[0].Actions {
		if !a.Cached && !results[1].Actions[i].Cached {
			t.Errorf("%s ran twice", a.Action)
		}
	}
	if on := b.validLayout(); on != results[0].Digest {
		t.Errorf("layout has index %s, want %s", on, results[0].Digest)
	}
}

// TestInterruptedBuild guards Ctrl-C: the program ends at once with its exit code,
// and takes its compilers with it.
func TestInterruptedBuild(t *testing.T) {
	need.Minutes(t, "a build with an empty build cache")
	b := newBuilder(t)
	// A build cache of its own makes the compilers work for a while.
	if err := os.Remove(filepath.Join(b.cache, "go-build")); err != nil {
		t.Fatal(err)
	}
	cmd, _, stderr := b.command()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); len(processesOf(b.cache, "compile")) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no compiler was started\n%s", stderr)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != cli.ExitInterrupted {
		t.Errorf("ended with %v, want exit code %d", err, cli.ExitInterrupted)
	}
	if !strings.Contains(stderr.String(), "build: interrupted\nhint: ") {
		t.Errorf("said:\n%s", stderr)
	}
	// A compiler that was killed may wait for the disk before it is gone, and what
	// the build could not remove in its two seconds the next one does.
	for deadline := time.Now().Add(time.Minute); len(processesOf(b.cache, "")) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still running: %v", processesOf(b.cache, ""))
		}
	}
	b.run()
	if names, _ := filepath.Glob(filepath.Join(b.cache, "tmp", "*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

// processesOf lists the processes that work for a cache and whose command name
// contains word.
func processesOf(cache, word string) (list []string) {
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range names {
		env, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(env, []byte("GOMODCACHE="+cache)) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		program, _, _ := strings.Cut(string(line), "\x00")
		if program != "" && strings.Contains(filepath.Base(program), word) {
			list = append(list, program)
		}
	}
	return list
}

// TestCorruptLate guards against a blob of the cache whose content is wrong and whose
// size, time and inode are right: it is found when the layout, or an archive, is
// written, and rebuilt then.
func TestCorruptLate(t *testing.T) {
	b := newBuilder(t)
	want := b.run()
	blobs, err := filepath.Glob(filepath.Join(b.cache, "blobs", strings.Repeat("[0-9a-f]", 64)))
	if err != nil || len(blobs) < 8 {
		t.Fatalf("%v, %v", blobs, err)
	}
	corrupt := func(change func(data []byte)) {
		t.Helper()
		for _, name := range blobs {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			change(data)
			if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, data, 0o644), os.Chtimes(name, info.ModTime(), info.ModTime())); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, how := range []string{"layout", "archive", "program"} {
		t.Run(how, func(t *testing.T) {
			corrupt(func(data []byte) { data[len(data)/2] ^= 1 })
			archive := filepath.Join(t.TempDir(), "image.tar")
			var args []string
			switch how {
			case "layout":
				if err := os.RemoveAll(b.output); err != nil {
					t.Fatal(err)
				}
			case "archive":
				args = []string{"--tarball", archive}
			case "program": // whose build information the licences follow from
				corrupt(func(data []byte) { clear(data) })
				for _, a := range want.Actions {
					if strings.HasPrefix(a.Action, "layer base ") {
						if err := os.Remove(filepath.Join(b.cache, "actions", a.Key+".json")); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			cmd, stdout, stderr := b.command(args...)
			if err := cmd.Run(); err != nil || !strings.Contains(stderr.String(), "corrupt; rebuilding") {
				t.Fatalf("%v\n%s", err, stderr)
			}
			var got imageResult
			if err := json.Unmarshal(stdout.Bytes(), &got); err != nil || got.Digest != want.Digest {
				t.Errorf("%v, index %s, want %s", err, got.Digest, want.Digest)
			}
			if on := b.validLayout(); on != want.Digest {
				t.Errorf("layout has index %s, want %s", on, want.Digest)
			}
			if how == "archive" {
				img, err := tarball.ImageFromPath(archive, nil)
				if err == nil {
					err = validate.Image(img)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	if cmd, _, stderr := b.command("--verify-cache"); cmd.Run() != nil || strings.Contains(stderr.String(), "corrupt") {
		t.Errorf("something corrupt was left\n%s", stderr)
	}
}
