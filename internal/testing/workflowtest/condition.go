package workflowtest

import (
	"fmt"
	"strings"

	"github.com/rhysd/actionlint"
)

// Condition is what GitHub makes of the condition of a job or a step, in which names such
// as github.repository have values. It is for conditions that compare two texts.
// Source: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions.
func Condition(expression string, values map[string]string) (bool, error) {
	text := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(expression), "${{"), "}}")
	node, perr := actionlint.NewExprParser().Parse(actionlint.NewExprLexer(text + "}}"))
	if perr != nil {
		return false, fmt.Errorf("%s: %w", expression, perr)
	}
	compare, ok := node.(*actionlint.CompareOpNode)
	if !ok {
		return false, fmt.Errorf("%s: not a comparison", expression)
	}
	left, lerr := value(compare.Left, values)
	right, rerr := value(compare.Right, values)
	if lerr != nil || rerr != nil {
		return false, fmt.Errorf("%s: neither a text nor a name that is known", expression)
	}
	switch same := strings.EqualFold(left, right); compare.Kind { // GitHub ignores case
	case actionlint.CompareOpNodeKindEq:
		return same, nil
	case actionlint.CompareOpNodeKindNotEq:
		return !same, nil
	}
	return false, fmt.Errorf("%s: neither == nor !=", expression)
}

// value is the text that an operand stands for.
func value(node actionlint.ExprNode, values map[string]string) (string, error) {
	switch n := node.(type) {
	case *actionlint.StringNode:
		return n.Value, nil
	case *actionlint.ObjectDerefNode:
		if of, ok := n.Receiver.(*actionlint.VariableNode); ok {
			if v, ok := values[of.Name+"."+n.Property]; ok {
				return v, nil
			}
		}
	}
	return "", fmt.Errorf("not known")
}
