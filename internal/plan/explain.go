package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Changes says in which of its parts an action differs from an earlier one of the
// same ID, a line each.
func (a *Action) Changes(old *Action) []string {
	var lines []string
	names := maps.Clone(a.Inputs)
	maps.Copy(names, old.Inputs)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, after := old.Inputs[name], a.Inputs[name]
		switch {
		case before == after:
		case before == "":
			lines = append(lines, fmt.Sprintf("input %s is new: %s", name, after))
		case after == "":
			lines = append(lines, fmt.Sprintf("input %s is gone: %s", name, before))
		default:
			lines = append(lines, fmt.Sprintf("input %s changed: %s → %s", name, before, after))
		}
	}
	list := func(what string, before, after []string) {
		if !slices.Equal(before, after) {
			lines = append(lines, what+" changed: "+differing(before, after))
		}
	}
	list("environment", old.Env, a.Env)
	list("command", old.Args, a.Args)
	list("outputs", old.Outputs, a.Outputs)
	return lines
}

// differing lists what only one of two lists has.
func differing(before, after []string) string {
	var words []string
	only := func(sign string, of, in []string) {
		for _, s := range of {
			if !slices.Contains(in, s) {
				words = append(words, sign+s)
			}
		}
	}
	only("-", before, after)
	only("+", after, before)
	if len(words) == 0 {
		return "order"
	}
	return strings.Join(words, " ")
}
