package workflowtest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/rhysd/actionlint"
)

// A scope is what expressions see.
type scope struct {
	file *File
	// contexts are github, inputs, vars and so on: maps, lists, strings, bools.
	contexts map[string]any
	// failed and cancelled are what failure() and cancelled() say.
	failed, cancelled bool
}

// text fills in the expressions of a string.
func (s *scope) text(in string) (string, error) {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(in, "${{")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		expr, after, ok := strings.Cut(rest, "}}")
		if !ok {
			return "", fmt.Errorf("%s: an expression without an end", in)
		}
		v, err := s.value(expr)
		if err != nil {
			return "", err
		}
		b.WriteString(asText(v))
		in = after
	}
}

// condition says whether an if: is true. Without one, and without a call of a status
// function, it is so only when nothing failed.
func (s *scope) condition(cond *actionlint.String) (bool, error) {
	if cond == nil {
		return !s.failed, nil
	}
	expr := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(cond.Value), "${{"), "}}")
	node, err := parse(expr)
	if err != nil {
		return false, err
	}
	status := false
	actionlint.VisitExprNode(node, func(n, _ actionlint.ExprNode, _ bool) {
		if call, ok := n.(*actionlint.FuncCallNode); ok {
			switch strings.ToLower(call.Callee) {
			case "always", "failure", "cancelled", "success":
				status = true
			}
		}
	})
	v, err := s.eval(node)
	return truth(v) && (status || !s.failed), err
}

func parse(expr string) (actionlint.ExprNode, error) {
	node, err := actionlint.NewExprParser().Parse(actionlint.NewExprLexer(expr + "}}"))
	if err != nil {
		return nil, fmt.Errorf("%s: %s", strings.TrimSpace(expr), err.Message)
	}
	return node, nil
}

func (s *scope) value(expr string) (any, error) {
	node, err := parse(expr)
	if err != nil {
		return nil, err
	}
	v, err := s.eval(node)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.TrimSpace(expr), err)
	}
	return v, nil
}

// eval evaluates an expression. What a context lacks is empty, as on GitHub.
// Source: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions.
func (s *scope) eval(n actionlint.ExprNode) (any, error) {
	switch n := n.(type) {
	case *actionlint.StringNode:
		return n.Value, nil
	case *actionlint.BoolNode:
		return n.Value, nil
	case *actionlint.VariableNode:
		v, ok := s.contexts[n.Name]
		if !ok {
			return nil, fmt.Errorf("there is no context %s here", n.Name)
		}
		return v, nil
	case *actionlint.ObjectDerefNode:
		v, err := s.eval(n.Receiver)
		if list, ok := v.([]any); ok { // needs.*.result
			var values []any
			for _, e := range list {
				values = append(values, member(e, n.Property))
			}
			return values, err
		}
		return member(v, n.Property), err
	case *actionlint.ArrayDerefNode:
		v, err := s.eval(n.Receiver)
		var values []any
		if m, ok := v.(map[string]any); ok {
			for _, e := range m {
				values = append(values, e)
			}
		}
		return values, err
	case *actionlint.NotOpNode:
		v, err := s.eval(n.Operand)
		return !truth(v), err
	case *actionlint.CompareOpNode:
		l, err := s.eval(n.Left)
		if err != nil {
			return nil, err
		}
		r, err := s.eval(n.Right)
		if !n.Kind.IsEqualityOp() {
			return nil, fmt.Errorf("%s is not known", n.Kind)
		}
		return strings.EqualFold(asText(l), asText(r)) == (n.Kind == actionlint.CompareOpNodeKindEq), err
	case *actionlint.LogicalOpNode:
		l, err := s.eval(n.Left)
		if err != nil || truth(l) == (n.Kind == actionlint.LogicalOpNodeKindOr) {
			return l, err
		}
		return s.eval(n.Right)
	case *actionlint.FuncCallNode:
		var args []any
		for _, a := range n.Args {
			v, err := s.eval(a)
			if err != nil {
				return nil, err
			}
			args = append(args, v)
		}
		return s.call(strings.ToLower(n.Callee), args)
	}
	return nil, fmt.Errorf("%T is not known", n)
}

func (s *scope) call(name string, args []any) (any, error) {
	switch {
	case name == "always" && len(args) == 0:
		return true, nil
	case name == "success" && len(args) == 0:
		return !s.failed, nil
	case name == "failure" && len(args) == 0:
		return s.failed, nil
	case name == "cancelled" && len(args) == 0:
		return s.cancelled, nil
	case name == "fromjson" && len(args) == 1:
		var v any
		err := json.Unmarshal([]byte(asText(args[0])), &v)
		return v, err
	case name == "join" && len(args) == 2:
		list, _ := args[0].([]any)
		var words []string
		for _, e := range list {
			words = append(words, asText(e))
		}
		return strings.Join(words, asText(args[1])), nil
	case name == "contains" && len(args) == 2:
		list, ok := args[0].([]any)
		if !ok {
			return strings.Contains(asText(args[0]), asText(args[1])), nil
		}
		for _, e := range list {
			if strings.EqualFold(asText(e), asText(args[1])) {
				return true, nil
			}
		}
		return false, nil
	}
	return nil, fmt.Errorf("function %s is not known", name)
}

// member is a property of an object. Names are compared without case, as actionlint
// reads them.
func member(v any, name string) any {
	m, _ := v.(map[string]any)
	for key, value := range m {
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return nil
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	}
	return true
}

func asText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		return strconv.FormatBool(v)
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// env adds a section's variables to those outside of it.
func (s *scope) env(section *actionlint.Env, outside map[string]string) (map[string]string, error) {
	all := map[string]string{}
	for name, value := range outside {
		all[name] = value
	}
	if section == nil {
		return all, nil
	}
	for _, v := range section.Vars {
		value, err := s.text(v.Value.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: env %s: %w", s.file.Name, v.Name.Value, err)
		}
		all[v.Name.Value] = value
	}
	return all, nil
}
