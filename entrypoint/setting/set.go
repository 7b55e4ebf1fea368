package setting

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// An Origin says where a value comes from.
type Origin string

const (
	FromDefault     Origin = "default"
	FromEnvironment Origin = "environment"
	FromArgument    Origin = "argument"
	FromFile        Origin = "file"
)

// A Value is the effective value of one variable.
type Value struct {
	Variable
	Text   string // as derper gets it; empty means unset
	Origin Origin
	Path   string // of the file, when Origin is FromFile
	From   string // the variable that gave it, when that is the Alias
	Note   string // why what the environment says does not count
	Bad    bool   // a Problem names it; Text is what the user wrote
}

// Source says where the value comes from, in words.
func (val Value) Source() string {
	words := []string{string(val.Origin)}
	for _, w := range []string{val.Path, val.From} {
		if w != "" {
			words = append(words, w)
		}
	}
	if val.Note != "" {
		words = append(words, "("+val.Note+")")
	}
	return strings.Join(words, " ")
}

// A Set holds the effective value of every variable of a table.
type Set struct {
	table  *Table
	values map[string]Value
}

// Table is the table that the set is of.
func (s Set) Table() *Table { return s.table }

// A Problem is one thing that is wrong with one variable. It never holds the
// value of a secret.
type Problem struct {
	Name string // of the variable
	Text string // its value as shown to the user, empty to show none
	What string // what is wrong or allowed, and what to do
}

func (p Problem) Error() string {
	if p.Text == "" {
		return p.Name + ": " + p.What
	}
	return fmt.Sprintf("%s=%q: %s", p.Name, p.Text, p.What)
}

// maxSecret bounds what is read from a file that NAME_FILE names.
const maxSecret = 64 << 10

// Read makes a Set of an environment (NAME=value; of two equal names the first
// counts, as for every program that asks the C library or package os) and
// arguments for derper, which win. Runtimes set HOSTNAME to the machine's own host name,
// in which case it says nothing. Read returns every problem of single values, and a Set
// that can be used in any case.
//
// A variable whose flag the release lacks has the default that it had, which derper never
// gets; setting it to anything else is a problem.
func (t *Table) Read(environ, args []string, machine string) (Set, []Problem) {
	env := make(map[string]string, len(environ))
	for _, kv := range environ {
		name, text, ok := strings.Cut(kv, "=")
		if _, twice := env[name]; ok && !twice {
			env[name] = strings.TrimSpace(text)
		}
	}
	given, problems := t.parseArgs(args)
	set := Set{table: t, values: make(map[string]Value, len(t.rows)+len(t.off))}
	for _, v := range t.off {
		set.values[v.Name] = Value{Variable: v, Text: v.Default, Origin: FromDefault}
		for _, name := range append(v.names(), v.FileName()) {
			if text := env[name]; text != "" && text != v.Default && (name != v.FileName() || v.Secret) && !(name == "HOSTNAME" && text == machine) {
				problems = append(problems, Problem{Name: name, What: t.lacks(v.Flag)})
			}
		}
	}
	for _, v := range t.rows {
		val := Value{Variable: v, Origin: FromDefault}
		for _, name := range v.names() {
			switch text := env[name]; {
			case text == "" || val.Text != "":
			case name == "HOSTNAME" && text == machine && !strings.Contains(text, "."):
				val.Note = fmt.Sprintf("%s=%s is the container's own name", name, text)
			default:
				val.Text, val.Origin = text, FromEnvironment
				if name != v.Name {
					val.From = name
				}
			}
		}
		if path := env[v.FileName()]; path != "" && v.Secret {
			problems = append(problems, val.readFile(path)...)
		}
		if text, ok := given[v.Name]; ok {
			val.Text, val.Origin, val.From, val.Bad = strings.TrimSpace(text), FromArgument, "", false
		}
		if val.Text == "" && !val.Bad {
			val.Text, val.Origin, val.From = v.Default, FromDefault, ""
		}
		if val.Text != "" && !val.Bad {
			canonical, err := v.parse(val.Text)
			if err != nil {
				val.Bad = true
				problems = append(problems, val.Problem(err.Error()))
			} else {
				val.Text = canonical
			}
		}
		set.values[v.Name] = val
	}
	return set, problems
}

