package flags

import (
	"go/ast"
	"go/types"
)

// A body is code that runs, or can: a declaration of a package.
type body struct {
	*source
	node ast.Node
}

// reached is the code in which a flag counts, in the order in which it is found.
func reached(sources []*source) (code []body) {
	functions := map[types.Object]body{} // of which it is not known yet
	for _, s := range sources {
		for _, file := range s.files {
			for _, d := range file.Decls {
				f, isFunc := d.(*ast.FuncDecl)
				if isFunc && s.Name != "main" && (f.Recv != nil || f.Name.Name != "init") {
					functions[s.info.Defs[f.Name]] = body{s, d}
					continue
				}
				code = append(code, body{s, d})
			}
		}
	}
	for i := 0; i < len(code); i++ {
		b := code[i]
		ast.Inspect(b.node, func(n ast.Node) bool {
			name, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			if f, ok := b.info.Uses[name].(*types.Func); ok {
				if found, ok := functions[f.Origin()]; ok {
					delete(functions, f.Origin())
					code = append(code, found)
				}
			}
			return true
		})
	}
	return code
}

// followCommandLine finds the variables that hold flag.CommandLine at some time: those that it is
// assigned to, and the parameters that it is passed for.
func (r *reader) followCommandLine(code []body) {
	r.commandLine = map[types.Object]bool{}
	if s := r.sources["flag"]; s != nil {
		r.commandLine[s.types.Scope().Lookup("CommandLine")] = true
	}
	for before := 0; before != len(r.commandLine); {
		before = len(r.commandLine)
		for _, b := range code {
			ast.Inspect(b.node, func(n ast.Node) bool {
				r.passOn(b.info, n)
				return true
			})
		}
	}
}

// passOn looks at one place where flag.CommandLine may be passed on.
func (r *reader) passOn(info *types.Info, n ast.Node) {
	give := func(to types.Object, value ast.Expr) {
		if _, ok := to.(*types.Var); ok && r.commandLine[object(info, value)] {
			r.commandLine[to] = true
		}
	}
	switch n := n.(type) {
	case *ast.AssignStmt:
		for i := range min(len(n.Lhs), len(n.Rhs)) {
			give(object(info, n.Lhs[i]), n.Rhs[i])
		}
	case *ast.ValueSpec:
		for i := range min(len(n.Names), len(n.Values)) {
			give(info.Defs[n.Names[i]], n.Values[i])
		}
	case *ast.KeyValueExpr: // a field
		give(object(info, n.Key), n.Value)
	case *ast.CallExpr:
		f, ok := object(info, n.Fun).(*types.Func)
		if !ok {
			return
		}
		params := f.Signature().Params()
		for i := range min(params.Len(), len(n.Args)) {
			give(params.At(i), n.Args[i])
		}
	}
}

// object is what an expression names, nil if it is no name.
func object(info *types.Info, e ast.Expr) types.Object {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		return info.ObjectOf(e)
	case *ast.SelectorExpr:
		return info.ObjectOf(e.Sel)
	}
	return nil
}
