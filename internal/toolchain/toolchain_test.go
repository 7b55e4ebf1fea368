package toolchain_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
)

// TestInstall guards against a toolchain that does not run, and against one that is
// fetched again without need.
func TestInstall(t *testing.T) {
	w := newWorld(t)
	tool := w.installed()
	for name, program := range map[string]bool{"bin/go": true, "pkg/tool/host/compile": true, "src/a.go": false, "src/cmd/go.mod": false} {
		info, err := os.Stat(filepath.Join(tool.Root(), name))
		if err != nil {
			t.Error(err)
		} else if got := info.Mode()&0o111 != 0; got != program {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
	}
	n := len(w.Requests())
	w.installed()
	if more := w.Requests()[n:]; len(more) > 0 || w.warned != nil {
		t.Errorf("the second time: requests %q, warnings %q", more, w.warned)
	}
}

// TestInstallRepairs guards against a damaged toolchain that is used: it is replaced, and
// the user is told, unless it is only not complete yet.
func TestInstallRepairs(t *testing.T) {
	for _, test := range []struct {
		name    string
		damage  func(root string) error
		warning string
		fetched bool
	}{
		{
			name: "changed file",
			damage: func(root string) error {
				return os.WriteFile(filepath.Join(root, "src/a.go"), []byte("package b\n"), 0o644)
			},
			warning: "sum does not match", fetched: true,
		},
		{
			name: "new file",
			damage: func(root string) error {
				return os.WriteFile(filepath.Join(root, "src/b.go"), []byte("package b\n"), 0o644)
			},
			warning: "sum does not match", fetched: true,
		},
		{
			name: "changed go.mod", // which is not in the zip, but is what the go command reads
			damage: func(root string) error {
				return os.WriteFile(filepath.Join(root, "src/cmd/go.mod"), []byte("module evil\n"), 0o644)
			},
			warning: "sum does not match", fetched: true,
		},
		{
			name:    "no go command",
			damage:  func(root string) error { return os.Remove(filepath.Join(root, "bin/go")) },
			fetched: true,
		},
		{
			name: "killed before programs were made executable",
			damage: func(root string) error {
				return errors.Join(os.Chmod(filepath.Join(root, "bin/go"), 0o444), os.Remove(filepath.Join(root, "src/cmd/go.mod")))
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			root := w.installed().Root()
			if err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
				return errors.Join(err, os.Chmod(name, 0o755)) // a module's tree is read-only
			}); err != nil {
				t.Fatal(err)
			}
			if err := test.damage(root); err != nil {
				t.Fatal(err)
			}
			n := len(w.Requests())
			w.installed()
			if fetched := len(w.Requests()) > n; fetched != test.fetched {
				t.Errorf("fetched: %v, want %v", fetched, test.fetched)
			}
			if said := strings.Join(w.warned, "\n"); !strings.Contains(said, test.warning) || (test.warning == "") != (said == "") {
				t.Errorf("warned: %q, want %q", said, test.warning)
			}
			for name, want := range map[string]string{"src/a.go": "package a\n", "src/cmd/go.mod": "module cmd\n"} {
				if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
			if _, err := os.Stat(filepath.Join(root, "src/b.go")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("src/b.go is left: %v", err)
			}
			if info, err := os.Stat(filepath.Join(root, "bin/go")); err != nil || info.Mode()&0o111 == 0 {
				t.Errorf("bin/go: %v, %v", info.Mode(), err)
			}
		})
	}
}

// TestInstallKeeps guards a toolchain that others use against a lock with another sum, which
// nobody knows.
func TestInstallKeeps(t *testing.T) {
	w := newWorld(t)
	root := w.installed().Root()
	before := files(t, w.dir, "toolchain")
	w.tool.Sums[pipeline.Host] = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if _, err := w.install(); !errors.As(err, new(*modproxy.SumError)) {
		t.Errorf("%v, not a SumError", err)
	}
	if after := files(t, w.dir, "toolchain"); len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("%s had %q, and now %q", root, before, after)
	}
}

// TestInstallRefuses guards against a toolchain that is not the one that the lock names:
// nothing of it may be left, and the error says who expected what.
func TestInstallRefuses(t *testing.T) {
	const wrong = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, test := range []struct {
		name   string
		change func(*world)
		words  []string
		sum    bool
	}{
		{
			name:   "the lock has another sum",
			change: func(w *world) { w.tool.Sums[pipeline.Host] = wrong },
			words:  []string{"toolchain go1.99.0: ", "expected " + wrong + " (lock)", "(checksum database)"}, sum: true,
		},
		{
			name:   "the proxy has another zip",
			change: func(w *world) { w.Tamper(w.T, w.tool.Module(pipeline.Host)) },
			words:  []string{"toolchain go1.99.0: ", "(lock), got h1:", "(http://127.0.0.1:"}, sum: true,
		},
		{
			name:   "nobody knows the version",
			change: func(w *world) { w.tool.Version = "go1.98.0" },
			words:  []string{"toolchain go1.98.0: "},
		},
		{
			name:   "the lock has none for this machine",
			change: func(w *world) { w.tool.Sums = map[string]string{"plan9/386": wrong} },
			words:  []string{"toolchain go1.99.0: the lock has no sum for " + pipeline.Host},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.change(w)
			_, err := w.install()
			if err == nil {
				t.Fatal("it was installed")
			}
			for _, words := range test.words {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q does not say %q", err, words)
				}
			}
			if got := errors.As(err, new(*modproxy.SumError)); got != test.sum {
				t.Errorf("a SumError: %v, want %v", got, test.sum)
			}
			if left := files(t, w.dir, "toolchain", "tmp"); left != nil {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// files lists the files below some folders.
func files(t *testing.T, dir string, folders ...string) (list []string) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(dir, folder), func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				list = append(list, name)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return list
}

// TestFetchModule guards against a module that is used unverified, whether it was just
// fetched or has been there.
func TestFetchModule(t *testing.T) {
	w := newWorld(t)
	tool := w.installed()
	m := module.Version{Path: "example.com/other", Version: "v1.2.3"}
	sum := strings.Fields(w.Add(t, m, "module example.com/other\n", map[string]string{"a.txt": "a\n"}))[2]
	fetch := func(want string) (string, error) {
		t.Helper()
		dir, err := tool.FetchModule(t.Context(), m.Path, lock.Module{Version: m.Version, Sum: want})
		if err != nil {
			return "", err
		}
		data, err := os.ReadFile(filepath.Join(dir, "a.txt"))
		if err != nil || string(data) != "a\n" {
			t.Errorf("a.txt: %q, %v", data, err)
		}
		return dir, nil
	}
	dir, err := fetch(sum)
	if err != nil {
		t.Fatal(err)
	}
	n := len(w.Requests())
	if again, err := fetch(sum); err != nil || again != dir || len(w.Requests()) != n {
		t.Errorf("the second time: %s, %v, requests %q", again, err, w.Requests()[n:])
	}
	name := filepath.Join(dir, "a.txt")
	if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, []byte("b\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(sum); err != nil || len(w.Requests()) == n {
		t.Errorf("a damaged one: %v, %d requests", err, len(w.Requests())-n)
	}
	w.Tamper(t, m)
	if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, []byte("b\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(sum); !errors.As(err, new(*modproxy.SumError)) {
		t.Errorf("another zip: %v", err)
	}
	if left := files(t, w.dir, "modules", "tmp"); slices.Contains(left, name) {
		t.Errorf("left: %q", left)
	}
}
