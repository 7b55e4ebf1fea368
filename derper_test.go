package derper

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// TestEntrypointSource guards against a file of the entrypoint that is not in its
// source, or one that is and does not belong there.
func TestEntrypointSource(t *testing.T) {
	var got []string
	dir := t.TempDir()
	if err := os.CopyFS(dir, EntrypointSource()); err != nil {
		t.Fatal(err)
	}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "list", "-deps", "-f", `{{$dir := .ImportPath}}{{if not .Standard}}{{range .GoFiles}}{{$dir}}/{{.}} {{end}}{{end}}`, "./entrypoint").Output()
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]bool{}
	for _, name := range got {
		in[name] = true
		if strings.HasSuffix(name, "_test.go") || path.Ext(name) != ".go" {
			t.Errorf("%s is in the source", name)
		}
	}
	for name := range strings.FieldsSeq(string(out)) {
		if name := strings.TrimPrefix(name, Module+"/"); !in[name] {
			t.Errorf("%s is not in the source", name)
		}
	}
}

// TestNoTesting guards against a package for tests that gets into a program.
func TestNoTesting(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}: {{join .Imports " "}}{{end}}`, "./cmd/...", "./ci", "./entrypoint").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, imports, _ := strings.Cut(line, ": ")
		if !strings.HasPrefix(name, Module) {
			continue
		}
		for used := range strings.FieldsSeq(imports) {
			ours := strings.HasPrefix(used, Module) && (strings.HasSuffix(used, "test") && path.Base(used) != "attest" || strings.Contains(used, "/internal/testing") || strings.HasSuffix(used, "/testlock"))
			if used == "testing" || strings.HasPrefix(used, "testing/") || ours {
				t.Errorf("%s imports %s", name, used)
			}
		}
	}
}
