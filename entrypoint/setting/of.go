package setting

import (
	"fmt"
	"slices"
	"strings"
)

// A Table is the variables that the image of one release understands.
type Table struct {
	release string // derper's version
	rows    []Variable
	off     []Variable // of flags that the release lacks
}

// Table is what the image of a release understands: the rows that a person wrote, but for
// those of flags that the release lacks, and a variable by rule for each flag that has none.
// A flag that is now of another type than its row is checked by the new one.
func (r Release) Table() *Table {
	t := &Table{release: r.Version}
	flags := map[string]Flag{}
	for _, f := range r.Flags {
		flags[f.Name] = f
	}
	for _, v := range rows {
		f, has := flags[v.Flag]
		switch {
		case v.Flag == "":
			t.rows = append(t.rows, v)
		case !has:
			t.off = append(t.off, v)
		default:
			t.rows = append(t.rows, v.of(f))
		}
		delete(flags, v.Flag)
	}
	for _, f := range r.Flags {
		if _, left := flags[f.Name]; left {
			t.rows = append(t.rows, t.byRule(f))
		}
	}
	return t
}

// KnownRelease is a release that has the flags of all rows, and no others.
func KnownRelease() Release {
	r := Release{Version: "0.0.0"}
	for _, v := range rows {
		if v.Flag == "" {
			continue
		}
		for _, k := range []Kind{KindBool, KindInt, KindFloat64, KindDuration, KindString} {
			if v.fits(k) {
				r.Flags = append(r.Flags, Flag{Name: v.Flag, Type: k, Default: v.Default})
			}
		}
	}
	return r
}

// Known is the table of [KnownRelease].
func Known() *Table { return KnownRelease().Table() }

// Variables are the rows in the order in which they are documented. The slice is the caller's.
func (t *Table) Variables() []Variable { return slices.Clone(t.rows) }

// IsKnown reports whether a variable is one that a person wrote a row for, and is in the
// release what that says.
func (t *Table) IsKnown(name string) bool {
	v, ok := t.Lookup(name)
	return ok && !v.ByRule()
}

// Release is derper's version.
func (t *Table) Release() string { return t.release }

// Off are the rows of flags that the release lacks.
func (t *Table) Off() []Variable { return slices.Clone(t.off) }

// Lookup returns the row with the given variable name.
func (t *Table) Lookup(name string) (Variable, bool) {
	return find(t.rows, func(v Variable) bool { return v.Name == name })
}

// ByFlag returns the row with the given derper flag.
func (t *Table) ByFlag(flag string) (Variable, bool) {
	return find(t.rows, func(v Variable) bool { return v.Flag == flag && flag != "" })
}

func find(rows []Variable, is func(Variable) bool) (Variable, bool) {
	i := slices.IndexFunc(rows, is)
	if i < 0 {
		return Variable{}, false
	}
	return rows[i], true
}

// takes reports whether a name means something already: to this table, or to somebody else.
func (t *Table) takes(name string) bool {
	for _, v := range slices.Concat(t.rows, rows) {
		if slices.Contains(append(v.names(), v.FileName()), name) {
			return true
		}
	}
	if known[name] || foreign[name] != "" || name == "NOTIFY_SOCKET" || strings.HasSuffix(name, "_PROXY") || !strings.ContainsFunc(name, isLetter) {
		return true
	}
	for _, prefix := range []string{"TS_", "DERP_", "DERPER_", "TAILSCALE_", "GO", "LD_", "LC_", "DOCKER_", "KUBERNETES_", "XDG_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func isLetter(c rune) bool { return c >= 'A' && c <= 'Z' }

// of is the row as it is in a release that has the flag. Its default is the flag's, unless it
// is this project's or derper works it out. Where the flag is of another kind than the row, the
// row's name and help stay. A default that is no value of the kind is left to derper.
func (v Variable) of(f Flag) Variable {
	v.kind = f.Type
	if !v.fits(f.Type) {
		v.Type, v.other = generic(f.Type), true
	}
	if !v.Ours && !f.Computed {
		v.Default = f.Default
	}
	if v.Default != "" {
		if _, err := v.parse(v.Default); err != nil {
			v.Default = ""
		}
	}
	return v
}

// fits reports whether what the row takes is what a flag of the kind takes.
func (v Variable) fits(k Kind) bool {
	switch v.Type {
	case Bool:
		return k == KindBool
	case Port, HTTPPort, Count:
		return k == KindInt || k == KindInt64
	case Rate:
		return k == KindFloat64
	case Span:
		return k == KindDuration
	}
	return k == KindString || k == KindValue
}

// ByRule reports whether nobody wrote a row for the flag as it is: its type, and perhaps its
// name, follow from the flag.
func (v Variable) ByRule() bool { return v.rule || v.other }

// isSecret reports whether the words of a flag's name say that its value is a secret, and not
// where one is or what it is called.
func isSecret(words []string) bool {
	secret := slices.ContainsFunc(words, func(word string) bool {
		return slices.Contains([]string{"KEY", "PSK", "SECRET", "TOKEN", "PASSWORD", "PASSPHRASE", "CREDENTIAL"}, strings.TrimSuffix(word, "S"))
	})
	return secret && !slices.Contains([]string{"FILE", "PATH", "DIR", "URL", "ADDR", "ID", "NAME", "PREFIX", "TYPE", "MODE"}, words[len(words)-1])
}

// generic is the type of what package flag takes for a kind.
func generic(k Kind) Type {
	switch k {
	case KindBool:
		return Bool
	case KindInt, KindInt64:
		return Whole
	case KindUint, KindUint64:
		return Unsigned
	case KindFloat64:
		return Float
	case KindDuration:
		return Length
	}
	return Any
}

// byRule is the variable of a flag that nobody wrote a row for: -some-flag is SOME_FLAG, or
// DERPER_SOME_FLAG where that name is taken, with a number where flags differ in their marks
// only. What is called a key, a secret, a token, a password or credentials is one. derper's
// default is not passed on, only shown.
func (t *Table) byRule(f Flag) Variable {
	name := strings.Map(func(c rune) rune {
		if isLetter(c) || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(f.Name))
	words := strings.Split(name, "_")
	if t.takes(name) || name[0] >= '0' && name[0] <= '9' {
		name = "DERPER_" + name
	}
	for base, n := name, 2; ; n++ {
		if _, twice := t.Lookup(name); !twice {
			break
		}
		name = fmt.Sprintf("%s_%d", base, n)
	}
	text := f.Type == KindString || f.Type == KindValue
	v := Variable{
		Name: name, Flag: f.Name, Type: generic(f.Type), Default: f.Default, Help: strings.Join(strings.Fields(f.Help), " "), kind: f.Type, rule: true,
		Secret: text && isSecret(words),
	}
	if v.Secret {
		v.Default = "" // would be shown
	}
	if v.Help == "" {
		v.Help = "derper's -" + f.Name + ", of which its source says nothing"
	}
	return v
}
