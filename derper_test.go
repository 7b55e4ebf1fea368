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

// TestArchitecture guards the directions of imports that docs/architecture.md has: no
// package imports one of a row above its own.
func TestArchitecture(t *testing.T) {
	doc, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "imports nothing above it.\n\n")
	rows, _, found := strings.Cut(rest, "\n\n")
	if !found {
		t.Fatal("docs/architecture.md has no rows of packages")
	}
	rank := map[string]int{}
	for i, row := range strings.Split(rows, "\n") {
		for name := range strings.FieldsSeq(row) {
			if _, err := os.Stat(name); err != nil {
				name = "internal/" + name
			}
			rank[name] = i
		}
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, "./cmd/...", "./ci", "./internal/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	place := func(name string) (int, bool) {
		name = strings.TrimPrefix(name, Module+"/")
		for dir := name; dir != "."; dir = path.Dir(dir) { // a folder in a package's folder is a part of it
			if r, ok := rank[dir]; ok {
				return r, true
			}
		}
		return 0, strings.HasSuffix(name, "test") || strings.HasSuffix(name, "testlock") || strings.Contains(name, "/testdata/")
	}
	for line := range strings.Lines(string(out)) {
		name, imports, _ := strings.Cut(line, ": ")
		from, known := place(name)
		if !known {
			t.Errorf("%s has no row in docs/architecture.md", name)
		}
		for used := range strings.FieldsSeq(imports) {
			if to, known := place(used); known && strings.HasPrefix(used, Module+"/internal/") && to < from && !strings.HasSuffix(name, "test") {
				t.Errorf("%s imports %s, which is above it", name, used)
			}
		}
	}
}
