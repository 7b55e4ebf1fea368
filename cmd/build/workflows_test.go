package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/testing/workflowtest"
)

// samples are values of the variables in workflows.
var samples = map[string]string{
	"CHANNEL": "stable", "LOCK": "versions.json", "AGAIN": "false", "VERSION": "v1.104.5",
	"REPOSITORIES": "docker.io/camllia/derper,ghcr.io/xavieralpha/derper",
	"IMAGE":        "docker.io/camllia/derper",
	"DIGESTS":      `{"default":"sha256:` + strings.Repeat("0", 64) + `"}`,
	"PLATFORMS":    "linux/amd64,linux/arm64", "VARIANT": "default",
	"TITLE": "It failed", "JOBS": "stable /", "STEP": "sign",
}

// parses says whether a command line of a workflow is one of this program.
func parses(t *testing.T, words []string) (ok bool, stderr string) {
	t.Helper()
	e := standard()
	e.getenv = func(name string) string { return map[string]string{"GITHUB_REF_NAME": "main"}[name] }
	if err := cli.Check(e.commands(io.Discard, io.Discard), words); err != nil {
		return false, err.Error()
	}
	return true, ""
}

// workflowCommands are the command lines of all workflows that start this program, by
// where they are, without go run ./cmd/build.
func workflowCommands(t *testing.T) (list []workflowtest.Command) {
	t.Helper()
	files, err := workflowtest.Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		commands, err := f.Commands(samples)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range commands {
			if script := c.Words[0]; strings.HasPrefix(strings.TrimPrefix(script, "bash"), ".ci/") {
				info, err := os.Stat(filepath.Join("../..", script))
				if err != nil || info.Mode()&0o111 == 0 {
					t.Errorf("%s: no program %s", c.Where, script)
				}
				c.Words = c.Words[1:] // which it runs
			}
			if len(c.Words) > 3 && slices.Equal(c.Words[:3], []string{"go", "run", "./cmd/build"}) {
				c.Words = c.Words[3:]
				list = append(list, c)
			}
		}
	}
	return list
}

// TestWorkflowCommands guards the workflows' command lines: each is one that this
// program's own parser accepts, or a script that is there.
func TestWorkflowCommands(t *testing.T) {
	list := workflowCommands(t)
	for _, c := range list {
		if ok, said := parses(t, c.Words); !ok {
			t.Errorf("%s: %q\n%s", c.Where, c.Words, said)
		}
	}
	if len(list) < 13 {
		t.Errorf("only %d command lines seen", len(list))
	}
}

// TestWorkflowVerifies guards against a variant that nobody rebuilds each week.
func TestWorkflowVerifies(t *testing.T) {
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	var verified []string
	for _, c := range workflowCommands(t) {
		if strings.HasPrefix(c.Where, "verify.yml/") && c.Words[0] == "verify" {
			verified = c.Words
		}
	}
	for _, v := range l.Inputs.Variants {
		if ref := samples["IMAGE"] + ":latest" + v.Suffix; !slices.Contains(verified, ref) {
			t.Errorf("verify.yml runs %q, without %s", verified, ref)
		}
	}
}

// TestWorkflowSteps guards that the workflow of a release has a job for each step, in
// their order, each after the one before and with the rights that the step needs: no
// more, no less. A step that can be done for each variant alone has a job for each.
func TestWorkflowSteps(t *testing.T) {
	files, err := workflowtest.Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	publish := files[slices.IndexFunc(files, func(f *workflowtest.File) bool { return f.Name == "publish.yml" })]
	commands := map[string]workflowtest.Command{}
	for _, c := range workflowCommands(t) {
		file, job, _ := strings.Cut(c.Where, "/")
		if job, _, _ = strings.Cut(job, "/"); file == "publish.yml" || file == "sign.yml" {
			commands[job] = c
		}
	}
	var order []string
	for _, job := range publish.Jobs() {
		order = append(order, job.ID.Value)
	}
	if want := append(stepNames(), "report"); !slices.Equal(order, want) {
		t.Errorf("publish.yml has the jobs %q, not %q", order, want)
	}
	for i, step := range release.Steps {
		job := publish.Workflow.Jobs[step.Name]
		c := commands[step.Name]
		if job == nil || len(c.Words) < 3 || !slices.Equal(c.Words[:3], []string{"release", "--step", step.Name}) {
			t.Errorf("%s: runs %q", step.Name, c.Words)
			continue
		}
		for _, before := range stepsBefore(i) {
			if !slices.ContainsFunc(job.Needs, func(n *actionlint.String) bool { return n.Value == before.Name }) {
				t.Errorf("%s: does not wait for %s", step.Name, before.Name)
			}
		}
		if condition := job.If; condition != nil && i != 1 {
			t.Errorf("%s: has the condition %s", step.Name, condition.Value)
		}
		grants := []string{"contents: read"}
		if step.Has(release.Recording) {
			grants = []string{"contents: write"}
		}
		if step.Has(release.Identity) {
			grants = append(grants, "id-token: write")
		}
		switch {
		case step.Has(release.Push):
			grants = append(grants, "packages: write")
		case step.Has(release.Pull):
			grants = append(grants, "packages: read")
		}
		if got := workflowtest.Grants(c.Job); !slices.Equal(got, grants) {
			t.Errorf("%s: has the permissions %q, and needs %q", step.Name, got, grants)
		}
		if got := slices.Contains(c.Words, "--digests"); got != step.Has(release.Images) {
			t.Errorf("%s: compares the digests that the job build gave: %v", step.Name, got)
		}
		if step.ByVariant() {
			of := "variants"
			if step.Ahead {
				of = "compiling"
			}
			var row *actionlint.MatrixRow
			if job.Strategy != nil {
				row = job.Strategy.Matrix.Rows["variant"]
			}
			if want := "${{ fromJSON(needs.update.outputs." + of + ") }}"; row == nil || row.Expression == nil || row.Expression.Value != want {
				t.Errorf("%s: is no job for each variant of %s", step.Name, want)
			}
			if !slices.Contains(c.Words, "--variant") {
				t.Errorf("%s: works on all variants: %q", step.Name, c.Words)
			}
		}
		if step.Has(release.Containers) {
			testsAll(t, job)
		}
		secrets := false
		for _, s := range c.Job.Steps {
			secrets = secrets || s.Env != nil && s.Env.Vars["docker_io_password"] != nil
		}
		if secrets != step.Has(release.Push) {
			t.Errorf("%s: has Docker Hub's secrets: %v", step.Name, secrets)
		}
	}
}

