package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/suite"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// testSumDB names the variable by which a test's build learns of the test's
// checksum database. The program itself has no such variable.
const testSumDB = "DERPER_TEST_SUMDB"

// run runs a command line in this process, in the environment that people have.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return standard().program().Run(ctx, args, stdout, stderr)
}

// tidy removes what tests share once all have run: testscript.Main does not return.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	defer func() { os.RemoveAll(realDir) }()
	return m.M.Run()
}

func TestMain(m *testing.M) {
	suite.Init()
	gobinary.Init()
	testscript.Main(tidy{m}, map[string]func(){
		"build": func() {
			e := standard()
			if e.sumDB = os.Getenv(testSumDB); e.sumDB != "" {
				e.shared = []string{"toolchain", "go-build"} // as releasetest.ShareInto has them
			}
			rehearse(&e)
			suite.Init() // as main does
			e.program().Main()
		},
	})
}

// TestScripts runs the scenarios in testdata. Each begins with the mistake that it
// guards against.
func TestScripts(t *testing.T) {
	runScripts(t, "testdata")
}

// TestLongScripts runs those that build again and again.
func TestLongScripts(t *testing.T) {
	need.Minutes(t, "scripts that build again and again")
	runScripts(t, "testdata/long")
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			r := releasetest.New(tb, "../..")
			env.Values["release"], env.Values["t"] = r, tb
			env.Setenv("GOPROXY", r.Proxy)
			env.Setenv(testSumDB, r.SumDB)
			env.Setenv("CACHE", releasetest.CacheDir(tb))
			l := &lock.Lock{Schema: lock.SchemaVersion, Inputs: r.Inputs}
			return l.Write(filepath.Join(env.WorkDir, lock.File))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"edit":      edit,
			"damage":    damage,
			"published": published,
			"tamper":    tamper,
			"offline":   func(ts *testscript.TestScript, _ bool, _ []string) { served(ts).Close() },
		},
	})
}

func served(ts *testscript.TestScript) *releasetest.Release {
	return ts.Value("release").(*releasetest.Release)
}

// edit FILE OLD NEW replaces a string in a file.
func edit(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	data := ts.ReadFile(name)
	if !strings.Contains(data, args[1]) {
		ts.Fatalf("edit: %s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(name, []byte(strings.Replace(data, args[1], args[2], 1)), 0o644))
}

// published writes into the lock that what it records was published.
func published(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := lock.Read(ts.MkAbs(lock.File))
	ts.Check(err)
	l.Published = &lock.Published{Revision: l.Inputs.Revision, Index: l.Indexes()}
	ts.Check(l.Write(ts.MkAbs(lock.File)))
}

// damage flip|truncate|exclude PATTERN damages the one file that matches.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	names, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("damage: nothing matches %s", args[1])
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		ts.Check(err)
		ts.Check(os.Chmod(name, 0o644))
		switch args[0] {
		case "flip":
			data[len(data)/2] ^= 1
		case "truncate":
			data = data[:len(data)/2]
		case "exclude": // from what is compiled
			data = append([]byte("//go:build ignore\n\n"), data...)
		}
		ts.Check(os.WriteFile(name, data, 0o644))
	}
}

// tamper makes the proxy serve another zip of tailscale than the checksum database
// knows.
func tamper(ts *testscript.TestScript, _ bool, _ []string) {
	r := served(ts)
	r.Tamper(ts.Value("t").(testing.TB), module.Version{Path: lock.TailscaleModule, Version: r.Inputs.Tailscale.Version})
}

