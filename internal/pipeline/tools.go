package pipeline

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// toolsModules are the modules that the tools are made of besides this one. All others of
// go.mod are left out when they are compiled, so that none of those is needed, or moves their
// key.
var toolsModules = []string{
	"github.com/spf13/pflag",
	"golang.org/x/sys",
	"golang.org/x/term",
	"mvdan.cc/sh/v3",
}

// toolsSource is the source of the tools for a toolchain: with go.mod and go.sum of this module,
// as far as they are about [toolsModules].
func toolsSource(g lock.Go) (*toolchain.Own, error) {
	mod, err := modfile.Parse("go.mod", derper.GoMod, nil)
	if err != nil {
		return nil, err
	}
	own := &toolchain.Own{
		Files:  derper.ToolsSource(),
		Module: fmt.Sprintf("module %s\n\ngo %s\n", derper.Module, strings.TrimPrefix(g.Version, "go")),
	}
	found := 0
	for _, r := range mod.Require {
		if !slices.Contains(toolsModules, r.Mod.Path) {
			continue
		}
		found++
		own.Module += fmt.Sprintf("\nrequire %s %s\n", r.Mod.Path, r.Mod.Version)
		for line := range strings.Lines(string(derper.GoSum)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == r.Mod.Path && strings.TrimSuffix(f[1], "/go.mod") == r.Mod.Version {
				own.Sums += line
			}
		}
	}
	if found < len(toolsModules) || len(mod.Replace) > 0 {
		return nil, fmt.Errorf("go.mod: it has %d of the modules %v, and %d replacements", found, toolsModules, len(mod.Replace))
	}
	return own, nil
}

// hashTools is the digest of what the tools are made of, besides the toolchain.
func hashTools() (string, error) {
	own, err := toolsSource(lock.Go{})
	if err != nil {
		return "", err
	}
	files, err := hashTree(own.Files, plan.Tools)
	return digest([]byte(files + own.Module + own.Sums)), err
}
