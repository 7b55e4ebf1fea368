package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/testlock"
)

// layoutOf is the OCI layout of one image, said to be for this machine.
func layoutOf(t *testing.T, img v1.Image) string {
	t.Helper()
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
		Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
	}})); err != nil {
		t.Fatal(err)
	}
	return dir
}

// aloneWithContainers keeps other packages' tests of containers from running until
// the test ends.
func aloneWithContainers(t *testing.T) {
	t.Helper()
	need.Namespaces(t)
	unlock, err := testlock.Containers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
}

// TestTestRefuses guards against an hour of tests of the wrong thing, or a message that nobody can act on.
func TestTestRefuses(t *testing.T) {
	need.Namespaces(t)
	realImage(t)
	dist, err := realBuild()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	host := strings.TrimPrefix(reg.URL, "http://")
	other := "s390x"
	aloneWithContainers(t)
	t.Setenv("TMPDIR", t.TempDir())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no directory", []string{"./no-such-layout"}, cli.ExitFailed, []string{"no such file or folder", "hint: "}},
		{"a folder's word", []string{"testdata"}, cli.ExitFailed, []string{"testdata is a reference by its form; the folder is ./testdata\n"}},
		{"no layout in the directory", []string{t.TempDir()}, cli.ExitFailed, []string{"is no OCI layout", "hint: "}},
		{"a file", []string{file}, cli.ExitFailed, []string{"hint: "}},
		{"no such reference", []string{host + "/derper:1"}, cli.ExitFailed, []string{"no such image in " + host, "hint: "}},
		{"no such registry", []string{"127.0.0.1:1/derper:1"}, cli.ExitFailed, []string{"connection refused", "hint: "}},
		{"platform not in the index", []string{"--platform", "linux/" + other, dist}, cli.ExitFailed, []string{"has no image for linux/" + other + ", only for linux/" + runtime.GOARCH, "hint: "}},
		{"not ours", []string{layoutOf(t, stranger)}, cli.ExitFailed, []string{"is not an image that build made", "hint: ", "probe asks any relay"}},
		{"two images", []string{dist, dist}, cli.ExitUsage, []string{"2 images given"}},
		{"unknown platform", []string{"--platform", "linux/vax", dist}, cli.ExitUsage, []string{`unknown platform "linux/vax"`}},
		{"unknown runner", []string{"--runner", "podman", dist}, cli.ExitUsage, []string{"neither native nor docker"}},
		{"bad expression", []string{"--run", "(", dist}, cli.ExitUsage, []string{"--run"}},
		{"no time", []string{"--timeout", "0s", dist}, cli.ExitUsage, []string{"--timeout"}},
		{"no case", []string{"--run", "no-such-case", dist}, cli.ExitFailed, []string{`no case for linux/` + runtime.GOARCH + ` matches "no-such-case"`}},
		{"timeout", []string{"--run", "^probe/ipv4$", "--timeout", "50ms", dist}, cli.ExitFailed, []string{"1 of 1 cases failed", "hint: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if code := run(t.Context(), append([]string{"test"}, tt.args...), &stdout, &stderr); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("does not say %q:\n%s%s", want, stdout.String(), stderr.String())
				}
			}
			if tt.name == "timeout" && !strings.Contains(stdout.String(), "not done within 50ms") {
				t.Errorf("does not say that time is over:\n%s", stdout.String())
			}
			nothingLeft(t, networks(os.Getpid()))
		})
	}
	t.Run("no docker", func(t *testing.T) {
		need.Root(t, "which the docker runner takes before it looks for Docker")
		t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
		var stdout, stderr strings.Builder
		if code := run(t.Context(), []string{"test", "--runner", "docker", "--run", "versions", dist}, &stdout, &stderr); code != cli.ExitFailed {
			t.Errorf("exit code %d", code)
		}
		if all := stdout.String() + stderr.String(); !strings.Contains(all, "docker does not run") && !strings.Contains(all, "docker is not installed") || !strings.Contains(all, "hint: ") {
			t.Errorf("said:\n%s", all)
		}
	})
}

