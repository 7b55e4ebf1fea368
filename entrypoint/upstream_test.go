package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// TestDerperTakesTheFlags gives derper itself the flags of several settings.
// With -version it parses them and ends.
func TestDerperTakesTheFlags(t *testing.T) {
	for _, env := range [][]string{
		nil,
		{"ACCEPT_CONNECTION_LIMIT=1e3", "ACCEPT_CONNECTION_BURST=5", "TCP_WRITE_TIMEOUT=0", "HTTP_PORT=-1", "DEV=1", "ACE=T"},
		{"ADDR=[::1]:443", "HOSTNAME=::1", "MESH_WITH=a.example.com, b.example.com/10.0.0.1", "FLAGHOME=blank"},
	} {
		set, problems := setting.Known().Read(env, nil, "")
		if len(problems) > 0 {
			t.Fatalf("%v: %v", env, problems)
		}
		out, err := exec.Command(derperBinary(t), append(set.Flags(), "-version")...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: derper refuses %q: %s", env, set.Flags(), out)
		}
	}
}

// The mistake it guards: a dependency that keeps it from being compiled without
// this module's requirements.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const own = "github.com/xavieralpha/derper/entrypoint"
	for _, path := range strings.Fields(string(out)) {
		if path != own && !strings.HasPrefix(path, own+"/") {
			t.Errorf("imports %s; only the standard library and packages below entrypoint/ are allowed", path)
		}
	}
}

// The mistake it guards: files that the build program does not embed.
func TestCompilesAlone(t *testing.T) {
	dir := t.TempDir()
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, "entrypoint", path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module github.com/xavieralpha/derper\n\ngo 1.26\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, platform := range []string{"linux/amd64", "linux/arm64"} { // the others: see bench/entrypoint
		goos, goarch, _ := strings.Cut(platform, "/")
		target := filepath.Join(dir, goarch)
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", target, "./entrypoint")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOPROXY=off", "GOOS="+goos, "GOARCH="+goarch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", platform, err, out)
		}
		fi, err := os.Stat(target)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", platform, fi.Size())
		if fi.Size() >= 8_000_000 {
			t.Errorf("%s: %d bytes; it must stay under 8 MB", platform, fi.Size())
		}
	}
}
