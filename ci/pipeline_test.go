package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
)

func options3(command string, passed ...string) *options {
	return &options{command: command, platforms: []lock.Platform{"linux/amd64", "linux/arm64", "linux/arm/v7"}, passed: passed}
}

// steps lists all steps of a pipeline.
func (p pipeline) steps() []step {
	return append(slices.Clone(p.compile), p.after...)
}

func names(p pipeline) string {
	var out []string
	for _, s := range p.steps() {
		out = append(out, s.name)
	}
	return strings.Join(out, ", ")
}

func TestCompose(t *testing.T) {
	const compile = "compile linux/amd64, compile linux/arm64, compile linux/arm/v7, build"
	for _, test := range []struct{ command, host, want string }{
		{"build", "linux/amd64", compile},
		{"test", "linux/amd64", compile + ", archive, probe, test"},
		{"test", "linux/riscv64", compile + ", test"}, // no image that this engine runs
		{"release", "linux/arm64", compile + ", archive, probe, attest, release update, release build, release scan, release test, release push, release verify, release sign, release tag, release record"},
		{"verify", "linux/amd64", "verify"},
	} {
		if got := names(compose(options3(test.command), lock.Platform(test.host))); got != test.want {
			t.Errorf("%s on %s: %s, want %s", test.command, test.host, got, test.want)
		}
	}
}

// TestCompileSteps guards against a step for a platform that does another's work, and
// against one whose result the others cannot find.
func TestCompileSteps(t *testing.T) {
	p := compose(options3("build"), "linux/amd64")
	for i, platform := range options3("").platforms {
		s := p.compile[i]
		if at := slices.Index(s.args, "--platform"); at < 0 || s.args[at+1] != string(platform) {
			t.Errorf("%s: %v", s.name, s.args)
		}
		if !s.cache || s.live {
			t.Errorf("%s: cache %v, live %v: want what it makes in the shared cache, and an unchanged one not run", s.name, s.cache, s.live)
		}
	}
	build := p.after[0]
	if at := slices.Index(build.args, "--platform"); build.args[at+1] != "linux/amd64,linux/arm64,linux/arm/v7" || !build.cache {
		t.Errorf("build: %v", build.args)
	}
}

// TestPrivileges guards against rights and credentials where they are not needed.
func TestPrivileges(t *testing.T) {
	for _, command := range []string{"build", "test", "verify", "release"} {
		for _, s := range compose(options3(command), "linux/amd64").steps() {
			if s.privileged && s.name != "test" && s.name != "release test" {
				t.Errorf("%s: %s is privileged", command, s.name)
			}
			if s.secrets && !slices.Contains([]string{"verify", "release push", "release verify", "release sign", "release tag", "release record"}, s.name) {
				t.Errorf("%s: %s gets credentials", command, s.name)
			}
			if s.identity && s.name != "release sign" {
				t.Errorf("%s: %s gets what signs", command, s.name)
			}
			if (s.secrets || s.relay || s.privileged) && !s.live {
				t.Errorf("%s: %s can be answered from what an earlier run said", command, s.name)
			}
		}
	}
}

// TestPassedOn guards against arguments that get lost, and against some that lead the
// release away from what the engine built.
func TestPassedOn(t *testing.T) {
	p := compose(options3("release", "--to", "registry.example.com/derper", "--cache", "/nowhere"), "linux/amd64")
	steps := slices.DeleteFunc(slices.Clone(release.Steps), func(s *release.Step) bool { return s.Ahead })
	for i, s := range steps {
		got := p.after[len(p.after)-len(steps)+i]
		want := []string{"release", "--step", s.Name, "--to", "registry.example.com/derper", "--cache", "/nowhere",
			"--lock", lockFile, "--cache", cacheDir, "--folder", releaseDir, "--json"}
		if !slices.Equal(got.args, want) {
			t.Errorf("%s %v, want %v", got.name, got.args, want)
		}
	}
}

func TestReports(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range compose(options3("release"), "linux/amd64").steps() {
		name := s.report()
		if seen[name] || strings.ContainsAny(name, "/ ") || !strings.HasSuffix(name, ".json") {
			t.Errorf("%s: report %q", s.name, name)
		}
		seen[name] = true
		if !slices.Contains(s.args, "--json") {
			t.Errorf("%s: its report is no JSON: %v", s.name, s.args)
		}
	}
}
