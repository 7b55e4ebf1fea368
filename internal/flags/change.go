package flags

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// A Change is a change in derper's command line.
type Change struct {
	Flag string `json:"flag"`
	// Change is new, removed, type or default.
	Change string `json:"change"`
	// Old and New are the type or the default; of a new or removed flag, both in one.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Variable is the entrypoint's for the flag.
	Variable string `json:"variable"`
	// Kept is the variable's default, where that is the image's own whatever derper's is.
	Kept string `json:"kept,omitempty"`
}

// String says what changed, and what that is for who sets the variable.
func (c Change) String() string {
	switch c.Change {
	case "new":
		return fmt.Sprintf("-%s is new (%s): %s", c.Flag, c.New, c.Variable)
	case "removed":
		return fmt.Sprintf("-%s is gone (%s): a relay for which %s is set does not start", c.Flag, c.Old, c.Variable)
	}
	said := fmt.Sprintf("-%s (%s) has another %s: %s → %s", c.Flag, c.Variable, c.Change, shown(c.Old), shown(c.New))
	if c.Kept != "" {
		said += "; the image's stays " + c.Kept
	}
	return said
}

func shown(text string) string { return cmp.Or(text, "none") }

// Changes are what changed from one release to another, by flag.
func Changes(old, new setting.Release) (list []Change) {
	before, after := byName(old), byName(new)
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		from, had := before[name]
		to, has := after[name]
		add := func(change, a, b string, of setting.Release) {
			v, _ := of.Table().ByFlag(name)
			c := Change{Flag: name, Change: change, Old: a, New: b, Variable: v.Name}
			if v.Ours && change == "default" {
				c.Kept = v.Default
			}
			list = append(list, c)
		}
		switch {
		case !had:
			add("new", "", inOne(to), new)
		case !has:
			add("removed", inOne(from), "", old)
		default:
			if from.Type != to.Type {
				add("type", string(from.Type), string(to.Type), new)
			}
			if shownDefault(from) != shownDefault(to) {
				add("default", shownDefault(from), shownDefault(to), new)
			}
		}
	}
	return list
}

func byName(r setting.Release) map[string]setting.Flag {
	list := map[string]setting.Flag{}
	for _, f := range r.Flags {
		list[f.Name] = f
	}
	return list
}

// inOne are type and default.
func inOne(f setting.Flag) string {
	return strings.TrimSuffix(string(f.Type)+", default "+shownDefault(f), ", default ")
}

func shownDefault(f setting.Flag) string {
	if f.Computed {
		return "computed"
	}
	return f.Default
}
