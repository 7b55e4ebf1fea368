package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
)

// engineTests need an engine. Where none is reachable they are counted and named: see
// [TestEngine].
var engineTests = []struct {
	name string
	run  func(t *testing.T)
}{
	{"digests", testDigests},
	{"unchanged", testUnchanged},
	{"entrypoint", testEntrypoint},
	{"service", testService},
}

// TestEngine runs the tests that need an engine. Which one, Dagger's variables say.
func TestEngine(t *testing.T) {
	client, err := connect(t.Context(), os.Stderr)
	if err != nil {
		var names []string
		for _, test := range engineTests {
			names = append(names, test.name)
		}
		fmt.Printf("NOT RUN: %d tests of the pipeline need a Dagger Engine %s: %s\nNOT RUN: %v\n", len(names), wanted, strings.Join(names, ", "), err)
		return
	}
	client.Close()
	for _, test := range engineTests {
		t.Run(test.name, test.run)
	}
}

// platforms are those that the tests build; the second is nobody's in a hurry.
const platforms = "linux/amd64,linux/arm64"

// pipe runs the program, which must work, with dir for what it writes.
func pipe(t *testing.T, dir, lockFile, command string) (stdout string) {
	t.Helper()
	var out bytes.Buffer
	args := []string{command, "--lock", lockFile, "--platform", platforms, "--output", dir + "/dist", "--reports", dir + "/reports"}
	if code := run(t.Context(), args, &out, os.Stderr); code != exitOK {
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

// testDigests: what the engine builds is what the lock records, and what comes to the
// client is that.
func testDigests(t *testing.T) {
	dir := t.TempDir()
	pipe(t, dir, checkedIn, "build")
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
		at := slices.IndexFunc(l.Outputs.Platforms, func(o lock.PlatformOutput) bool { return string(o.Platform) == p.Platform })
		if at < 0 || l.Outputs.Platforms[at].Manifest != p.Manifest {
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

// testUnchanged: where nothing changed, nothing runs: the reports are those of the run
// before, to the time that was taken.
func testUnchanged(t *testing.T) {
	dir := t.TempDir()
	pipe(t, dir, checkedIn, "build")
	before, err := os.ReadFile(dir + "/reports/build.json")
	if err != nil {
		t.Fatal(err)
	}
	out := pipe(t, dir, checkedIn, "build")
	after, err := os.ReadFile(dir + "/reports/build.json")
	if err != nil || string(before) != string(after) {
		t.Errorf("the build step ran again (%v)", err)
	}
	if !strings.Contains(out, "(unchanged)") {
		t.Errorf("the layout was written again: %s", out)
	}
}

// testEntrypoint: a change in the entrypoint's source has the entrypoint compiled, and
// nothing else.
func testEntrypoint(t *testing.T) {
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
	pipe(t, out, lock.File, "build")
	for _, platform := range strings.Split(platforms, ",") {
		var s said
		readReport(t, out+"/reports/"+step{name: "compile " + platform}.report(), &s)
		var ran []string
		for _, a := range s.Actions {
			if !a.Cached {
				ran = append(ran, a.Action)
			}
		}
		if want := []string{"entrypoint " + platform, "layer entrypoint " + platform}; !slices.Equal(ran, want) {
			t.Errorf("%s: %v ran, want %v", platform, ran, want)
		}
	}
}

// testService: the image runs as a service and does what clients need of it.
func testService(t *testing.T) {
	dir := t.TempDir()
	pipe(t, dir, checkedIn, "test")
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
