// Package flags reads derper's flags out of its source, without running it.
//
// A flag is defined by a call of one of package flag's functions, or of a method of
// flag.CommandLine, which may have been assigned or passed to a variable. The call counts
//   - in package main, wherever it is,
//   - in other packages: in the initial values of variables, in init functions, and in
//     functions that code which counts refers to.
//
// References are followed from package main and among the packages that import flag: a
// function that is reached only through a third package, or through an interface, does not
// count. Neither do flags of a flag set of the program's own, and calls of a variable that
// holds one of package flag's functions.
//
// A default or a help text is known if it is a constant, of derper's packages, time and math
// included; what derper computes is not guessed.
package flags

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"slices"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// A Package is one of the packages that a program is made of.
type Package struct {
	Path    string   // import path
	Name    string   // "main" for the program's own
	Files   []string // names of the Go files that are compiled: no tests, none of another system
	Imports []string // import paths
	// Open reads one of the files. It is not called for packages whose files are not needed.
	Open func(name string) ([]byte, error)
}

// Read returns the flags of the program that is made of the given packages, sorted by name.
// It opens package main, those that import flag, and what these import for its constants. The
// standard library is not needed. Other packages may be missing: their flags are not found,
// and defaults that are constants of theirs count as computed. Arch, a GOARCH, decides how
// large an int is.
//
// Problems, one a text that begins with file:line:column, are what was not understood: a flag
// whose name is no constant is left out, the last of two definitions counts, and so does what
// can be read of a file with errors, as one in the syntax of a newer Go is. None need be a
// fault of the program. The error is for a file that cannot be opened and an unknown arch.
func Read(packages []Package, arch string) (flags []setting.Flag, problems []string, err error) {
	sizes := types.SizesFor("gc", arch)
	if sizes == nil {
		return nil, nil, fmt.Errorf("derper's flags: unknown architecture %q", arch)
	}
	r := &reader{set: token.NewFileSet(), sizes: sizes, packages: map[string]Package{}, sources: map[string]*source{}, flags: map[string]setting.Flag{}}
	for _, p := range packages {
		r.packages[p.Path] = p
	}
	var sources []*source
	for _, p := range packages {
		if p.mayDefine() {
			sources = append(sources, r.load(p.Path))
		}
	}
	if r.err != nil {
		return nil, nil, fmt.Errorf("derper's flags: %w", r.err)
	}
	code := reached(sources)
	r.followCommandLine(code)
	for _, b := range code {
		ast.Inspect(b.node, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				r.call(b.info, call)
			}
			return true
		})
	}
	flags = slices.SortedFunc(maps.Values(r.flags), func(a, b setting.Flag) int { return cmp.Compare(a.Name, b.Name) })
	return flags, r.problems, nil
}

// mayDefine reports whether the code of a package is followed: all begins in package main,
// whether it imports flag or not.
func (p Package) mayDefine() bool {
	return p.Name == "main" || slices.Contains(p.Imports, "flag")
}

// A reader reads the flags of one program.
type reader struct {
	set         *token.FileSet
	sizes       types.Sizes
	packages    map[string]Package // by path
	sources     map[string]*source // by path; nil while it is loaded
	commandLine map[types.Object]bool
	flags       map[string]setting.Flag // by name
	problems    []string
	err         error // the first: no file is opened after it
}

func (r *reader) problem(at token.Pos, format string, args ...any) {
	r.problems = append(r.problems, r.set.Position(at).String()+": "+fmt.Sprintf(format, args...))
}