// lacks says that the release has no such flag.
func (t *Table) lacks(flag string) string {
	return fmt.Sprintf("derper %s has no -%s: leave it out, or take an image of a release that has it", t.release, flag)
}

func (val *Value) readFile(path string) []Problem {
	fail := func(what string) []Problem {
		val.Bad = true
		return []Problem{{Name: val.FileName(), Text: path, What: what}}
	}
	if val.Text != "" {
		return fail(fmt.Sprintf("%s is set too; set only one of them", val.Name))
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(fmt.Sprintf("cannot be read: %v; mount the secret there and let uid %d read it", unwrapPath(err), os.Getuid()))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return fail(fmt.Sprintf("cannot be read: %v; it must be a file", unwrapPath(err)))
	case len(b) > maxSecret:
		return fail("is larger than 64 KiB; that is no secret")
	}
	val.Text, val.Origin, val.Path = strings.TrimSpace(string(b)), FromFile, path
	if val.Text == "" {
		return fail(fmt.Sprintf("is empty; write the value of %s into it", val.Name))
	}
	if bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff}) {
		return fail("is UTF-16; save it as UTF-8 without a byte order mark")
	}
	if strings.ContainsAny(val.Text, "\x00\r\n") {
		return fail("has more than one line; leave only the secret in it")
	}
	return nil
}

// unwrapPath drops the path that the message already names.
func unwrapPath(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}

// Problem makes a Problem about the value. A secret stays secret.
func (val Value) Problem(what string) Problem {
	p := Problem{Name: val.Name, Text: val.Text, What: what}
	switch {
	case val.Secret && val.Origin == FromFile:
		p.Name, p.Text = val.FileName(), val.Path
	case val.Secret:
		p.Text = ""
	case val.Type == URL || val.Type == HomePage:
		p.Text = val.Shown()
	}
	switch {
	case val.Origin == FromArgument:
		p.Name = "-" + val.Flag
	case val.From != "":
		p.Name = val.From
	}
	return p
}

// Shown is the value as it may be printed: secrets masked, passwords in URLs
// too.
func (val Value) Shown() string {
	switch {
	case val.Text == "":
		return ""
	case val.Secret:
		return "(secret)"
	case val.Type == URL || val.Type == HomePage:
		u, err := url.Parse(val.Text)
		if err != nil {
			return "(no URL)"
		}
		return u.Redacted()
	}
	return val.Text
}

// Value returns the value of a variable of the table; asking for another one
// is a programming error.
func (s Set) Value(name string) Value {
	val, ok := s.values[name]
	if !ok {
		panic("setting: no variable " + name)
	}
	return val
}

// Get returns the text of a variable.
func (s Set) Get(name string) string { return s.Value(name).Text }

// Bool reports whether a variable is true.
func (s Set) Bool(name string) bool { return s.Get(name) == "true" }

// Number returns the value of a port or count, 0 if there is none.
func (s Set) Number(name string) int {
	n, _ := strconv.Atoi(s.Get(name))
	return n
}

// With returns the set with one more value, as derper shall get it, and why.
func (s Set) With(name, text, note string) Set {
	values := make(map[string]Value, len(s.values))
	for k, v := range s.values {
		values[k] = v
	}
	val := s.Value(name)
	val.Text, val.Note = text, note
	values[name] = val
	return Set{table: s.table, values: values}
}

// Flags returns derper's arguments. All flags that have a value are there,
// even where derper's default is the same: a process list then shows what
// counts, and the health check reads it from there. Of a flag that nobody knows, derper gets
// only what was set.
func (s Set) Flags() []string {
	var flags []string
	for _, v := range s.table.rows {
		val := s.values[v.Name]
		if v.Flag != "" && val.Text != "" && !(v.rule && val.Origin == FromDefault) {
			flags = append(flags, "-"+v.Flag+"="+val.Text)
		}
	}
	return flags
}

// Environ returns the environment for derper and tailscaled: the given one
// without the secrets, so that they show neither in /proc nor in a crash dump.
func (t *Table) Environ(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		_, secret := find(slices.Concat(t.rows, t.off), func(v Variable) bool { return v.Secret && v.Name == name })
		return secret
	})
}
