package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/suite"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// testSumDB names the variable by which a test's build learns of the test's
// checksum database. The program itself has no such variable.
const testSumDB = "DERPER_TEST_SUMDB"

// run runs a command line in this process.
var run = program.Run

func TestMain(m *testing.M) {
	suite.Init()
	testscript.Main(m, map[string]func(){
		"build": func() {
			sumDB = os.Getenv(testSumDB)
			rehearse()
			main()
		},
	})
}

// TestScripts runs the scenarios in testdata. Each begins with the mistake that it
// guards against.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
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

// TestHelpHasExamples keeps -h of every command useful.
func TestHelpHasExamples(t *testing.T) {
	for _, c := range commands {
		var stdout, stderr strings.Builder
		if code := run(context.Background(), []string{c.name, "-h"}, &stdout, &stderr); code != cli.ExitOK {
			t.Errorf("%s -h: exit code %d: %s", c.name, code, stderr.String())
		}
		if !strings.Contains(stdout.String(), "\nexample:\n  build ") {
			t.Errorf("%s -h shows no example:\n%s", c.name, stdout.String())
		}
	}
}
