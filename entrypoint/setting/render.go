package setting

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

// Env is the image's environment as NAME=default, sorted by name: the 28
// variables of the seed image with its defaults, and one for every other flag
// of derper, so that `docker inspect` shows what there is. A variable without
// default has an empty value, which means unset.
func Env() []string {
	var env []string
	for _, v := range table {
		if v.Flag != "" {
			env = append(env, v.Name+"="+v.Default)
		}
	}
	sort.Strings(env)
	return env
}

// Markdown is the table for README.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | derper flag | meaning |\n|---|---|---|---|\n")
	for _, v := range table {
		name, flag, def := "`"+v.Name+"`", "", ""
		if v.Secret {
			name += ", `" + v.FileName() + "`"
		}
		if v.Flag != "" {
			flag = "`-" + v.Flag + "`"
		}
		if v.Default != "" {
			def = "`" + v.Default + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, def, flag, v.Help)
	}
	return b.String()
}

// Usage is the table for --help.
func Usage() string {
	var b strings.Builder
	for _, v := range table {
		name := v.Name
		if v.Secret {
			name += ", " + v.FileName()
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

// DerperEnv is derper's own defaults as an environment, for a derper that was
// started without the entrypoint's variables.
func DerperEnv() []string {
	var env []string
	for _, v := range table {
		switch {
		case v.Flag == "":
			env = append(env, v.Name+"=")
		default:
			env = append(env, v.Name+"="+strings.ReplaceAll(v.Derper, "$HOME", os.Getenv("HOME")))
		}
	}
	return env
}
