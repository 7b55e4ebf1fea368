package upstream

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// derperSource is the folder of derper's own source in tailscale's.
const derperSource = "cmd/derper"

// A FlagChange is a change in derper's command line.
type FlagChange struct {
	Flag string `json:"flag"`
	// Change is new, removed, type or default.
	Change string `json:"change"`
	// Old and New are the type or the default, the latter as an expression of the
	// source; of a new or removed flag, both in one.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Variable is the entrypoint's for this flag, empty if it does not know it.
	Variable string `json:"variable,omitempty"`
}

// String says what changed, and what has to be done in the entrypoint's table.
func (c FlagChange) String() string {
	switch {
	case c.Change == "new" && c.Variable == "":
		return fmt.Sprintf("-%s is new (%s) and the entrypoint does not know it: add it to entrypoint/setting", c.Flag, c.New)
	case c.Change == "new":
		return fmt.Sprintf("-%s is new (%s), the entrypoint knows it as %s", c.Flag, c.New, c.Variable)
	case c.Change == "removed" && c.Variable == "":
		return fmt.Sprintf("-%s is gone, the entrypoint does not know it either", c.Flag)
	case c.Change == "removed":
		return fmt.Sprintf("-%s is gone: remove %s from entrypoint/setting", c.Flag, c.Variable)
	case c.Variable == "":
		return fmt.Sprintf("-%s has another %s: %s → %s; the entrypoint does not know it", c.Flag, c.Change, c.Old, c.New)
	}
	return fmt.Sprintf("-%s has another %s: %s → %s: see to %s in entrypoint/setting", c.Flag, c.Change, c.Old, c.New, c.Variable)
}

// A derperFlag is a flag as the source defines it.
type derperFlag struct{ kind, def string }

func (f derperFlag) String() string {
	if f.def == "" {
		return f.kind
	}
	return f.kind + ", default " + f.def
}

// flagChanges lists what changed between two releases, by flag.
func (r *repository) flagChanges(old, new string) (list []FlagChange, err error) {
	before, berr := r.flags(old)
	after, aerr := r.flags(new)
	if err := cmp.Or(berr, aerr); err != nil {
		return nil, err
	}
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		add := func(change, from, to string) {
			v, _ := setting.ByFlag(name)
			list = append(list, FlagChange{Flag: name, Change: change, Old: from, New: to, Variable: v.Name})
		}
		from, had := before[name]
		to, has := after[name]
		switch {
		case !had:
			add("new", "", to.String())
		case !has:
			add("removed", from.String(), "")
		default:
			if from.kind != to.kind {
				add("type", from.kind, to.kind)
			}
			if from.def != to.def {
				add("default", from.def, to.def)
			}
		}
	}
	return list, nil
}

// flags are derper's flags by name, in the source of a commit. What derper gets
// from packages elsewhere is not seen: the entrypoint's test against derper -h is
// what finds everything.
func (r *repository) flags(version string) (map[string]derperFlag, error) {
	commit, err := r.commit(version)
	if err != nil {
		return nil, err
	}
	files, err := r.files(commit, derperSource)
	if err != nil {
		return nil, fmt.Errorf("derper's source in %s: %w", version, err)
	}
	set := token.NewFileSet()
	flags := map[string]derperFlag{}
	for _, f := range files {
		if !strings.HasSuffix(f.Name, ".go") || strings.HasSuffix(f.Name, "_test.go") {
			continue
		}
		data, err := f.Contents()
		if err != nil {
			return nil, err
		}
		source, err := parser.ParseFile(set, path.Join(derperSource, f.Name), data, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("derper's flags: %w", err)
		}
		ast.Inspect(source, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if name, f, ok := flagOf(set, call); ok {
					flags[name] = f
				}
			}
			return true
		})
	}
	return flags, nil
}

// flagOf is the flag that a call defines, if it is one of package flag's functions
// that do. Source: https://pkg.go.dev/flag.
func flagOf(set *token.FileSet, call *ast.CallExpr) (name string, f derperFlag, ok bool) {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", f, false
	}
	if receiver := text(set, fun.X); receiver != "flag" && receiver != "flag.CommandLine" {
		return "", f, false
	}
	kind, isVar := strings.CutSuffix(fun.Sel.Name, "Var")
	at := 0 // the argument that is the name
	if isVar {
		at = 1
	}
	def := at + 1 // that is the default
	switch kind {
	case "Bool", "Int", "Int64", "Uint", "Uint64", "Float64", "String", "Duration", "Text":
	case "Func", "BoolFunc", "":
		def = -1
	default:
		return "", f, false
	}
	if len(call.Args) <= max(at, def) {
		return "", f, false
	}
	name = text(set, call.Args[at])
	if literal, err := strconv.Unquote(name); err == nil {
		name = literal
	}
	f.kind = cmp.Or(strings.ToLower(kind), "value")
	if def >= 0 {
		f.def = text(set, call.Args[def])
	}
	return name, f, true
}

// text is an expression as it stands in the source, in gofmt's form.
func text(set *token.FileSet, e ast.Expr) string {
	var b bytes.Buffer
	if err := format.Node(&b, set, e); err != nil {
		return ""
	}
	return b.String()
}
