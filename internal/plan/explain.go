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
	names := map[string]bool{}
	for name := range a.Inputs {
		names[name] = true
	}
	for name := range old.Inputs {
		names[name] = true
	}
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
	if !slices.Equal(old.Env, a.Env) {
		lines = append(lines, "environment changed: "+differing(old.Env, a.Env))
	}
	if !slices.Equal(old.Args, a.Args) {
		lines = append(lines, "command changed: "+differing(old.Args, a.Args))
	}
	if !slices.Equal(old.Outputs, a.Outputs) {
		lines = append(lines, "outputs changed: "+differing(old.Outputs, a.Outputs))
	}
	return lines
}

// differing lists what only one of two lists has.
func differing(before, after []string) string {
	var words []string
	for _, s := range before {
		if !slices.Contains(after, s) {
			words = append(words, "-"+s)
		}
	}
	for _, s := range after {
		if !slices.Contains(before, s) {
			words = append(words, "+"+s)
		}
	}
	if len(words) == 0 {
		return "order"
	}
	return strings.Join(words, " ")
}
