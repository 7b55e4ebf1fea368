// Package features reads which features tailscale's programs can be built without, and
// says with which build tags a program has only some of them.
//
// It promises to know what upstream's own list says, dependencies included, and to refuse
// a list whose form it does not know. It does not know whether a program works without a
// feature: the suite does.
package features

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// File is where upstream's source has the list.
const File = "feature/featuretags/featuretags.go"

// Beginnings of the build tags of features.
const (
	omit    = "ts_omit_"
	include = "ts_include_"
)

// A Table is the features of a release, by name.
type Table map[string]Feature

// A Feature is one of upstream's features.
type Feature struct {
	// About is upstream's description.
	About string
	// Requires are the features that it requires directly.
	Requires []string
	// OptIn is whether programs lack the feature unless a tag includes it.
	OptIn bool
}

// Keep are the features that a program has when it is to have the given ones: those, and
// what they require. Unknown are those that are in no list of the release.
func (t Table) Keep(features []string) (kept map[string]bool, unknown []string) {
	kept = map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if f, ok := t[name]; ok && !kept[name] {
			kept[name] = true
			for _, other := range f.Requires {
				add(other)
			}
		}
	}
	for _, name := range features {
		if _, ok := t[name]; !ok {
			unknown = append(unknown, name)
		}
		add(name)
	}
	return kept, unknown
}

// Tags are the build tags with which a program has the given features and what they
// require, and no others, sorted.
func (t Table) Tags(features []string) (tags []string) {
	kept, _ := t.Keep(features)
	for name, f := range t {
		if f.OptIn == kept[name] {
			tags = append(tags, t.tag(name))
		}
	}
	slices.Sort(tags)
	return tags
}

// tag is the build tag that leaves a feature out, or takes it in if that is what it needs.
func (t Table) tag(name string) string {
	if t[name].OptIn {
		return include + name
	}
	return omit + name
}

// Of is the feature that a build tag is of, "" if it is of none.
func Of(tag string) string {
	for _, prefix := range []string{omit, include} {
		if name, ok := strings.CutPrefix(tag, prefix); ok {
			return name
		}
	}
	return ""
}

// Unknown are those of the tags that are of a feature which the release does not have.
// They change nothing in what is compiled.
func (t Table) Unknown(tags []string) (unknown []string) {
	for _, tag := range tags {
		name := Of(tag)
		if _, ok := t[name]; name != "" && (!ok || t.tag(name) != tag) {
			unknown = append(unknown, tag)
		}
	}
	return unknown
}

// Required are the features of which a kept one says that it requires the named one
// directly, sorted.
func (t Table) Required(name string, kept map[string]bool) (by []string) {
	for _, other := range slices.Sorted(maps.Keys(kept)) {
		if slices.Contains(t[other].Requires, name) {
			by = append(by, other)
		}
	}
	return by
}

// Parse reads upstream's list out of the source of [File].
func Parse(source []byte) (Table, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, File, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("upstream's features: %w", err)
	}
	p := &reader{set: set, constants: map[string]string{}}
	table := p.table(file)
	if p.err == nil && len(table) == 0 {
		p.fail(file, "found no map Features")
	}
	for _, name := range p.optIn(file) {
		if f, ok := table[name]; ok {
			f.OptIn = true
			table[name] = f
		}
	}
	for name, f := range table {
		for _, other := range f.Requires {
			if _, ok := table[other]; !ok {
				p.fail(file, "%s requires %s, which is not among the features", name, other)
			}
		}
	}
	if p.err != nil {
		return nil, p.err
	}
	return table, nil
}

// A reader reads expressions of the list. Its first error stays.
type reader struct {
	set       *token.FileSet
	constants map[string]string
	err       error
}

func (p *reader) fail(at ast.Node, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("upstream's features: %s: %s: internal/features reads the form that upstream had until now",
			p.set.Position(at.Pos()), fmt.Sprintf(format, args...))
	}
}

// table reads the constants of the file and the map Features.
func (p *reader) table(file *ast.File) Table {
	table := Table{}
	var list *ast.CompositeLit
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range decl.Specs {
			spec, ok := s.(*ast.ValueSpec)
			if !ok || len(spec.Names) != len(spec.Values) {
				continue
			}
			for i, name := range spec.Names {
				if literal, ok := spec.Values[i].(*ast.BasicLit); ok && decl.Tok == token.CONST && literal.Kind == token.STRING {
					p.constants[name.Name] = p.text(literal)
				}
				if name.Name == "Features" {
					list, _ = spec.Values[i].(*ast.CompositeLit)
				}
			}
		}
	}
	if list == nil {
		return nil
	}
	p.members(list, func(key, value ast.Expr) {
		name := p.text(key)
		if _, twice := table[name]; twice || name == "" {
			p.fail(key, "expected the name of another feature, got %q", name)
		}
		table[name] = p.feature(value)
	})
	return table
}

func (p *reader) feature(value ast.Expr) (f Feature) {
	meta, ok := value.(*ast.CompositeLit)
	if !ok {
		p.fail(value, "expected a literal of a feature")
		return f
	}
	p.members(meta, func(key, value ast.Expr) {
		switch field, _ := key.(*ast.Ident); {
		case field == nil:
			p.fail(key, "expected the name of a field")
		case field.Name == "Desc":
			f.About = p.text(value)
		case field.Name == "Deps":
			list, ok := value.(*ast.CompositeLit)
			if !ok {
				p.fail(value, "expected a literal list of features")
				return
			}
			for _, e := range list.Elts {
				f.Requires = append(f.Requires, p.text(e))
			}
		}
	})
	return f
}

// members are the keys and values of a literal of a map or struct.
func (p *reader) members(list *ast.CompositeLit, each func(key, value ast.Expr)) {
	for _, e := range list.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			p.fail(e, "expected a key and a value")
			continue
		}
		each(kv.Key, kv.Value)
	}
}

// text is a string literal, or a constant of the file that is one.
func (p *reader) text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return s
		}
	case *ast.Ident:
		if s, ok := p.constants[e.Name]; ok {
			return s
		}
	}
	p.fail(e, "expected a string")
	return ""
}

// optIn are the features for which the method IsOmittable returns false.
func (p *reader) optIn(file *ast.File) (names []string) {
	found := false
	for _, d := range file.Decls {
		method, ok := d.(*ast.FuncDecl)
		if !ok || method.Name.Name != "IsOmittable" || method.Body == nil {
			continue
		}
		found = true
		for i, stmt := range method.Body.List {
			choice, isSwitch := stmt.(*ast.SwitchStmt)
			if !isSwitch {
				if i+1 < len(method.Body.List) || !returns(stmt, "true") {
					p.fail(stmt, "expected one switch, and true for all others")
				}
				continue
			}
			for _, c := range choice.Body.List {
				clause := c.(*ast.CaseClause)
				if len(clause.List) == 0 || len(clause.Body) != 1 || !returns(clause.Body[0], "false") {
					p.fail(clause, "expected cases that return false")
					continue
				}
				for _, e := range clause.List {
					names = append(names, p.text(e))
				}
			}
		}
	}
	if !found {
		p.fail(file, "found no method IsOmittable")
	}
	return names
}

// returns reports whether a statement returns one constant.
func returns(s ast.Stmt, value string) bool {
	r, ok := s.(*ast.ReturnStmt)
	if !ok || len(r.Results) != 1 {
		return false
	}
	name, ok := r.Results[0].(*ast.Ident)
	return ok && name.Name == value
}
