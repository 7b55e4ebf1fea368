package setting

import (
	"fmt"
	"strings"
)

// Markdown is the table for docs/variables.md.
func (t *Table) Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | derper flag | meaning |\n|---|---|---|---|\n")
	for _, v := range t.rows {
		name, flag, def := "`"+v.Name+"`", "", ""
		if v.Secret {
			name += ", `" + v.FileName() + "`"
		}
		if v.Alias != "" {
			name += ", `" + v.Alias + "`"
		}
		if v.Flag != "" {
			flag = code("-" + v.Flag)
		}
		if v.Default != "" {
			def = code(v.Default)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, def, flag, strings.ReplaceAll(v.Help, "|", "\\|"))
	}
	return b.String()
}

// code is a text in a cell of a table, as code.
func code(text string) string {
	return "`" + strings.NewReplacer("|", "\\|", "`", "'", "\n", " ").Replace(text) + "`"
}

// Usage is the table for --help.
func (t *Table) Usage() string {
	var b strings.Builder
	for _, v := range t.rows {
		name := v.Name
		if v.Secret {
			name += ", " + v.FileName()
		}
		if v.Alias != "" {
			name += ", " + v.Alias
		}
		fmt.Fprintf(&b, "  %s", name)
		if v.Flag != "" {
			fmt.Fprintf(&b, "  (-%s)", v.Flag)
		}
		if v.Default != "" {
			fmt.Fprintf(&b, "  default %s", v.Default)
		}
		fmt.Fprintf(&b, "\n        %s\n", strings.ReplaceAll(v.Help, "`", ""))
	}
	return b.String()
}
