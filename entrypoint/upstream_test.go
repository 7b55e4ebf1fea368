package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// A derperFlag is a flag as `derper -h` prints it.
type derperFlag struct{ name, kind, def string }

var (
	flagLine    = regexp.MustCompile(`^  -(\S+)(?: (\S+))?$`)
	defaultText = regexp.MustCompile(`\(default ("?)(.*?)"?\)$`)
)

// derperFlags parses what `derper -h` prints. Package flag prints a flag in
// one line, its usage and default in the next.
func derperFlags(t *testing.T, usage string) map[string]derperFlag {
	t.Helper()
	flags := make(map[string]derperFlag)
	lines := strings.Split(usage, "\n")
	for i, line := range lines {
		m := flagLine.FindStringSubmatch(line)
		if m == nil || i+1 == len(lines) {
			continue
		}
		f := derperFlag{name: m[1], kind: m[2]}
		if d := defaultText.FindStringSubmatch(lines[i+1]); d != nil {
			f.def = d[2]
		}
		flags[f.name] = f
	}
	if len(flags) < 30 {
		t.Fatalf("found %d flags only; has the form of `derper -h` changed?\n%s", len(flags), usage)
	}
	return flags
}

// kindOf is how package flag names the type of a variable.
func kindOf(v setting.Variable) string {
	switch v.Type {
	case setting.Bool:
		return ""
	case setting.Port, setting.HTTPPort, setting.Count:
		return "int"
	case setting.Rate:
		return "float"
	case setting.Span:
		return "duration"
	}
	return "string"
}

// compareFlags says what must be done to make the table complete again.
func compareFlags(flags map[string]derperFlag) (todo []string) {
	for _, v := range setting.Table() {
		if v.Flag == "" {
			continue
		}
		f, ok := flags[v.Flag]
		if !ok {
			todo = append(todo, fmt.Sprintf("derper has no -%s any more: remove %s from the table", v.Flag, v.Name))
			continue
		}
		// A word in backquotes within the usage stands in for the type.
		if kind := f.kind; kind != kindOf(v) && !(v.Flag == "unpublished-bootstrap-dns-names" && kind == "0") {
			todo = append(todo, fmt.Sprintf("-%s is a %q now, not a %q: change the type of %s", v.Flag, kind, kindOf(v), v.Name))
		}
		want := v.Derper
		if want == "false" || want == "0" { // package flag prints no zero values
			want = ""
		}
		if f.def != want {
			todo = append(todo, fmt.Sprintf("-%s has the default %q now, not %q: change Derper of %s", v.Flag, f.def, want, v.Name))
		}
	}
	for name, f := range flags {
		if _, ok := setting.ByFlag(name); !ok {
			variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			todo = append(todo, fmt.Sprintf("derper has a new flag: add to the table {Name: %q, Flag: %q, Default: %q, Derper: %[3]q, Type: the one for %q, Help: …}",
				variable, name, f.def, f.kind))
		}
	}
	return todo
}

// The mistake it guards: a flag that upstream adds, drops or changes, and that
// the table has not.
func TestTableMatchesDerper(t *testing.T) {
	cmd := exec.Command(derperBinary(t), "-h")
	cmd.Env = []string{"HOME=$HOME"}
	out, _ := cmd.CombinedOutput() // exit code 0 or 2, depending on the Go version
	flags := derperFlags(t, string(out))
	for _, todo := range compareFlags(flags) {
		t.Error(todo)
	}

	// The test itself can fail: each kind of change is found.
	changed := make(map[string]derperFlag)
	for name, f := range flags {
		changed[name] = f
	}
	delete(changed, "ace")
	changed["new-flag"] = derperFlag{"new-flag", "duration", "5s"}
	changed["http-port"] = derperFlag{"http-port", "string", "80"}
	changed["tcp-user-timeout"] = derperFlag{"tcp-user-timeout", "duration", "16s"}
	todo := strings.Join(compareFlags(changed), "\n")
	for _, want := range []string{
		"derper has no -ace any more: remove ACE",
		`add to the table {Name: "NEW_FLAG", Flag: "new-flag", Default: "5s"`,
		`-http-port is a "string" now, not a "int": change the type of HTTP_PORT`,
		`-tcp-user-timeout has the default "16s" now, not "15s": change Derper of TCP_USER_TIMEOUT`,
	} {
		if !strings.Contains(todo, want) {
			t.Errorf("a change goes unnoticed: %q is not in\n%s", want, todo)
		}
	}
}

// TestDerperTakesTheFlags gives derper itself the flags of several settings.
// With -version it parses them and ends.
func TestDerperTakesTheFlags(t *testing.T) {
	for _, env := range [][]string{
		nil,
		{"ACCEPT_CONNECTION_LIMIT=1e3", "ACCEPT_CONNECTION_BURST=5", "TCP_WRITE_TIMEOUT=0", "HTTP_PORT=-1", "DEV=1", "ACE=T"},
		{"ADDR=[::1]:443", "HOSTNAME=::1", "MESH_WITH=a.example.com, b.example.com/10.0.0.1", "FLAGHOME=blank"},
	} {
		set, problems := setting.Read(env, nil, "")
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