// TestHelp keeps -h of every command useful: with an example, with two dashes before long
// flags, and no wider than a terminal.
func TestHelp(t *testing.T) {
	seen := 0
	var look func(c *cobra.Command, path []string)
	look = func(c *cobra.Command, path []string) {
		seen++
		var stdout, stderr strings.Builder
		if code := run(t.Context(), append(path, "-h"), &stdout, &stderr); code != cli.ExitOK || stderr.Len() > 0 {
			t.Errorf("%q -h: exit code %d: %s", path, code, &stderr)
		}
		text := stdout.String()
		if !strings.Contains(text, "\nexample:\n  ") || !strings.Contains(text, "\nusage: build") {
			t.Errorf("%q -h shows no example or usage:\n%s", path, text)
		}
		if m := regexp.MustCompile(`(?m)[ (]-[a-z]{2,}`).FindString(text); m != "" {
			t.Errorf("%q -h shows a long flag with one dash: %q", path, m)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 && !strings.Contains(line, "://") {
				t.Errorf("%q -h has a line of %d columns:\n%s", path, n, line)
			}
		}
		for _, sub := range c.Commands() {
			look(sub, append(slices.Clone(path), sub.Name()))
		}
	}
	look(standard().commands(io.Discard, io.Discard), nil)
	if seen < 18 {
		t.Errorf("only %d commands seen", seen)
	}
}

// TestUsage guards what people meet who mistype: an exit code of its own, nothing on stdout,
// and a hint that helps.
func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"tset":                                "unknown command \"tset\"\nhint: did you mean test?",
		"puhs --dry-run":                      "unknown command \"puhs\"\nhint: did you mean push?",
		"-q verfy --source":                   "unknown command \"verfy\"\nhint: did you mean verify?",
		"--lock x plna --nosuch":              "unknown command \"plna\"\nhint: did you mean plan?",
		"nonsense":                            "unknown command \"nonsense\"\nhint: SELF -h shows how it is used",
		"-- plan":                             "unknown command \"plan\"\nhint: a command comes before --",
		"cache prnue":                         "unknown command \"cache prnue\"\nhint: did you mean prune?",
		"cache":                               "cache: no command given, expected prune\nhint: SELF cache -h shows how it is used",
		"help tset":                           "unknown command \"tset\"\nhint: did you mean test?",
		"-lock x":                             "unknown flag -lock\nhint: a long flag has two dashes: --lock",
		"push -dry-run":                       "push: unknown flag -dry-run\nhint: a long flag has two dashes: --dry-run",
		"push --to a/b -lock=x":               "push: unknown flag -lock\nhint: a long flag has two dashes: --lock",
		"verify -html report.html":            "verify: unknown flag -html\nhint: a long flag has two dashes: --html",
		"-help":                               "unknown flag -help\nhint: a long flag has two dashes: --help",
		"test -x":                             "test: unknown flag -x\nhint: SELF test -h shows how it is used",
		"test --run -json -nosuch":            "test: unknown flag -n\nhint: SELF test -h shows how it is used",
		"test --platfrom all":                 "test: unknown flag --platfrom\nhint: SELF test -h shows how it is used",
		"push --lock":                         "push: flag needs an argument: --lock\nhint: SELF push -h shows how it is used",
		"image dist":                          "image: unexpected argument \"dist\"\nhint: SELF image -h shows how it is used",
		"cache prune x":                       "cache prune: unexpected argument \"x\"\nhint: SELF cache prune -h shows how it is used",
		"push ./a ./b --tag c":                "push: --tag names one image, and there are 2 layouts",
		"push --to=":                          "--to: ",
		"push --to a.example/b,":              "--to: ",
		"push --to UPPER/case":                "--to: ",
		"push --tag= --by-digest":             "push: --by-digest moves no tag",
		"completion tcsh":                     "completion: unknown shell \"tcsh\", expected one of bash, zsh, fish\nhint: SELF completion -h shows how it is used",
		"probe --timeout 1 a.b":               "probe: invalid argument \"1\" for \"--timeout\" flag: ",
		"verify --rebuilder= --require 1 a/b": "--rebuilder names nobody",
		"release --step polish":               "--step: \"polish\" is not a step of a release\nhint: SELF release -h shows how it is used",
		"push --repo a.example/b":             "push: unknown flag --repo\nhint: SELF push -h shows how it is used",
		"update --repository /some":           "update: unknown flag --repository\nhint: SELF update -h shows how it is used",
	} {
		var stdout, stderr strings.Builder
		code := run(t.Context(), strings.Fields(line), &stdout, &stderr)
		if want := "build: " + strings.ReplaceAll(want, "SELF", self()); code != cli.ExitUsage || stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), want) {
			t.Errorf("build %s: exit code %d, said\n%s%s, want\n%s", line, code, &stdout, &stderr, want)
		}
	}
}

