package workflowtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/xavieralpha/derper/internal/plan"
)

// A dependabot is what this project says to Dependabot. What it does not have, it does not say.
// Source: https://docs.github.com/en/code-security/dependabot/working-with-dependabot/dependabot-options-reference.
type dependabot struct {
	Version int
	Updates []struct {
		Ecosystem   string `yaml:"package-ecosystem"`
		Directory   string
		Directories []string
		Schedule    struct{ Interval string }
		Cooldown    struct {
			Days int `yaml:"default-days"`
		}
		Groups map[string]struct{ Patterns []string }
	}
}

// TestDependabot guards that everything which is pinned is renewed: the actions, and each
// go.mod; and that a request which moves the image's digests has nothing else in it.
func TestDependabot(t *testing.T) {
	const root = "../../.."
	dec := yaml.NewDecoder(strings.NewReader(read(t, root+"/.github/dependabot.yml")))
	dec.KnownFields(true)
	var config dependabot
	if err := dec.Decode(&config); err != nil {
		t.Fatal(err)
	}
	if config.Version != 2 {
		t.Errorf("version %d", config.Version)
	}
	renewed := map[string][]string{} // folders by ecosystem
	for _, u := range config.Updates {
		folders := u.Directories
		if u.Directory != "" {
			folders = append(folders, u.Directory)
		}
		renewed[u.Ecosystem] = append(renewed[u.Ecosystem], folders...)
		all := false
		for _, g := range u.Groups {
			all = all || slices.Contains(g.Patterns, "*")
		}
		if u.Schedule.Interval != "weekly" || u.Cooldown.Days < 7 || !all {
			t.Errorf("%s of %q: %+v", u.Ecosystem, folders, u)
		}
	}
	if !slices.Equal(renewed["github-actions"], []string{"/"}) {
		t.Errorf("actions in %q", renewed["github-actions"])
	}
	var modules []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.Name() == "go.mod":
			folder, err := filepath.Rel(root, filepath.Dir(name))
			modules = append(modules, filepath.Join("/", folder))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := renewed["gomod"]
	slices.Sort(got)
	if !slices.Equal(got, modules) || len(modules) < 2 {
		t.Errorf("modules in %q, and there are %q", got, modules)
	}

	var decide []string // libraries that decide what is in the image
	for _, name := range plan.Names() {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil && strings.Contains(name, ".") {
			decide = append(decide, name)
		}
	}
	for _, u := range config.Updates {
		if u.Ecosystem != "gomod" || u.Directory != "/" {
			continue
		}
		if got := u.Groups["digests"].Patterns; !slices.Equal(slices.Sorted(slices.Values(got)), decide) || len(decide) == 0 {
			t.Errorf("the group digests has %q, and these decide what is in the image: %q", got, decide)
		}
	}
}
