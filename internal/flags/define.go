package flags

import (
	"go/ast"
	"go/constant"
	"go/types"
	"strconv"
	"time"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// call takes down the flag that a call defines, if it is of one of the functions that do.
func (r *reader) call(info *types.Info, call *ast.CallExpr) {
	f, ok := object(info, call.Fun).(*types.Func)
	if !ok || f.Pkg() == nil || r.sources["flag"] == nil || f.Pkg() != r.sources["flag"].types {
		return
	}
	if f.Signature().Recv() != nil { // a method
		on, ok := ast.Unparen(call.Fun).(*ast.SelectorExpr)
		if !ok || !r.commandLine[object(info, on.X)] {
			return
		}
	}
	// Package flag calls its parameters the same everywhere.
	params := map[string]ast.Expr{}
	kind := setting.KindValue
	for i := range min(f.Signature().Params().Len(), len(call.Args)) {
		p := f.Signature().Params().At(i)
		params[p.Name()] = call.Args[i]
		if p.Name() == "value" {
			kind = kindOf(p.Type())
		}
	}
	name, ok := text(info, params["name"])
	if !ok {
		r.problem(call.Pos(), "the name of a flag is no constant: %s", types.ExprString(call))
		return
	}
	if !setting.IsFlagName(name) {
		r.problem(call.Pos(), "%q is no name of a flag", name)
		return
	}
	flag := setting.Flag{Name: name, Type: kind}
	if value := params["value"]; value != nil {
		flag.Default, flag.Computed = defaultOf(kind, info.Types[value].Value)
	}
	if flag.Help, ok = text(info, params["usage"]); !ok {
		r.problem(call.Pos(), "the help of -%s is no constant", name)
	}
	if _, ok := r.flags[name]; ok {
		r.problem(call.Pos(), "-%s is defined twice: this one counts", name)
	}
	r.flags[name] = flag
}

// kindOf is the kind of a flag whose default has the given type.
func kindOf(t types.Type) setting.Kind {
	switch t := t.(type) {
	case *types.Basic:
		if t.Kind() != types.Invalid {
			return setting.Kind(t.Name()) // of those that package flag has
		}
	case *types.Named:
		if t.Obj().Name() == "Duration" {
			return setting.KindDuration
		}
	}
	return setting.KindValue
}

// text is a constant text.
func text(info *types.Info, e ast.Expr) (string, bool) {
	v := info.Types[e].Value
	if v == nil || v.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(v), true
}

// defaultOf is a constant in the form in which package flag prints a default of a kind. It is
// computed if there is no such constant.
func defaultOf(kind setting.Kind, v constant.Value) (text string, computed bool) {
	if v == nil {
		return "", true
	}
	switch kind {
	case setting.KindBool:
		if v.Kind() == constant.Bool {
			return strconv.FormatBool(constant.BoolVal(v)), false
		}
	case setting.KindString:
		if v.Kind() == constant.String {
			return constant.StringVal(v), false
		}
	case setting.KindFloat64:
		if v = constant.ToFloat(v); v.Kind() == constant.Float {
			f, _ := constant.Float64Val(v)
			return strconv.FormatFloat(f, 'g', -1, 64), false
		}
	case setting.KindInt, setting.KindInt64, setting.KindUint, setting.KindUint64:
		if v.Kind() == constant.Int {
			return v.ExactString(), false
		}
	case setting.KindDuration:
		if n, exact := constant.Int64Val(constant.ToInt(v)); exact {
			return time.Duration(n).String(), false
		}
	}
	return "", true
}
