package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// TestUpdateScripts runs the scenarios in testdata/update: build update against a
// git repository, a module proxy and a checksum database on loopback. The lock is
// of v1.102.3 and records outputs.
func TestUpdateScripts(t *testing.T) {
	repository := func(ts *testscript.TestScript) (*releasetest.Repository, testing.TB) {
		return ts.Value("repository").(*releasetest.Repository), ts.Value("t").(testing.TB)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/update",
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			u := releasetest.NewRepository(tb, releasetest.New(tb, "../.."))
			env.Values["repository"], env.Values["t"] = u, tb
			env.Setenv("GOPROXY", u.Proxy)
			env.Setenv(testSumDB, u.SumDB)
			env.Setenv("REPO", u.URL)
			env.Setenv("CACHE", tb.TempDir())
			real, err := lock.Read("../../" + lock.File)
			if err == nil {
				real, err = real.Of(lock.Default) // as the release has it
			}
			if err != nil {
				return err
			}
			l := &lock.Lock{Schema: lock.SchemaVersion, Inputs: u.Inputs, Outputs: real.Outputs}
			l.Inputs.Platforms = real.Inputs.Platforms
			for _, name := range []string{lock.File, "before.json"} {
				if err := l.Write(filepath.Join(env.WorkDir, name)); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// commit PATH FILE commits a file under another name.
			"commit": func(ts *testscript.TestScript, _ bool, args []string) {
				u, tb := repository(ts)
				u.Commit(tb, map[string]string{args[0]: ts.ReadFile(args[1])})
			},
			// publish VERSION commits a change, tags it, and puts it into the proxy.
			"publish": func(ts *testscript.TestScript, _ bool, args []string) {
				u, tb := repository(ts)
				u.Commit(tb, map[string]string{"VERSION.txt": args[0]})
				u.Publish(tb, args[0])
			},
			// retag VERSION commits a change and moves the tag there, annotated.
			"retag": func(ts *testscript.TestScript, _ bool, args []string) {
				u, tb := repository(ts)
				u.Commit(tb, map[string]string{"VERSION.txt": "moved"})
				u.TagAnnotated(tb, args[0])
			},
			// forbid SUFFIX makes paths that end so answer 403.
			"forbid": func(ts *testscript.TestScript, _ bool, args []string) {
				u, _ := repository(ts)
				u.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
					forbidden := strings.HasSuffix(req.URL.Path, args[0])
					if forbidden {
						http.Error(w, "no", http.StatusForbidden)
					}
					return forbidden
				})
			},
			"toolchain": func(ts *testscript.TestScript, _ bool, args []string) {
				u, _ := repository(ts)
				u.AddToolchain(args[0], lock.Hosts...)
			},
			"offline": func(ts *testscript.TestScript, _ bool, _ []string) {
				u, _ := repository(ts)
				u.Close()
			},
		},
	})
}
