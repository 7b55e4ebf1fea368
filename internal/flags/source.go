package flags

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"strconv"
	"strings"
)

// A source is a package as the type checker knows it.
type source struct {
	Package
	files []*ast.File
	types *types.Package
	info  *types.Info // nil if only the package's constants are of interest
}

// errUnknown is said of a package whose content is not known. The type checker takes it
// that there is one, with anything in it.
var errUnknown = errors.New("package is not known")

// importer is how the type checker gets at the packages that a package imports.
type importer func(path string) (*types.Package, error)

func (i importer) Import(path string) (*types.Package, error) { return i(path) }

// load type-checks one of the program's packages, and before it those that it imports. Of one
// that defines no flags, only the constants count, and the imports that they refer to.
func (r *reader) load(of string) *source {
	if s, ok := r.sources[of]; ok {
		return s
	}
	r.sources[of] = nil
	p := r.packages[of]
	s := &source{Package: p}
	for _, name := range p.Files {
		if r.err != nil {
			break
		}
		data, err := p.Open(name)
		if err != nil {
			r.err = fmt.Errorf("source of %s: %w", p.Path, err)
			break
		}
		s.files = append(s.files, r.parse(path.Join(p.Path, name), data))
	}
	imports := r.imported
	if p.mayDefine() {
		s.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	} else {
		needed := r.constantImports(s.files)
		imports = func(path string) (*types.Package, error) {
			if !needed[path] {
				return nil, errUnknown
			}
			return r.imported(path)
		}
	}
	s.types = r.check(p.Path, s.files, imports, s.info)
	r.sources[of] = s
	return s
}

// constantImports are the packages that the constants of a package refer to, by path.
func (r *reader) constantImports(files []*ast.File) map[string]bool {
	needed := map[string]bool{}
	for _, file := range files {
		names := map[string]string{} // path by name
		for _, spec := range file.Imports {
			at, _ := strconv.Unquote(spec.Path.Value)
			name := cmp.Or(r.packages[at].Name, path.Base(at))
			if spec.Name != nil {
				name = spec.Name.Name
			}
			names[name] = at
		}
		for _, d := range file.Decls {
			if d, ok := d.(*ast.GenDecl); !ok || d.Tok != token.CONST {
				continue
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if name, ok := s.X.(*ast.Ident); ok {
						needed[names[name.Name]] = true
					}
				}
				return true
			})
		}
	}
	return needed
}

// imported is a package of the program, or what is known of the standard library.
func (r *reader) imported(path string) (*types.Package, error) {
	if _, ok := r.packages[path]; ok {
		if s := r.load(path); s != nil {
			return s.types, nil
		}
	}
	return r.standard(path)
}

// standard is what of the standard library decides about flags.
func (r *reader) standard(path string) (*types.Package, error) {
	text, ok := stubs[path]
	if !ok {
		return nil, errUnknown
	}
	s := r.sources[path]
	if s == nil {
		s = &source{files: []*ast.File{r.parse(path, []byte(text))}}
		s.types = r.check(path, s.files, r.standard, nil)
		r.sources[path] = s
	}
	return s.types, nil
}

func (r *reader) parse(name string, data []byte) *ast.File {
	file, err := parser.ParseFile(r.set, name, data, parser.SkipObjectResolution|parser.AllErrors)
	if err != nil {
		r.problems = append(r.problems, err.Error())
	}
	return file
}

// check type-checks a package, without the bodies of functions if info is nil. Most of what it
// imports is unknown, so there are always errors: what they are about gets no type, no value.
func (r *reader) check(path string, files []*ast.File, imports importer, info *types.Info) *types.Package {
	c := types.Config{
		IgnoreFuncBodies:         info == nil,
		DisableUnusedImportCheck: true,
		Error:                    func(error) {},
		Importer:                 imports,
		Sizes:                    r.sizes,
	}
	p, _ := c.Check(path, r.set, files, info)
	return p
}

// stubs are the part of the standard library that decides about flags, by import path:
// functions that define one, and constants for defaults.
var stubs = map[string]string{
	"flag": flagSource(),
	"time": `package time

type Duration int64

const (
	Nanosecond  Duration = 1
	Microsecond          = 1000 * Nanosecond
	Millisecond          = 1000 * Microsecond
	Second               = 1000 * Millisecond
	Minute               = 60 * Second
	Hour                 = 60 * Minute
)
`,
	"math": `package math

const (
	MaxInt    = 1<<(intSize-1) - 1
	MinInt    = -1 << (intSize - 1)
	MaxInt8   = 1<<7 - 1
	MinInt8   = -1 << 7
	MaxInt16  = 1<<15 - 1
	MinInt16  = -1 << 15
	MaxInt32  = 1<<31 - 1
	MinInt32  = -1 << 31
	MaxInt64  = 1<<63 - 1
	MinInt64  = -1 << 63
	MaxUint   = 1<<intSize - 1
	MaxUint8  = 1<<8 - 1
	MaxUint16 = 1<<16 - 1
	MaxUint32 = 1<<32 - 1
	MaxUint64 = 1<<64 - 1

	MaxFloat32             = 0x1p127 * (1 + (1 - 0x1p-23))
	SmallestNonzeroFloat32 = 0x1p-126 * 0x1p-23
	MaxFloat64             = 0x1p1023 * (1 + (1 - 0x1p-52))
	SmallestNonzeroFloat64 = 0x1p-1022 * 0x1p-52

	intSize = 32 << (^uint(0) >> 63)
)
`,
}

// flagSource is package flag with nothing but the functions that define a flag. What else it
// has does not matter: a flag set of NewFlagSet, say, is one that is not known.
func flagSource() string {
	var b strings.Builder
	b.WriteString(`package flag

import "time"

type FlagSet struct{}

var CommandLine *FlagSet

type Value interface {
	String() string
	Set(string) error
}

`)
	for _, receiver := range []string{"", "(f *FlagSet) "} {
		for _, f := range [][2]string{
			{"Bool", "bool"}, {"Int", "int"}, {"Int64", "int64"}, {"Uint", "uint"}, {"Uint64", "uint64"},
			{"Float64", "float64"}, {"String", "string"}, {"Duration", "time.Duration"},
		} {
			fmt.Fprintf(&b, "func %s%s(name string, value %s, usage string) *%[3]s\n", receiver, f[0], f[1])
			fmt.Fprintf(&b, "func %s%sVar(p *%s, name string, value %[3]s, usage string)\n", receiver, f[0], f[1])
		}
		fmt.Fprintf(&b, "func %sTextVar(p any, name string, value any, usage string)\n", receiver)
		fmt.Fprintf(&b, "func %sFunc(name, usage string, fn func(string) error)\n", receiver)
		fmt.Fprintf(&b, "func %sBoolFunc(name, usage string, fn func(string) error)\n", receiver)
		fmt.Fprintf(&b, "func %sVar(value Value, name string, usage string)\n", receiver)
	}
	return b.String()
}