// TestList guards against a variable of a script that is not set and becomes a wish for the
// default, and against words of a list that are lost.
func TestList(t *testing.T) {
	for _, tt := range []struct {
		values []string
		want   []string
	}{
		{[]string{"a"}, []string{"a"}},
		{[]string{"a, b", "c"}, []string{"a", "b", "c"}},
		{[]string{""}, []string{""}},
		{[]string{"a,"}, []string{"a", ""}},
		{[]string{"a\nb"}, []string{"a\nb"}}, // which is refused as a name
	} {
		var got []string
		c := &cobra.Command{}
		registerList(c, &got, "tag", "")
		for _, v := range tt.values {
			if err := c.Flags().Set("tag", v); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.values, got, tt.want)
		}
	}
	for _, name := range []string{"", "a\nb", " "} {
		if _, err := (registry.Choice{Names: []string{name}}).Tags(lock.Defaults()); err == nil {
			t.Errorf("%q is taken for a tag", name)
		}
		if checkRepositories([]string{name}) == nil {
			t.Errorf("%q is taken for a repository", name)
		}
	}
}

// TestQuiet guards that --quiet shows no progress of a build that compiles, but what is
// odd about it, and takes nothing from the result.
func TestQuiet(t *testing.T) {
	b := newBuilder(t)
	cmd, stdout, stderr := b.command("--platform", "linux/amd64", "--quiet")
	if err := cmd.Run(); err != nil || stdout.Len() == 0 {
		t.Errorf("%v, stdout %q", err, stdout)
	}
	if want := "build: " + b.lock + " records no outputs: nothing to compare with\n"; stderr.String() != want {
		t.Errorf("stderr %q, want %q", stderr, want)
	}
}

// TestVersion guards what a report of a fault is worth nothing without.
func TestVersion(t *testing.T) {
	for line, want := range map[string]string{
		"version":        "\ngo      go1.",
		"--version":      "build ",
		"version --json": fmt.Sprintf("\"imageFormat\": %d", lock.Format),
	} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), strings.Fields(line), &stdout, &stderr); code != cli.ExitOK || !strings.Contains(stdout.String(), want) {
			t.Errorf("build %s: exit code %d: %s%s", line, code, &stdout, &stderr)
		}
	}
}

// TestCompletion guards the scripts, and that values of flags are completed, too.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), []string{"completion", shell}, &stdout, &stderr); code != cli.ExitOK || !strings.Contains(stdout.String(), "build __complete") && !strings.Contains(stdout.String(), "__complete ") {
			t.Errorf("%s: exit code %d: %s", shell, code, &stderr)
		}
	}
	for line, want := range map[string]string{
		"pu":                            "push\t",
		"push --dry":                    "--dry-run\t",
		"test --platform linux/a":       "linux/arm64\n",
		"release --step s":              "sign\n",
		"update --channel u":            "unstable\n",
		"completion f":                  "fish\n",
		"help cach":                     "cache\t",
		"cache ":                        "prune\t",
		"release --runner dock":         "docker\n",
		"image --platform=linux/riscv6": "linux/riscv64\n",
		"plan --platform linux/amd64,h": "linux/amd64,host\n",
		"plan --pl":                     "--platform\tplatforms, separated",
	} {
		var stdout, stderr strings.Builder
		code := run(t.Context(), append([]string{"__complete"}, strings.Split(line, " ")...), &stdout, &stderr)
		if code != cli.ExitOK || !strings.Contains(stdout.String(), want) {
			t.Errorf("%s: exit code %d, want %q: %s%s", line, code, want, &stdout, &stderr)
		}
	}
}
