package toolchain_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// TestAnalyse guards against a scanner that sees other versions of modules than a compile
// selects, or the release without its version, or that can reach the network.
func TestAnalyse(t *testing.T) {
	r := releasetest.New(t, "../..")
	// The release requires v1.1.0 of dep by way of other alone.
	add := func(path, version, goMod string, files map[string]string) string {
		return r.Add(t, module.Version{Path: path, Version: version}, "module "+path+"\n\ngo 1.24\n"+goMod, files)
	}
	sums := add("example.com/dep", "v1.1.0", "", map[string]string{"dep.go": "package dep\n"})
	sums += add("example.com/other", "v1.0.0", "\nrequire example.com/dep v1.1.0\n", map[string]string{"other.go": "package other\n\nimport _ \"example.com/dep\"\n"})
	release := add(lock.TailscaleModule, "v1.104.0", "\nrequire (\n\texample.com/dep v1.1.0 // indirect\n\texample.com/other v1.0.0\n)\n", map[string]string{
		"go.sum":             sums,
		"cmd/derper/main.go": "package main\n\nimport _ \"example.com/other\"\n\nfunc main() {}\n",
	})
	in := r.Inputs
	in.Tailscale.Version, in.Tailscale.Sum = "v1.104.0", strings.Fields(release)[2]

	dir := releasetest.CacheDir(t)
	tool, err := toolchain.Install(t.Context(), newClient(t, r, dir), in.Go, pipeline.Host, dir, nil, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	env, args := plan.Settings("linux/amd64"), plan.InstallArgs(in, in.Programs[0])
	source := tool.Source(in.Sources()[0])
	analyse := func(s *toolchain.Source, network bool, program string, args ...string) string {
		t.Helper()
		var output bytes.Buffer
		err := s.Analyse(t.Context(), toolchain.Analysis{Program: program, Args: args, Env: env, Work: t.TempDir(), Network: network, Output: &output})
		if err != nil {
			t.Fatal(err)
		}
		return output.String()
	}
	if err := source.Analyse(t.Context(), toolchain.Analysis{Work: t.TempDir()}); err == nil {
		t.Error("a source that was not fetched is analysed")
	}
	if _, err := source.Fetch(t.Context(), env, args, t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	r.Close()
	list := []string{"list", "-deps", "-f", "{{with .Module}}{{.}}{{end}}", "tailscale.com/cmd/derper"}
	got := strings.Fields(analyse(source, false, filepath.Join(tool.Root(), "bin", "go"), list...))
	want := []string{"example.com/dep", "v1.1.0", "example.com/other", "v1.0.0", "tailscale.com", "v1.104.0"}
	if !slices.Equal(got, want) {
		t.Errorf("it sees %q, want %q", got, want)
	}

	// Source of this project is where it is compiled.
	own := tool.OwnSource(&toolchain.Own{Files: derper.EntrypointSource(), Module: "module " + derper.Module + "\n\ngo 1.24\n"})
	if got := analyse(own, false, filepath.Join(tool.Root(), "bin", "go"), "list", "./entrypoint"); got != derper.Module+"/entrypoint\n" {
		t.Errorf("own source: %q", got)
	}

	callersEnvironment(t)
	for _, network := range []bool{false, true} {
		seen := analyse(source, network, "/usr/bin/env")
		for line := range strings.Lines(seen) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if value == fromCaller && (!network || !strings.Contains(strings.ToUpper(name), "_PROXY") && !strings.HasPrefix(name, "SSL_CERT_")) {
				t.Errorf("network %v: inherited %s", network, name)
			}
		}
		if got := strings.Contains(seen, "HTTPS_PROXY="+fromCaller+"\n"); got != network {
			t.Errorf("network %v: has the caller's proxy: %v", network, got)
		}
		if !strings.Contains(seen, "GOPROXY=file://") || !strings.Contains(seen, "GOROOT="+tool.Root()+"\n") || !strings.Contains(seen, "GOARCH=amd64\n") {
			t.Errorf("network %v: go commands are not in the closed environment:\n%s", network, seen)
		}
	}
}
