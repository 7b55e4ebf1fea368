package derper

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
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

// testSupport is the folder of what only tests use.
const testSupport = "internal/testing"

// TestNoTesting guards against what only tests use getting into a program.
func TestNoTesting(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, imports, _ := strings.Cut(line, ": ")
		if strings.HasPrefix(name, Module+"/"+testSupport+"/") {
			continue
		}
		for used := range strings.FieldsSeq(imports) {
			if used == "testing" || strings.HasPrefix(used, "testing/") || strings.HasPrefix(used, Module+"/"+testSupport+"/") {
				t.Errorf("%s imports %s", name, used)
			}
		}
	}
}

var (
	skipLine = regexp.MustCompile(`(?m)^[ \t]*(\[[^\]\n]*\][ \t]*)*skip\b.*$`) // of a script, with conditions or without
	leftOut  = regexp.MustCompile(`NOT (TESTED|RUN|MEASURED)`)
)

// TestNoSkip guards against a skipped test that does not say what it needs: only the
// package need skips tests.
func TestNoSkip(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path.Ext(file) == ".txtar":
			script, err := os.ReadFile(file)
			for _, line := range skipLine.FindAllString(string(script), -1) {
				t.Errorf("%s: a script is skipped without the package need: %s", file, line)
			}
			return err
		case d.IsDir() && (file == testSupport+"/need" || len(file) > 1 && file[0] == '.'):
			return fs.SkipDir
		case !strings.HasSuffix(file, "_test.go") && (path.Ext(file) != ".go" || !strings.HasPrefix(file, testSupport+"/")):
			return nil
		}
		seen++
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, _ := method.X.(*ast.Ident)
			switch method.Sel.Name {
			case "Skip", "Skipf", "SkipNow":
				t.Errorf("%s: a test is skipped without the package need", files.Position(call.Pos()))
			case "Log", "Logf":
				for _, arg := range call.Args {
					if text, ok := arg.(*ast.BasicLit); ok && leftOut.MatchString(text.Value) {
						t.Errorf("%s: a part of a test is left out without the package need", files.Position(call.Pos()))
					}
				}
			case "Short":
				if of != nil && of.Name == "testing" {
					t.Errorf("%s: testing.Short leaves out what the package need is to leave out", files.Position(call.Pos()))
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("%d files of tests: this test tests little", seen)
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
		return 0, false
	}
	for line := range strings.Lines(string(out)) {
		name, imports, _ := strings.Cut(line, ": ")
		if strings.HasPrefix(name, Module+"/"+testSupport+"/") {
			continue
		}
		from, known := place(name)
		if !known {
			t.Errorf("%s has no row in docs/architecture.md", name)
		}
		for used := range strings.FieldsSeq(imports) {
			if to, known := place(used); known && strings.HasPrefix(used, Module+"/internal/") && to < from {
				t.Errorf("%s imports %s, which is above it", name, used)
			}
		}
	}
}
