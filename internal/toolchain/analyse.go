package toolchain

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
)

// An Analysis is a run of a program that reads source through the toolchain's go command,
// as a scanner does.
type Analysis struct {
	Program string    // the path of its file
	Args    []string  // without its name
	Env     []string  // what decides about the outcome, see plan.Settings
	Work    string    // a folder of its own
	Network bool      // it may reach the network; the go commands that it starts fetch nothing in any case
	Output  io.Writer // gets what it writes to its standard output
}

// Analyse runs a program in a module that requires the source's module, where the go command
// knows packages by the same paths and selects the same versions as when it compiles them. If
// the source is this project's, the program runs where its files are. The environment is the
// closed one of a compile; [Source.Fetch] has fetched what is read.
func (s *Source) Analyse(ctx context.Context, a Analysis) error {
	dir, err := s.requiring(a.Work)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, a.Program, a.Args...)
	cmd.Dir, cmd.Stdout = dir, a.Output
	cmd.Env = slices.Concat(a.Env, s.toolchain.places(command{work: a.Work}))
	if a.Network {
		cmd.Env = append(cmd.Env, network()...)
	}
	return wait(ctx, cmd, filepath.Base(a.Program), nil)
}

// requiring is the folder of a module that requires the source's module and, at the same
// versions, all that its go.mod requires. The source itself cannot be that module: a main
// module has no version.
func (s *Source) requiring(work string) (string, error) {
	if s.own != nil {
		return s.dir(work)
	}
	sums, err := s.sums()
	if err != nil {
		return "", err
	}
	tree, err := s.Tree(s.module)
	if err != nil {
		return "", err
	}
	name := filepath.Join(tree, "go.mod")
	open := func(string) (io.ReadCloser, error) { return os.Open(name) }
	sums[module.Version{Path: s.module.Path, Version: s.module.Version + "/go.mod"}], err = dirhash.Hash1([]string{"go.mod"}, open)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	theirs, err := modfile.Parse(name, data, nil)
	if err != nil {
		return "", err
	}
	goMod := "module analysis\n"
	if theirs.Go != nil {
		goMod += "\ngo " + theirs.Go.Version + "\n"
	}
	goMod += fmt.Sprintf("\nrequire %s %s\n", s.module.Path, s.module.Version)
	for _, r := range theirs.Require {
		goMod += fmt.Sprintf("require %s %s\n", r.Mod.Path, r.Mod.Version)
	}
	var goSum strings.Builder
	for _, m := range slices.SortedFunc(maps.Keys(sums), func(a, b module.Version) int { return strings.Compare(a.String(), b.String()) }) {
		fmt.Fprintf(&goSum, "%s %s %s\n", m.Path, m.Version, sums[m])
	}
	dir := filepath.Join(work, "requiring")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, text := range map[string]string{"go.mod": goMod, "go.sum": goSum.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}
