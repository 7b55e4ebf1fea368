package setting

import (
	"fmt"
	"strconv"
	"strings"
)

// parseArgs reads arguments for derper the way package flag does: -name=value,
// -name value, --name; a bool needs no value. It returns texts by variable.
func (t *Table) parseArgs(args []string) (map[string]string, []Problem) {
	given := make(map[string]string)
	var problems []Problem
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
		if len(arg) < 2 || arg[0] != '-' || name == "" || name[0] == '-' || name[0] == '=' {
			// derper would stop reading here and ignore the rest.
			problems = append(problems, Problem{Name: arg, What: "is neither a flag nor a command; --help lists both"})
			continue
		}
		name, text, hasText := strings.Cut(name, "=")
		v, ok := t.ByFlag(name)
		if !ok {
			what := "derper has no such flag; --help lists all"
			if _, off := find(t.off, func(v Variable) bool { return v.Flag == name }); off {
				what = t.lacks(name)
			} else if near := t.nearestFlag(name); near != "" {
				what = fmt.Sprintf("derper has no such flag; did you mean -%s?", near)
			}
			problems = append(problems, Problem{Name: "-" + name, What: what})
			continue
		}
		switch {
		case hasText:
		case v.Type == Bool:
			text = "true"
			if len(args) > 0 {
				if _, err := strconv.ParseBool(args[0]); err == nil {
					problems = append(problems, Problem{Name: "-" + name, What: fmt.Sprintf("write -%s=%s: a flag that is true or false takes its value after the equals sign only", name, args[0])})
					args = args[1:]
				}
			}
		case len(args) == 0:
			problems = append(problems, Problem{Name: "-" + name, What: "needs a value"})
			continue
		default:
			text, args = args[0], args[1:]
		}
		given[v.Name] = text
	}
	return given, problems
}
