package github

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOutputs guards against a value that would be taken for another output.
func TestOutputs(t *testing.T) {
	dir := t.TempDir()
	variables := map[string]string{}
	w := Workflow{Getenv: func(name string) string { return variables[name] }}
	if err := w.SetOutputs("a", "1"); err != nil {
		t.Errorf("outside of a workflow: %v", err)
	}
	variables["GITHUB_OUTPUT"], variables["GITHUB_STEP_SUMMARY"] = filepath.Join(dir, "output"), filepath.Join(dir, "summary")
	if err := w.SetOutputs("a", "1", "b", "2"); err != nil {
		t.Fatal(err)
	}
	if err := w.SetOutputs("c", "1\nreleased=true"); err == nil {
		t.Error("a value of two lines is taken")
	}
	for range 2 {
		if err := w.AddSummary("# text\n"); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"output": "a=1\nb=2\n", "summary": "# text\n\n# text\n\n"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

// TestWorkflow guards where links lead, on github.com and elsewhere.
func TestWorkflow(t *testing.T) {
	for _, tt := range []struct {
		variables       map[string]string
		repository, run string
	}{
		{nil, "", ""},
		{map[string]string{"GITHUB_RUN_ID": "7"}, "", ""},
		{map[string]string{"GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "7"}, "https://github.com/a/b", "https://github.com/a/b/actions/runs/7"},
		{map[string]string{"GITHUB_REPOSITORY": "a/b", "GITHUB_SERVER_URL": "https://git.example/"}, "https://git.example/a/b", ""},
	} {
		w := Workflow{Getenv: func(name string) string { return tt.variables[name] }}
		if w.Repository() != tt.repository || w.Run() != tt.run {
			t.Errorf("%v: repository %q, run %q", tt.variables, w.Repository(), w.Run())
		}
		if _, err := w.Client(); err == nil {
			t.Errorf("%v: a client without a token", tt.variables)
		}
	}
}
