package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/workflowtest"
)

// workflowContexts is what expressions in workflows have for values where nothing is
// carried out.
var workflowContexts = map[string]any{
	"github": map[string]any{"token": "t", "actor": "a", "repository": "xavieralpha/derper", "ref": "refs/heads/main"},
	"inputs": map[string]any{"channel": "stable", "lock": "versions.json", "images": `["docker.io/camllia/derper", "ghcr.io/xavieralpha/derper"]`},
	"needs":  map[string]any{"build": map[string]any{"outputs": map[string]any{"digest": "sha256:" + strings.Repeat("0", 64)}}},
	"vars":   map[string]any{}, "secrets": map[string]any{},
}

// parses says whether a command line of a workflow is one of this program.
func parses(t *testing.T, words []string) (ok bool, stderr string) {
	t.Helper()
	justParse = true
	defer func() { justParse = false }()
	var stdout, errs strings.Builder
	code := run(t.Context(), words, &stdout, &errs)
	return code == exitOK && stdout.Len() == 0, errs.String() + stdout.String()
}

// TestWorkflowCommands guards the workflows' command lines: each is one that this
// program's own parser takes, or a script that is there.
func TestWorkflowCommands(t *testing.T) {
	files, err := workflowtest.Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		list, err := f.Commands(workflowContexts)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			line := strings.Join(c.Words, " ")
			switch rest, ours := strings.CutPrefix(line, "go run ./cmd/build"); {
			case ours:
				seen++
				if ok, said := parses(t, strings.Fields(rest)); !ok {
					t.Errorf("%s: %s\n%s", c.Where, line, said)
				}
			case strings.HasPrefix(line, "go run ./ci"): // a test there parses it
			default:
				script := strings.Fields(strings.TrimPrefix(line, "bash "))[0]
				info, err := os.Stat(filepath.Join("../..", script))
				if err != nil || info.Mode()&0o111 == 0 {
					t.Errorf("%s: %s: no program %s", c.Where, line, script)
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d command lines seen", seen)
	}
}

// TestParses guards the guard.
func TestParses(t *testing.T) {
	for line, want := range map[string]bool{
		"push --by-digest --lock versions.json dist": true,
		"--platform all":              true,
		"push --by-diggest":           false,
		"push --by-digest=maybe":      false,
		"publish":                     false,
		"image dist":                  false,
		"test --timeout 1 dist":       false,
		"sign --keyless --repo":       false,
		"github issue --title failed": true,
		"help":                        false,
	} {
		if ok, said := parses(t, strings.Fields(line)); ok != want {
			t.Errorf("%s: parses %v\n%s", line, ok, said)
		}
	}
	// Outside of the test, commands do more than parse.
	if _, stderr := build(t, exitFailed, "plan", "--lock", "missing.json"); !strings.Contains(stderr, "missing.json") {
		t.Errorf("stderr: %s", stderr)
	}
}