// stepsBefore are those that the job of a step waits for: the one before, or both of two that
// run side by side.
func stepsBefore(i int) []*release.Step {
	steps := release.Steps
	switch {
	case i == 0:
		return nil
	case steps[i-1].Beside:
		return steps[i-2 : i-1]
	case i > 1 && steps[i-2].Beside:
		return steps[i-2 : i]
	default:
		return steps[i-1 : i]
	}
}

// testsAll checks that the job that tests has every platform of the lock on one of its
// machines.
func testsAll(t *testing.T, job *actionlint.Job) {
	t.Helper()
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	var tested []string
	for _, c := range job.Strategy.Matrix.Include.Combinations {
		if a := c.Assigns["platforms"]; a != nil {
			tested = append(tested, strings.Split(strings.Trim(a.Value.String(), `"`), ",")...)
		}
	}
	if want := words(l.Inputs.Platforms); !slices.Equal(slices.Sorted(slices.Values(tested)), slices.Sorted(slices.Values(want))) {
		t.Errorf("test: has the platforms %q, and the lock %q", tested, want)
	}
}

// TestParses guards the guard.
func TestParses(t *testing.T) {
	for line, want := range map[string]bool{
		"push --by-digest --lock versions.json ./dist": true,
		"--platform all":                                 true,
		"push --by-diggest":                              false,
		"push --by-digest=maybe":                         false,
		"publish":                                        false,
		"push --by-digest dist":                          false,
		"attest dist":                                    false,
		"image dist":                                     false,
		"test --timeout 1 ./dist":                        false,
		"release --step tag --to":                        false,
		"release --step push --digests=":                 false,
		"release --step push":                            true,
		"release --step polish":                          false,
		"release --step sign":                            false,
		"release --step vex":                             false,
		"release --step vex --keyless":                   true,
		"release --step scan --vulndb ./vulndb":          true,
		"release --withdraw v1 --step tag":               false,
		"release --step compile --variant debug":         true,
		"release --step test --variant a,b":              true,
		"release --step test --variant=":                 false,
		"release --step push --variant debug":            false,
		"release --variant debug --unsigned":             false,
		"release --step build --platform all":            true,
		"release --step build --platform linux/amd64":    false,
		"github issue --title failed":                    true,
		"verify --require 1 --rebuilder i,https://i a/b": true,
		"verify --require 2 --rebuilder i,https://i a/b": false,
		"verify-signature --identity i --issuer https://i --signer-repository https://github.com/a/b@refs/heads/main a/b": true,
		"verify-signature --key k --signer-repository https://github.com/a/b a/b":                                         false,
		"verify-signature --signer-repository https://github.com/a/b a/b":                                                 false,
		"github released": false,
	} {
		if ok, said := parses(t, strings.Fields(line)); ok != want {
			t.Errorf("%s: parses %v\n%s", line, ok, said)
		}
	}
	// Outside of the test, commands do more than parse.
	if _, stderr := build(t, cli.ExitFailed, "plan", "--lock", "missing.json"); !strings.Contains(stderr, "missing.json") {
		t.Errorf("stderr: %s", stderr)
	}
}
