package pipeline

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/mod/modfile"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/plan"
)

// Sources are what this program is made of, as far as it decides what the image is.
var Sources = sync.OnceValues(func() (plan.Sources, error) {
	libraries, err := libraries()
	if err != nil {
		return nil, err
	}
	s := plan.Sources{}
	for _, name := range plan.Names() {
		var err error
		switch {
		case name == plan.CompiledBy:
			s[name] = runtime.Version()
		case name == "LICENSE":
			s[name] = digest(derper.Licence)
		case name == "entrypoint":
			s[name], err = hashTree(derper.EntrypointSource(), name)
		case name == plan.Tools:
			s[name], err = hashTools()
		case strings.HasPrefix(name, "internal/"), strings.HasSuffix(name, ".go"):
			s[name], err = hashTree(derper.Code(), name)
		default:
			s[name] = libraries[name]
		}
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", name, err)
		}
	}
	return s, nil
})

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// hashTree is the digest of the names and contents of a folder's files, or of one file.
func hashTree(tree fs.FS, root string) (string, error) {
	var lines strings.Builder
	err := fs.WalkDir(tree, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		fmt.Fprintf(&lines, "%s  %s\n", digest(data), name)
		return err
	})
	return digest([]byte(lines.String())), err
}

// libraries are version and sum of the modules that are linked into this program: those
// that the linker left in it, and those of this module's go.mod where it left none, which
// is so in the binaries of tests.
func libraries() (list map[string]string, err error) {
	list = map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			r := cmp.Or(m.Replace, m)
			if r.Sum == "" { // a folder in its place: the whole program stands for it
				r.Sum, err = ownDigest()
			}
			list[m.Path] = r.Version + " " + r.Sum
		}
	}
	if len(list) > 0 || err != nil {
		return list, err
	}
	mod, err := modfile.Parse("go.mod", derper.GoMod, nil)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(derper.GoSum)) {
		if f := strings.Fields(line); len(f) == 3 {
			sums[f[0]+"@"+f[1]] = f[2]
		}
	}
	for _, r := range mod.Require {
		list[r.Mod.Path] = r.Mod.Version + " " + sums[r.Mod.String()]
	}
	return list, nil
}

// ownDigest is the digest of the running program.
var ownDigest = sync.OnceValues(func() (string, error) {
	name, err := os.Executable()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(name)
	return digest(data), err
})
