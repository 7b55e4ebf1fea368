package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
)

// run runs a command line in this process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return standard().program().Run(ctx, args, stdout, stderr)
}

// parse is what a command line means.
func parse(args []string) (parsed *options, err error) {
	e := env{carryOut: func(_ env, _ context.Context, o *options, _, _ io.Writer) error {
		parsed = o
		return nil
	}}
	p := e.program()
	p.Explain = func(given error) error { err = given; return given }
	p.Run(context.Background(), args, io.Discard, io.Discard)
	return parsed, err
}

const checkedIn = "../" + lock.File

func TestParse(t *testing.T) {
	for _, test := range []struct {
		args string
		want string // of the error, "" for none
	}{
		{"", ""},
		{"build", ""},
		{"test --platform linux/arm64", ""},
		{"--platform linux/arm64 test", ""},
		{"verify -- registry.example.com/derper:latest", ""},
		{"release -- --to registry.example.com/derper", ""},
		{"publish", `unknown command "publish"`},
		{"build dist", `unexpected argument "dist"`},
		{"build -- --explain", "build takes no arguments after --"},
		{"test -- --run probe/", "test takes no arguments after --"},
		{"--platform linux/mips", "unknown platform"},
		{"--platform linux/amd64,", "unknown platform"},
		{"release -- --update", "run build update before"},
		{"release -- --update=false", ""},
		{"release -- --key", "--key: no file given"},
		{"release -- --key nowhere.key", "nowhere.key"},
		{"release --platform linux/amd64", "a release has all platforms"},
		{"--load", "unknown flag --load"},
		{"--lock nowhere.json", "nowhere.json"},
	} {
		args := strings.Fields(test.args)
		if !strings.Contains(test.args, "--lock") {
			args = append([]string{"--lock", checkedIn}, args...)
		}
		_, err := parse(args)
		switch {
		case err == nil && test.want != "":
			t.Errorf("%q: no error, want %q", test.args, test.want)
		case err != nil && (test.want == "" || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%q: %v, want %q", test.args, err, test.want)
		}
	}
}

func TestParsePlatforms(t *testing.T) {
	l, err := lock.Read(checkedIn)
	if err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--lock", checkedIn})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.platforms) != len(l.Inputs.Platforms) {
		t.Errorf("all: %v, the lock has %v", o.platforms, l.Inputs.Platforms)
	}
	o, err = parse([]string{"--lock", checkedIn, "--platform", "linux/s390x, linux/arm,linux/s390x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := join(o.platforms); got != "linux/arm/v7 linux/s390x" {
		t.Errorf("platforms: %s, want them in the order of the lock, each once", got)
	}
}

func join(platforms []lock.Platform) string {
	var words []string
	for _, p := range platforms {
		words = append(words, string(p))
	}
	return strings.Join(words, " ")
}

// TestKey guards against a private key that a container cannot find, or that it gets by
// its command line.
func TestKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cosign.key")
	if err := os.WriteFile(file, []byte("the key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--key", file}, {"--key=" + file}} {
		o, err := parse(append([]string{"release", "--lock", checkedIn, "--"}, args...))
		if err != nil {
			t.Fatal(err)
		}
		passed := strings.Join(o.passed, " ")
		if o.key != "the key" || strings.Contains(passed, file) || !strings.HasSuffix(passed, keyFile) {
			t.Errorf("%v: passed on %s, key %q", args, passed, o.key)
		}
	}
}

// TestHelp guards against a help that goes to stderr, or that counts as a failure.
func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"test", "-h"}, &stdout, &stderr); code != cli.ExitOK || stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
	if code := run(context.Background(), []string{"-h"}, &stdout, &stderr); code != cli.ExitOK || stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
	for _, want := range []string{"verify", "release", "--platform", wanted, "dagger run go run ./ci"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("help has no %q:\n%s", want, &stdout)
		}
	}
}

// TestForeignOutput guards against minutes of work for a folder that is somebody
// else's, and against touching it.
func TestForeignOutput(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir()) // it must not come as far as Dagger
	code, said := failure(t, "--lock", checkedIn, "--output", dir)
	if code != cli.ExitFailed || !strings.Contains(said, "not a layout that build wrote") || !strings.Contains(said, "hint: ") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// failure runs the program, which must fail, and returns what it said.
func failure(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, &stdout, &stderr)
	if code == cli.ExitOK || stdout.Len() > 0 {
		t.Errorf("exit code %d, stdout %q", code, &stdout)
	}
	return code, stderr.String()
}

// TestImports guards the direction of imports: nothing but this program knows Dagger,
// and nothing knows this program.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-test", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, "../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < 10 {
		t.Fatalf("go list names %d packages", len(lines))
	}
	for _, line := range lines {
		name, imports, _ := strings.Cut(line, ": ")
		if strings.Contains(name, "derper/ci") {
			continue
		}
		if strings.Contains(imports, "dagger.io/") || strings.Contains(imports, "derper/ci") {
			t.Errorf("%s imports what is for ci alone: %s", name, imports)
		}
	}
}