// TestTestResults guards the two forms that machines read, and an image that comes from a registry.
func TestTestResults(t *testing.T) {
	need.Namespaces(t)
	img, _ := realImage(t)
	aloneWithContainers(t)
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(reg.URL, "http://") + "/derper:test")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	junit, results := filepath.Join(t.TempDir(), "junit.xml"), filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr strings.Builder
	if code := run(t.Context(), []string{"test", "--json", "--junit", junit, "--results", results, "--run", "versions|probe/ipv4", ref.String()}, &stdout, &stderr); code != cli.ExitOK {
		t.Fatalf("exit code %d\n%s", code, stderr.String())
	}
	var got struct {
		Source    string
		Passed    bool
		Platforms []struct {
			Platform, Runner string
			Cases            []struct {
				Name, Result string
				Ms           int
			}
		}
	}
	if err := json.Unmarshal([]byte(stdout.String()), &got); err != nil {
		t.Fatalf("%v\n%s", err, stdout.String())
	}
	if !got.Passed || got.Source != ref.String() || len(got.Platforms) != 1 || len(got.Platforms[0].Cases) != 2 || got.Platforms[0].Cases[0].Ms == 0 {
		t.Errorf("result: %s", stdout.String())
	}
	b, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Suites []struct {
			Tests int `xml:"tests,attr"`
			Cases []struct {
				Name string `xml:"name,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b, &suites); err != nil || len(suites.Suites) != 1 || suites.Suites[0].Tests != 2 || len(suites.Suites[0].Cases) != 2 {
		t.Errorf("JUnit: %v\n%s", err, b)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(results); err != nil {
		t.Fatal(err)
	}
	tests, err := attest.ParseTests(b)
	if err != nil || len(tests) != 1 || tests[0].Digest != digest.String() || len(tests[0].Passed) != 2 || tests[0].Runner != "native" {
		t.Errorf("results: %v\n%s", err, b)
	}
	if !strings.Contains(stderr.String(), "test with native") {
		t.Errorf("no progress:\n%s", stderr.String())
	}
}

// networks are the network namespaces of the containers that a process has under way.
func networks(pid int) map[string]bool {
	found := map[string]bool{}
	for _, child := range childrenCalled(pid, "derper-container-") {
		if ns, err := os.Readlink("/proc/" + child + "/ns/net"); err == nil {
			found[ns] = true
		}
	}
	return found
}

// nothingLeft fails if there are processes in these networks, or files in the folder for temporary ones, which the
// test has to itself.
func nothingLeft(t *testing.T, networks map[string]bool) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		left, _ := filepath.Glob(filepath.Join(os.TempDir(), "derper-container-*", "*"))
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			if ns, err := os.Readlink(p + "/ns/net"); err == nil && networks[ns] {
				cmdline, _ := os.ReadFile(p + "/cmdline")
				left = append(left, fmt.Sprintf("%s: %q", p, cmdline))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("left behind: %q", left)
		}
	}
}

// TestTestInterrupted guards against containers that outlive the tester: after Ctrl-C nothing is left, and what a
// killed one leaves, the next one removes.
func TestTestInterrupted(t *testing.T) {
	need.Namespaces(t)
	realImage(t)
	dist, err := realBuild()
	if err != nil {
		t.Fatal(err)
	}
	aloneWithContainers(t)
	t.Setenv("TMPDIR", t.TempDir()) // so that what others run is not taken for ours
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
	}{{"Ctrl-C", syscall.SIGINT}, {"kill -9", syscall.SIGKILL}} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("build", "test", dist)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(30 * time.Second); len(childrenCalled(cmd.Process.Pid, "derper-container-")) == 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("no container was started\n%s", &stderr)
				}
			}
			time.Sleep(500 * time.Millisecond) // into its work
			theirs := networks(cmd.Process.Pid)
			began := time.Now()
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("ended after %v", took)
			}
			var exit *exec.ExitError
			if tt.signal == syscall.SIGINT && (!errors.As(err, &exit) || exit.ExitCode() != cli.ExitInterrupted || !strings.Contains(stderr.String(), "interrupted\nhint: ")) {
				t.Errorf("ended with %v, want exit code %d:\n%s", err, cli.ExitInterrupted, &stderr)
			}
			if tt.signal == syscall.SIGKILL {
				if out, err := exec.Command("build", "test", "--run", "^versions$", dist).CombinedOutput(); err != nil {
					t.Errorf("the next run: %v\n%s", err, out)
				}
			}
			nothingLeft(t, theirs)
		})
	}
}

// childrenCalled lists the children of a process whose argument 0 begins so.
func childrenCalled(pid int, prefix string) []string {
	var found []string
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range tasks {
		b, _ := os.ReadFile(path)
		for _, child := range strings.Fields(string(b)) {
			if cmdline, _ := os.ReadFile("/proc/" + child + "/cmdline"); bytes.HasPrefix(cmdline, []byte(prefix)) {
				found = append(found, child)
			}
		}
	}
	return found
}
