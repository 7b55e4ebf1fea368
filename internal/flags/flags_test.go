package flags

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// program makes packages of source by import path, each of one file.
func program(t *testing.T, sources map[string]string) (packages []Package) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(sources)) {
		p := Package{Path: path, Files: []string{"a.go"}, Open: func(string) ([]byte, error) { return []byte(sources[path]), nil }}
		file, err := parser.ParseFile(token.NewFileSet(), path, sources[path], parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		p.Name = file.Name.Name
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			p.Imports = append(p.Imports, imported)
		}
		packages = append(packages, p)
	}
	return packages
}

// read is the flags of a program, one a line: name, type, default.
func read(t *testing.T, sources map[string]string, arch string) (flags string, problems []string) {
	t.Helper()
	found, problems, err := Read(program(t, sources), arch)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range found {
		line := fmt.Sprintf("%s %s %q", f.Name, f.Type, f.Default)
		if f.Computed {
			line = fmt.Sprintf("%s %s computed", f.Name, f.Type)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n"), problems
}

// statements is a program whose main function has the given statements.
func statements(imports, lines string) map[string]string {
	return map[string]string{"cmd/x": "package main\n\nimport (" + imports + ")\n\nfunc main() {\n" + lines + "\n}\n"}
}

// The mistake it guards: a type or a default that is another than derper's, so that the
// entrypoint refuses a good value or documents a wrong one.
func TestDefaults(t *testing.T) {
	const imports = `"flag"; "math"; "os"; "time"; "runtime"`
	for _, test := range []struct{ call, want string }{
		{`flag.Bool("x", false, "")`, `x bool "false"`},
		{`flag.BoolVar(&b, "x", !false, "")`, `x bool "true"`},
		{`flag.Int("x", 80, "")`, `x int "80"`},
		{`flag.IntVar(&i, "x", -1, "")`, `x int "-1"`},
		{`flag.Int64("x", 1<<40, "")`, `x int64 "1099511627776"`},
		{`flag.Int64Var(&i, "x", math.MinInt64, "")`, `x int64 "-9223372036854775808"`},
		{`flag.Uint("x", 'a', "")`, `x uint "97"`},
		{`flag.UintVar(&i, "x", 1e3, "")`, `x uint "1000"`},
		{`flag.Uint64("x", math.MaxUint64, "")`, `x uint64 "18446744073709551615"`},
		{`flag.Uint64Var(&i, "x", 0x_ff, "")`, `x uint64 "255"`},
		{`flag.Float64("x", 1, "")`, `x float64 "1"`},
		{`flag.Float64Var(&f, "x", 1/3.0, "")`, `x float64 "0.3333333333333333"`},
		{`flag.Float64("x", 1e100, "")`, `x float64 "1e+100"`},
		{`flag.String("x", ":443", "")`, `x string ":443"`},
		{"flag.StringVar(&s, \"x\", `a\"` + \"\\n\", \"\")", `x string "a\"\n"`},
		{`flag.Duration("x", 10*time.Minute, "")`, `x duration "10m0s"`},
		{`flag.DurationVar(&d, "x", 0, "")`, `x duration "0s"`},
		{`flag.Duration("x", time.Duration(1.5*float64(time.Second)), "")`, `x duration "1.5s"`},
		{`flag.TextVar(&v, "x", netip.Addr{}, "")`, `x value computed`},
		{`flag.Var(&v, "x", "")`, `x value computed`},
		{`flag.Func("x", "", func(string) error { return nil })`, `x value ""`},
		{`flag.BoolFunc("x", "", func(string) error { return nil })`, `x value ""`},

		// Constants, and what is none.
		{`const n = 5; flag.Int("x", n*2, "")`, `x int "10"`},
		{`type mode string; const m mode = "auto"; flag.String("x", string(m), "")`, `x string "auto"`},
		{`flag.Int("x", len("four"), "")`, `x int "4"`},
		{`flag.Int("x", math.MaxInt, "")`, `x int "9223372036854775807"`},
		{`flag.Float64("x", math.Inf(+1), "")`, `x float64 computed`},
		{`flag.String("x", os.Getenv("X"), "")`, `x string computed`},
		{`flag.String("x", "/"+runtime.GOOS, "")`, `x string computed`},
		{`n := 5; flag.Int("x", n, "")`, `x int computed`},
		{`flag.Bool("x", unknown, "")`, `x bool computed`},
		{`flag.Bool("x", 1, "")`, `x bool computed`},
		{`flag.Int("x", 1.5, "")`, `x int computed`},
		{`flag.Float64("x", "1", "")`, `x float64 computed`},
		{`flag.String("x", 1, "")`, `x string computed`},
		{`flag.Duration("x", "1s", "")`, `x duration computed`},
	} {
		if got, problems := read(t, statements(imports, test.call), "amd64"); got != test.want || problems != nil {
			t.Errorf("%s: %s, %q, want %s", test.call, got, problems, test.want)
		}
	}
	for arch, want := range map[string]string{"386": "2147483647", "arm": "2147483647", "riscv64": "9223372036854775807"} {
		got, _ := read(t, statements(imports, `flag.Int("x", math.MaxInt, ""); flag.Uint64("y", uint64(^uint(0)>>1), "")`), arch)
		if want := fmt.Sprintf("x int %q\ny uint64 %[1]q", want); got != want {
			t.Errorf("%s: %s, want %s", arch, got, want)
		}
	}
}

// The mistake it guards: a flag that derper has and nobody knows of, or one that it has not.
func TestWhatCounts(t *testing.T) {
	const mainOf = "package main\n\nimport %s\n\n%s\n"
	for _, test := range []struct {
		name    string
		sources map[string]string
		want    string // names
	}{
		{"an alias", statements(`f "flag"`, `f.Bool("x", true, "")`), "x"},
		{"a dot import", statements(`. "flag"`, `Bool("x", true, ""); CommandLine.Int("y", 1, "")`), "x y"},
		{"another package of that name", statements(`flag "github.com/spf13/pflag"`, `flag.Bool("x", true, "")`), ""},
		{"a variable of that name", statements(`"flag"`, `flag := other{}; flag.Bool("x", true, "")`), ""},
		{"a function that defines none", statements(`"flag"`, `flag.Lookup("x"); flag.Set("y", ""); flag.NewFlagSet("z", flag.ExitOnError)`), ""},

		{"the command line", statements(`"flag"`, `flag.CommandLine.Bool("x", true, ""); (flag.CommandLine).IntVar(&i, "y", 1, "")`), "x y"},
		{"a flag set of its own", statements(`"flag"`, `fs := flag.NewFlagSet("", 0); fs.Bool("x", true, ""); new(flag.FlagSet).Bool("y", true, "")`), ""},
		{"the command line by another name", statements(`"flag"`, `fs := flag.CommandLine; var again = fs; again.Bool("x", true, "")`), "x"},
		{"the command line as an argument", map[string]string{
			"cmd/x": "package main\n\nimport (\"flag\"; \"lib\")\n\nfunc main() { lib.Add(\"\", flag.CommandLine); lib.Other(flag.NewFlagSet(\"\", 0)); lib.Set[int]{}.Add(flag.CommandLine) }\n",
			"lib": "package lib\n\nimport \"flag\"\n\n" +
				"func Add(prefix string, fs *flag.FlagSet) { fs.Bool(\"x\", true, \"\"); c := config{set: fs}; c.add() }\n" +
				"func Other(fs *flag.FlagSet) { fs.Bool(\"not\", true, \"\") }\n" +
				"type config struct { set *flag.FlagSet }\nfunc (c config) add() { c.set.Bool(\"y\", true, \"\") }\n" +
				"type Set[T any] []T\nfunc (Set[T]) Add(fs *flag.FlagSet) { fs.Bool(\"z\", true, \"\") }\n",
		}, "x y z"},

		{"anywhere in package main", map[string]string{"cmd/x": fmt.Sprintf(mainOf, `"flag"`,
			`var a = flag.Bool("a", true, ""); var _ = func() *int { return flag.Int("b", 1, "") }(); func init() { flag.Bool("c", true, "") }; type t int; func (t) unused() { flag.Bool("d", true, "") }`)}, "a b c d"},
		{"a library's variables and init", map[string]string{
			"cmd/x": fmt.Sprintf(mainOf, `_ "lib"`, "func main() {}"),
			"lib":   "package lib\n\nimport \"flag\"\n\nvar X = flag.Bool(\"x\", true, \"\")\nvar _ = named()\nfunc init() { flag.Bool(\"y\", true, \"\") }\nfunc named() int { flag.Bool(\"z\", true, \"\"); return 0 }\nfunc Not() { flag.Bool(\"not\", true, \"\") }\ntype t int\nfunc (t) init() { flag.Bool(\"method\", true, \"\") }\n",
		}, "x y z"},
		{"functions that are reached", map[string]string{
			"cmd/x":   fmt.Sprintf(mainOf, `"lib/one"`, "func main() { one.Run(); f := one.Set[int].Add; f(nil) }"), // does not import flag itself
			"lib/one": "package one\n\nimport (_ \"flag\"; \"lib/two\")\n\nfunc Run() { go two.Add() }\nfunc Not() { two.Not() }\ntype Set[T any] []T\nfunc (Set[T]) Add() { two.Generic[T]() }\n",
			"lib/two": "package two\n\nimport \"flag\"\n\nfunc Add() { flag.Bool(\"x\", true, \"\") }\nfunc Generic[T any]() { flag.Bool(\"y\", true, \"\"); Add(); Generic[T]() }\nfunc Not() { flag.Bool(\"not\", true, \"\") }\n",
		}, "x y"},
		{"functions that are reached past flag", map[string]string{
			"cmd/x": fmt.Sprintf(mainOf, `"lib/one"`, "func main() { one.Run() }"),
			// It does not import flag, so what it does is not looked at.
			"lib/one": "package one\n\nimport \"lib/two\"\n\nfunc Run() { two.Add() }\n",
			"lib/two": "package two\n\nimport \"flag\"\n\nfunc Add() { flag.Bool(\"x\", true, \"\") }\n",
		}, ""},
	} {
		found, problems := read(t, test.sources, "amd64")
		var names []string
		for line := range strings.Lines(found) {
			name, _, _ := strings.Cut(line, " ")
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != test.want || problems != nil {
			t.Errorf("%s: %q, %q, want %q", test.name, got, problems, test.want)
		}
	}
}

// The mistake it guards: a default that is unknown as soon as it has a name elsewhere.
func TestConstantsOfOthers(t *testing.T) {
	got, problems := read(t, map[string]string{
		"cmd/x": `package main

import (
	"flag"
	"lib/one"
	"missing"
)

func main() {
	flag.Duration("direct", one.Timeout, "")
	flag.Int("iota", int(one.Second), "")
	flag.String("copied", one.Copied, "")
	flag.String("helped", "", "see " + one.Copied)
	flag.String("variable", one.Variable, "")
	flag.Int("missing", missing.Constant, "")
}
`,
		"lib/one": `package one

import (
	other "lib/two/v2"
	"lib/unneeded"
	"time"
)

type kind int

const Timeout = 2 * time.Second
const (
	_ kind = iota
	First
	Second
)
const Copied = other.Name + "!"

var Variable = "text"

func use() { unneeded.Do() }
`,
		"lib/two/v2":   "package two\n\nconst Name = \"two\"\n",
		"lib/unneeded": "package unneeded\n\nfunc Do() {\n",
	}, "amd64")
	want := `copied string "two!"
direct duration "2s"
helped string ""
iota int "2"
missing int computed
variable string computed`
	if got != want || problems != nil {
		t.Errorf("%s\n%q, want\n%s", got, problems, want)
	}
}

// The mistake it guards: help that is another's, or cut.
func TestHelp(t *testing.T) {
	found, problems, err := Read(program(t, statements(`"flag"`,
		"const name = `a`; flag.Bool(`x`, true, `for \"`+name+`\"\nand more`); flag.Var(v, `y`, `of y`); flag.Func(`z`, `of z`, f); flag.Int(`n`, 1, help())")), "amd64")
	var got []string
	for _, f := range found {
		got = append(got, f.Name+": "+f.Help)
	}
	want := []string{"n: ", "x: for \"a\"\nand more", "y: of y", "z: of z"}
	if err != nil || !slices.Equal(got, want) || len(problems) != 1 || !strings.Contains(problems[0], "cmd/x/a.go:7:66: the help of -n is no constant") {
		t.Errorf("%q, %q, %v, want %q", got, problems, err, want)
	}
}

// The mistake it guards: source that is not understood keeps a release from being built, or
// nobody hears of it.
func TestProblems(t *testing.T) {
	for _, test := range []struct{ lines, want, problem string }{
		{`name := "y"; flag.Bool(name, true, "")`, "", `cmd/x/a.go:6:14: the name of a flag is no constant: flag.Bool(name, true, "")`},
		{`flag.Bool("", true, "")`, "", `"" is no name of a flag`},
		{`flag.Bool("-y", true, "")`, "", `"-y" is no name of a flag`},
		{`flag.Bool(5, true, "")`, "", "the name of a flag is no constant"},
		{`flag.Bool()`, "", "the name of a flag is no constant"},
		{`if a { flag.Int("y", 1, "") } else { flag.Int("y", 2, "") }`, `y int "2"`, "-y is defined twice: this one counts"},
		{"flag.Int(\"y\", 1, \"\")\nx := ]\n", `y int "1"`, "cmd/x/a.go:7:6: expected operand"},
		{"}\n" + strings.Repeat("func f(a int; b int) {}\n", 20) + "func g() {\nflag.Int(\"y\", 1, \"\")", `y int "1"`, "cmd/x/a.go:7:13: "},
		{"flag.Int(\"y\", 1, \"\"); flag.Bool(", `y int "1"`, "cmd/x/a.go:"},
	} {
		got, problems := read(t, statements(`"flag"`, test.lines), "amd64")
		if got != test.want || len(problems) == 0 || !strings.Contains(strings.Join(problems, "\n"), test.problem) {
			t.Errorf("%s: %s, %q, want %s, %q", test.lines, got, problems, test.want, test.problem)
		}
	}
	// A package that only has constants, in the syntax of a Go to come.
	got, problems := read(t, map[string]string{
		"cmd/x": "package main\n\nimport (\"flag\"; \"lib\")\n\nvar x = flag.Int(\"x\", lib.N, \"\")\n",
		"lib":   "package lib\n\nconst N = 5\n\nfunc f() { x ?= 5 }\n",
	}, "amd64")
	if got != `x int "5"` || len(problems) == 0 || !strings.Contains(problems[0], "lib/a.go:5:14") {
		t.Errorf("%s, %q", got, problems)
	}
}

// The mistake it guards: flags that are fewer because a file could not be read.
func TestErrors(t *testing.T) {
	unreadable := errors.New("input/output error")
	for _, broken := range []string{"cmd/x", "lib", ""} {
		packages := program(t, map[string]string{
			"cmd/x":        "package main\n\nimport (\"flag\"; \"lib\")\n\nvar x = flag.Int(\"x\", lib.N, \"\")\n",
			"lib":          "package lib\n\nimport \"lib/unneeded\"\n\nconst N = 5\n\nvar V = unneeded.V\n",
			"lib/unneeded": "package unneeded\n\nvar V = 1\n",
		})
		for i := range packages {
			if p := &packages[i]; p.Path == broken || p.Path == "lib/unneeded" {
				p.Open = func(string) ([]byte, error) { return nil, unreadable }
			}
		}
		found, _, err := Read(packages, "amd64")
		if broken == "" {
			if err != nil || len(found) != 1 {
				t.Errorf("a package that is not needed is opened: %v, %v", found, err)
			}
			continue
		}
		if !errors.Is(err, unreadable) || !strings.Contains(err.Error(), "source of "+broken+":") || found != nil {
			t.Errorf("%s cannot be read: %v, %v", broken, found, err)
		}
	}
	if _, _, err := Read(nil, "arm/v7"); err == nil || !strings.Contains(err.Error(), `unknown architecture "arm/v7"`) {
		t.Errorf("an architecture that is none: %v", err)
	}
	if found, problems, err := Read(nil, "amd64"); len(found) > 0 || problems != nil || err != nil {
		t.Errorf("of nothing: %v, %q, %v", found, problems, err)
	}
}
