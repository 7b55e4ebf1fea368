package main

import (
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/workflowtest"
)

// TestWorkflowCommands guards the workflows' command lines that start this program:
// its own parser takes them.
func TestWorkflowCommands(t *testing.T) {
	t.Chdir("..") // the lock is read
	files, err := workflowtest.Load(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		if f.Name != "dagger.yml" {
			continue
		}
		list, err := f.Commands(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			rest, ours := strings.CutPrefix(strings.Join(c.Words, " "), "go run ./ci ")
			if len(c.Words) > 0 && c.Words[0] == ".ci/engine" || strings.Join(c.Words, " ") == "bash .ci/engine" {
				continue // its tests
			}
			if !ours {
				t.Errorf("%s: does not start this program: %q", c.Where, c.Words)
				continue
			}
			seen++
			if _, err := parse(strings.Fields(rest)); err != nil {
				t.Errorf("%s: %s: %v", c.Where, rest, err)
			}
		}
	}
	if seen == 0 {
		t.Error("no workflow starts this program")
	}
}

// TestWorkflowVersion guards that the workflow's CLI is of the release that this
// program wants.
func TestWorkflowVersion(t *testing.T) {
	files, err := workflowtest.Load("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if want := "version: '" + strings.TrimPrefix(wanted, "v") + "'"; f.Name == "dagger.yml" && !strings.Contains(string(f.Source), want) {
			t.Errorf("%s has no %s", f.Name, want)
		}
	}
}
