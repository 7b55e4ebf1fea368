package pipeline

import (
	"io/fs"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/plan"
)

// neutral are packages of this project that this one needs, and modules that those import
// which decide bytes, with the reason why they decide none themselves.
var neutral = map[string]string{
	"":                                      "derper.go is a source of its own",
	"internal/atomicfile":                   "writes files that somebody else made",
	"internal/cache":                        "keeps blobs, which are checked by their digests",
	"internal/ctxio":                        "hands bytes on, or an error",
	"internal/features":                     "says what the lock's tags do not do",
	"internal/limit":                        "hands bytes on, or an error",
	"internal/modproxy":                     "what it fetches is checked against sums in the lock",
	"internal/progress":                     "is for people",
	"internal/retry":                        "tries again",
	"internal/stall":                        "gives up",
	"internal/vex":                          "says what is known of what was built",
	"github.com/KimMachineGun/automemlimit": "says how much memory there is",
	"github.com/go-json-experiment/json":    "reads the lock",
	"golang.org/x/sync":                     "waits",
}

// apart are packages that a kind of action needs and that do not decide what it makes, though
// they decide what others make.
var apart = map[string][]string{
	// Names, versions and sums of the lock are in the action; variables are in the config.
	"roots": {"internal/lock"}, "compile": {"internal/lock"}, "compile-own": {"internal/lock"}, "entrypoint": {"internal/lock"}, "flags": {"internal/lock"},
	"layer": {"internal/lock", "entrypoint/setting"},
}

// TestCode guards that each package and each library is known either to decide what an
// action makes, and then to be in its key, or not to: a new one is to be thought about.
func TestCode(t *testing.T) {
	known := func(name string) bool { return slices.Contains(plan.Names(), name) || neutral[name] != "" }
	imports := map[string][]string{}
	for _, line := range list(t, "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, ".") {
		f := strings.Fields(line)
		if name, ok := strings.CutPrefix(f[0], derper.Module); ok {
			imports[strings.TrimPrefix(name, "/")] = f[1:]
		}
	}
	modules := map[string]string{} // by package
	for _, line := range list(t, "-deps", "-f", `{{with .Module}}{{$.ImportPath}} {{.Path}}{{end}}`, ".") {
		if f := strings.Fields(line); len(f) == 2 {
			modules[f[0]] = f[1]
		}
	}
	for name := range imports {
		if !known(name) && !strings.HasPrefix(name, "entrypoint") {
			t.Errorf("%s: does it decide what the image is? Then it is a line in plan.Code, else one in neutral here", name)
		}
	}
	// What those that decide need: packages, libraries, files.
	for kind, code := range plan.Code {
		for _, name := range code {
			for _, p := range imports[name] {
				own, isOwn := strings.CutPrefix(p, derper.Module+"/")
				switch m := modules[p]; {
				case isOwn && name != "internal/pipeline": // which has what all kinds need
					covered := slices.ContainsFunc(code, func(c string) bool { return own == c || strings.HasPrefix(own, c+"/") })
					if !covered && neutral[own] == "" && !slices.Contains(apart[kind], own) {
						t.Errorf("%s: %s imports %s, whose source is not in the key", kind, name, own)
					}
				case m != "" && m != derper.Module && !known(m):
					t.Errorf("%s imports %s: does it decide what the image is?", name, m)
				}
			}
		}
	}
	for _, line := range list(t, "-deps", "-f", `{{.ImportPath}} {{join .EmbedFiles " "}} {{join .SFiles " "}} {{join .HFiles " "}} {{join .CgoFiles " "}}`, ".") {
		f := strings.Fields(line)
		name := strings.TrimPrefix(f[0], derper.Module+"/")
		for _, file := range f[1:] {
			if _, err := fs.Stat(derper.Code(), name+"/"+file); slices.Contains(plan.Names(), name) && err != nil {
				t.Errorf("%s has the file %s, which is in no key", name, file)
			}
		}
	}
	if len(imports) < 10 || len(modules) < 20 {
		t.Errorf("%d packages and %d modules: the test looks at something else", len(imports), len(modules))
	}
}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestSources guards that every source has a digest of its own, that tests are no part of
// one, and that libraries have their version and their sum.
func TestSources(t *testing.T) {
	sources, err := Sources()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		s := sources[name]
		if s == "" || seen[s] != "" {
			t.Errorf("%s: %q, which is also that of %q", name, s, seen[s])
		}
		seen[s] = name
		if library := strings.Contains(name, ".com/") || strings.HasPrefix(name, "golang.org/"); library && !(strings.HasPrefix(s, "v") && strings.Contains(s, " h1:")) {
			t.Errorf("%s: %q", name, s)
		}
	}
	for _, tree := range []fs.FS{derper.Code(), derper.EntrypointSource()} {
		n := 0
		if err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
			n++
			if strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s is a part of the sources", name)
			}
			return err
		}); err != nil || n < 10 {
			t.Errorf("%d files, %v", n, err)
		}
	}
}
