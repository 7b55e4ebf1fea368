package flags

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/build"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// standardSource are the packages of the standard library that there are stubs of, as they
// are in the Go that runs the test.
func standardSource(t *testing.T, path string) *types.Package {
	t.Helper()
	dir := filepath.Join(build.Default.GOROOT, "src", path)
	p, err := build.ImportDir(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	var files []*ast.File
	for _, name := range p.GoFiles {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, r.parse(name, data))
	}
	return r.check(path, files, r.standard, nil)
}

func newReader(t *testing.T) *reader {
	return &reader{set: token.NewFileSet(), sizes: types.SizesFor("gc", runtime.GOARCH), sources: map[string]*source{}}
}

// The mistake it guards: a function of package flag that nothing here knows, as a newer Go may
// have it, and a constant that is wrong.
func TestStubs(t *testing.T) {
	for path, text := range stubs {
		if _, err := parser.ParseFile(token.NewFileSet(), path, text, 0); err != nil {
			t.Error(err)
		}
		stub, err := newReader(t).standard(path)
		if err != nil {
			t.Fatal(err)
		}
		real := standardSource(t, path).Scope()
		for _, name := range stub.Scope().Names() {
			switch of := stub.Scope().Lookup(name).(type) {
			case *types.Const:
				other, ok := real.Lookup(name).(*types.Const)
				if !ok || !constant.Compare(of.Val(), token.EQL, other.Val()) || of.Type().String() != other.Type().String() {
					t.Errorf("%s.%s is %v, want %v", path, name, of, other)
				}
			default:
				if real.Lookup(name) == nil {
					t.Errorf("there is no %s.%s", path, name)
				}
			}
		}
		if path == "flag" {
			if got, want := defining(stub.Scope()), defining(real); got != want || got == "" {
				t.Errorf("functions that define a flag:\n%s\nwant\n%s", got, want)
			}
		}
	}
}

// defining lists the functions and methods with parameters name and usage, and what the
// package relies on of them: where these are, and of which type a value is.
func defining(scope *types.Scope) string {
	set := scope.Lookup("FlagSet").Type().(*types.Named)
	var functions []*types.Func
	for _, name := range scope.Names() {
		if f, ok := scope.Lookup(name).(*types.Func); ok && f.Exported() {
			functions = append(functions, f)
		}
	}
	for i := range set.NumMethods() {
		if f := set.Method(i); f.Exported() {
			functions = append(functions, f)
		}
	}
	var lines []string
	for _, f := range functions {
		places := map[string]int{"value": -1}
		kind := ""
		for i := range f.Signature().Params().Len() {
			p := f.Signature().Params().At(i)
			places[p.Name()] = i
			if p.Name() == "value" {
				kind = string(kindOf(p.Type()))
			}
		}
		if _, ok := places["usage"]; ok {
			lines = append(lines, fmt.Sprintf("%t %s: name %d, usage %d, value %d %s\n", f.Signature().Recv() != nil, f.Name(), places["name"], places["usage"], places["value"], kind))
		}
	}
	slices.SortFunc(lines, cmp.Compare[string])
	return strings.Join(lines, "")
}
